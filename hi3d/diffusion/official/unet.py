"""The UNet of Hi3D's released code, as a variant of diffusers' class."""

from functools import wraps
from typing import Any

from diffusers import ModelMixin, UNetSpatioTemporalConditionModel
from diffusers.models.resnet import ResnetBlock2D, TemporalResnetBlock
from torch import nn

RESNET_EPS = 1e-5
"""Of the group norms in residual blocks, in SVD's own code; diffusers builds some with 1e-6."""


class OfficialUNet(UNetSpatioTemporalConditionModel, ModelMixin):
    """SVD's UNet with the released networks' group norms, and with a ready vector condition.

    `added_time_ids` is the vector condition [B, projection_class_embeddings_input_dim] itself, see
    `hi3d.diffusion.official.conditioning`: the aesthetic part is not a sinusoid alone, which is
    all that diffusers' embedding of `added_time_ids` can make. (`ModelMixin` is named again
    because diffusers looks for it in this module.)
    """

    @wraps(UNetSpatioTemporalConditionModel.__init__)  # type: ignore[misc]
    def __init__(self, *arguments: Any, **settings: Any):
        super().__init__(*arguments, **settings)
        self.add_time_proj = nn.Identity()
        for module in self.modules():
            if isinstance(module, ResnetBlock2D | TemporalResnetBlock):
                module.norm1.eps = module.norm2.eps = RESNET_EPS
