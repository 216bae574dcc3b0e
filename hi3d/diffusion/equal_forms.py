"""The UNet's layers in forms that give the same numbers in less time, most of them in sampling.

What is special here and unknown to the general layers: cross-attention sees one token, the image
embedding, over which the softmax is 1; temporal convolutions touch one axis; no frame is an image
of its own; without gradients a layer may write over what it alone has made. Parameters and their
names stay as they are.
"""

from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.activations import GEGLU
from diffusers.models.attention import BasicTransformerBlock, TemporalBasicTransformerBlock
from diffusers.models.resnet import AlphaBlender, ResnetBlock2D, TemporalResnetBlock
from torch import Tensor, nn


def use_equal_forms(unet: Any, trained: bool = False) -> Any:
    """Exchange the forms of a UNet's layers; only for embeddings of one token, as both stages'.

    Args:
        unet: `UNetSpatioTemporalConditionModel`, changed in place.
        trained: only those that save time with gradients too. Of the others some work as before
            then, and the queries and keys of cross-attention get no gradients at all.

    Returns:
        The same UNet.
    """
    for module in list(unet.modules()):
        if isinstance(module, BasicTransformerBlock | TemporalBasicTransformerBlock):
            if not trained:
                module.attn2.set_processor(OneTokenAttention())
                module.norm2.__class__ = UnusedNorm
        elif type(module) in (WITH_GRADIENTS if trained else EQUAL_FORMS):
            module.__class__ = EQUAL_FORMS[type(module)]
    return unet


class OneTokenAttention:
    """An attention processor for a context of one token: softmax over one score is 1.

    The output is the token's value, the same at each position; nobody asks what attends to it.
    """

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,  # [N, L, C]
        encoder_hidden_states: Tensor,  # [N, 1, D]
        attention_mask: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        """Attention of N sequences of length L to their tokens. [N, L, C]

        Raises:
            ValueError: there is more than one token.
        """
        if encoder_hidden_states.shape[1] != 1:
            raise ValueError(f"{encoder_hidden_states.shape[1]} tokens: use the general attention")
        value = attn.to_out[0](attn.to_v(encoder_hidden_states))
        return value.expand(-1, hidden_states.shape[1], -1)


class UnusedNorm(nn.LayerNorm):
    """The norm of what attends to one token."""

    def forward(self, input: Tensor) -> Tensor:
        """The input as it is."""
        return input


class TemporalConv(nn.Conv3d):
    """A convolution over time alone, on the CPU over [T, H W] with the kernels of images."""

    def forward(self, input: Tensor) -> Tensor:
        """[B, C, T, H, W] -> [B, D, T, H, W]."""
        if input.device.type != "cpu" or self.kernel_size[1:] != (1, 1):
            return super().forward(input)
        padding = (int(self.padding[0]), 0)
        output = F.conv2d(input.flatten(3), self.weight.squeeze(-1), self.bias, padding=padding)
        return output.unflatten(3, input.shape[3:])


class SpatialConv(nn.Conv2d):
    """A convolution of images, on the CPU with the channels last: its kernels work so."""

    def forward(self, input: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, D, H', W']."""
        if input.device.type != "cpu" or torch.is_grad_enabled():
            return super().forward(input)
        return super().forward(input.contiguous(memory_format=torch.channels_last)).contiguous()


class Blend(AlphaBlender):
    """The learned mix of space and time, in one pass."""

    def forward(
        self,
        x_spatial: Tensor,
        x_temporal: Tensor,
        image_only_indicator: Tensor | None = None,
    ) -> Tensor:
        """alpha x_spatial + (1 - alpha) x_temporal, any equal shapes."""
        if self.merge_strategy == "fixed" or self.switch_spatial_to_temporal_mix:
            return super().forward(x_spatial, x_temporal, image_only_indicator)
        return torch.lerp(x_temporal, x_spatial, torch.sigmoid(self.mix_factor).to(x_spatial))


class GatedLayer(GEGLU):
    """GEGLU (arXiv 2002.05202), its halves apart: GELU is slow on every other piece of memory."""

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        """[..., C] -> [..., D]."""
        layer: Any = self.proj
        if hidden_states.device.type == "cpu" and type(layer) is nn.Linear:  # no adapter's
            halves = zip(layer.weight.chunk(2), layer.bias.chunk(2), strict=True)
            value, gate = (F.linear(hidden_states, *half) for half in halves)
        else:
            value, gate = layer(hidden_states).chunk(2, dim=-1)
        gate = F.gelu(gate)
        return value * gate if torch.is_grad_enabled() else gate.mul_(value)


class SpatialBlock(ResnetBlock2D):
    """A residual block of single frames, in the memory of its own activations."""

    def forward(self, input_tensor: Tensor, temb: Tensor, *_: Any, **__: Any) -> Tensor:
        """[N, C, H, W] and embeddings of the noise level [N, E] -> [N, D, H, W]."""
        resized = self.upsample is not None or self.downsample is not None
        if torch.is_grad_enabled() or resized or self.time_embedding_norm != "default":
            return super().forward(input_tensor, temb)
        hidden = self.conv1(F.silu(self.norm1(input_tensor), inplace=True))
        hidden += self.time_emb_proj(F.silu(temb))[:, :, None, None]
        hidden = self.conv2(F.silu(self.norm2(hidden), inplace=True))
        if self.conv_shortcut is not None:
            input_tensor = self.conv_shortcut(input_tensor)
        return hidden.add_(input_tensor).div_(self.output_scale_factor)


class TemporalBlock(TemporalResnetBlock):
    """A residual block over time, in the memory of its own activations."""

    def forward(self, input_tensor: Tensor, temb: Tensor) -> Tensor:
        """[B, C, T, H, W] and embeddings of the noise level [B, T, E] -> [B, C, T, H, W]."""
        if torch.is_grad_enabled() or self.conv_shortcut is not None:
            return super().forward(input_tensor, temb)
        hidden = self.conv1(F.silu(self.norm1(input_tensor), inplace=True))
        hidden += self.time_emb_proj(F.silu(temb)).transpose(1, 2)[..., None, None]
        hidden = self.conv2(F.silu(self.norm2(hidden), inplace=True))
        return hidden.add_(input_tensor)


EQUAL_FORMS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv2d: SpatialConv,
    nn.Conv3d: TemporalConv,
    AlphaBlender: Blend,
    GEGLU: GatedLayer,
    ResnetBlock2D: SpatialBlock,
    TemporalResnetBlock: TemporalBlock,
}
WITH_GRADIENTS = (nn.Conv3d, AlphaBlender, GEGLU)
"""Those whose other forms save time in a training."""
