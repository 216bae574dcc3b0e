"""The aesthetic score that Hi3D's released stage 1 is told in the place of SVD's frame rate."""

from typing import Any

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from hi3d.diffusion.conditioning import CLIP_MEAN, CLIP_STD

CROP = (80, 304)
"""Columns kept of an image that was squashed to 224 x 384."""


class AestheticScorer(ModelMixin, ConfigMixin):
    """LAION's aesthetic predictor: CLIP ViT-L/14 and a linear network of five layers."""

    @register_to_config
    def __init__(self, clip: dict[str, Any], widths: tuple[int, ...] = (1024, 128, 64, 16)):
        """Args:
        clip: settings of its `CLIPVisionConfig`.
        widths: of the hidden layers.
        """
        super().__init__()
        config = CLIPVisionConfig(**clip)
        self.image_encoder = CLIPVisionModelWithProjection(config)
        layers: list[nn.Module] = []
        for before, after in zip((config.projection_dim, *widths[:-1]), widths, strict=True):
            # The released weights are numbered with the dropout that stood between the layers.
            layers += [nn.Linear(before, after), nn.Identity()]
        self.layers = nn.Sequential(*layers[:-1], nn.Linear(widths[-1], 1))

    def forward(self, rgb: Tensor) -> Tensor:
        """Score images; square ones are squashed and their sides cut, as in the training.

        Args:
            rgb: [B, 3, H, W] in [0, 1].

        Returns:
            [B], about 1 to 10.
        """
        pixels = F.interpolate(rgb, (224, 384), mode="bilinear")[..., CROP[0] : CROP[1]]
        mean = torch.tensor(CLIP_MEAN).to(pixels)[:, None, None]
        std = torch.tensor(CLIP_STD).to(pixels)[:, None, None]
        pixels = ((pixels - mean) / std).to(self.dtype)
        embeds = self.image_encoder(pixel_values=pixels).image_embeds
        return self.layers(F.normalize(embeds, dim=-1))[:, 0]
