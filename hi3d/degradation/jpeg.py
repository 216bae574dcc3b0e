"""What JPEG does to pixels, for a batch of images at once.

The loss of baseline JPEG lies in chroma subsampling and in rounding quantized DCT coefficients; the
entropy coding that follows is lossless, so it is left out (ITU-T T.81; JFIF for the colors).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# ITU-T T.81, Annex K, tables K.1 and K.2: luminance and chrominance.
LUMINANCE_TABLE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMINANCE_TABLE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99, 99, 99, 99, 99, 99, 99, 99),) * 4,
)
RGB_TO_YCBCR = (
    (0.299, 0.587, 0.114),
    (-0.168736, -0.331264, 0.5),
    (0.5, -0.418688, -0.081312),
)


def jpeg_compress(rgb: Tensor, quality: Tensor) -> Tensor:
    """Compress and decompress as baseline JPEG with 4:2:0 chroma does.

    Args:
        rgb: [N, 3, H, W] in [0, 1]; rounded to 8 bits first.
        quality: [N] in [1, 100], libjpeg's scale; rounded to whole numbers.

    Returns:
        [N, 3, H, W] in [0, 1], in steps of 1/255.
    """
    height, width = rgb.shape[-2:]
    pad = (0, -width % 16, 0, -height % 16)
    levels = F.pad((rgb.clamp(0, 1) * 255).round(), pad, mode="replicate")
    matrix = torch.tensor(RGB_TO_YCBCR).to(rgb)
    # Both chroma planes are stored around 0; luma is shifted there for its DCT.
    ycbcr = torch.einsum("ij,njhw->nihw", matrix, levels).round_()
    luma = _round_trip(ycbcr[:, :1] - 128, quality, LUMINANCE_TABLE).add_(128)
    chroma = F.avg_pool2d(ycbcr[:, 1:], 2).round_()
    chroma = _round_trip(chroma, quality, CHROMINANCE_TABLE)
    chroma = F.interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False)
    decoded = torch.cat([luma, chroma], dim=1)
    levels = torch.einsum("ij,njhw->nihw", torch.linalg.inv(matrix.cpu()).to(rgb), decoded)
    return levels[:, :, :height, :width].round_().clamp_(0, 255).div_(255)


def quantisation_tables(quality: Tensor, base: tuple[tuple[int, ...], ...]) -> Tensor:
    """libjpeg's scaling of a base table [8, 8] to qualities [N]; [N, 8, 8], whole numbers >= 1."""
    quality = quality.round().clamp(1, 100)
    scale = torch.where(quality < 50, (5000 / quality).floor(), 200 - 2 * quality)
    table = torch.tensor(base).to(quality)
    return ((table * scale[:, None, None] + 50) / 100).floor().clamp(1, 255)


def dct_matrix() -> Tensor:
    """Orthonormal DCT-II of length 8: row k holds the k-th cosine. [8, 8]"""
    n = torch.arange(8, dtype=torch.float64)
    rows = torch.cos(math.pi * (2 * n[None] + 1) * n[:, None] / 16) / 2
    rows[0] /= math.sqrt(2)
    return rows.float()


def _round_trip(planes: Tensor, quality: Tensor, base: tuple[tuple[int, ...], ...]) -> Tensor:
    """DCT of 8x8 blocks, quantize, and back. [N, C, h, w], sides multiples of 8."""
    num, channels, height, width = planes.shape
    # Both directions of the DCT at once: one product with a [64, 64] matrix is fast.
    dct = torch.kron(dct_matrix(), dct_matrix()).to(planes)
    grid = (num, channels, height // 8, width // 8, 8, 8)
    blocks = planes.reshape(num, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
    steps = quantisation_tables(quality.to(planes), base).view(num, 1, 64)
    coefficients = blocks.reshape(num, -1, 64) @ dct.T
    coefficients = coefficients.div_(steps).round_().mul_(steps)
    blocks = (coefficients @ dct).round_().clamp_(-128, 127).view(grid)
    return blocks.transpose(3, 4).reshape(num, channels, height, width)
