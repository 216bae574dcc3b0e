"""What the small model's transformers share: a block, and the elevation as their input."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class TokenBlock(nn.Module):
    """A pre-norm transformer block.

    Args:
        channels: C, a multiple of `num_heads`.
        num_heads: of the attention.
        expansion: of the hidden layer.
    """

    def __init__(self, channels: int, num_heads: int, expansion: int = 3) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.qkv, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.mlp = nn.Sequential(
            nn.Linear(channels, expansion * channels),
            nn.GELU(),
            nn.Linear(expansion * channels, channels),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, N, C] to the same shape."""
        qkv = self.qkv(self.norm1(tokens)).unflatten(-1, (3, self.num_heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        tokens = tokens + self.out(mixed)
        return tokens + self.mlp(self.norm2(tokens))


def elevation_inputs(elevation_deg: Tensor) -> Tensor:
    """Sine, cosine and radians of elevations. [B, 3]

    Args:
        elevation_deg: [B] in degrees.
    """
    angle = torch.deg2rad(elevation_deg)
    return torch.stack([angle.sin(), angle.cos(), angle], -1)
