"""What may stand in the place of stage 2, to see what stage 2 is worth (paper, appendix)."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from hi3d.pipelines.upscaling.real_esrgan import enlarged_views
from hi3d.views import Views

FACTOR = 2
"""Of stage 2."""


def unchanged(rgb: Tensor) -> Tensor:
    """The views as stage 1 gives them."""
    return rgb


def bicubic(rgb: Tensor) -> Tensor:
    """Views [V, 3, H, W] at twice their size. [V, 3, 2H, 2W]"""
    larger = F.interpolate(rgb, scale_factor=FACTOR, mode="bicubic", align_corners=False)
    return larger.clamp(0, 1)


def real_esrgan_halved(rgb: Tensor) -> Tensor:
    """Views [V, 3, H, W] by a network for four times their size, halved. [V, 3, 2H, 2W]"""
    size = rgb.shape[-2] * FACTOR, rgb.shape[-1] * FACTOR
    return F.interpolate(enlarged_views(rgb), size, mode="area").clamp(0, 1)


UPSCALERS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": unchanged,
    "bicubic": bicubic,
    "real-esrgan": real_esrgan_halved,
}


def upscaled(views: Views, name: str) -> Views:
    """Views by one of `UPSCALERS`, with alpha resized to match.

    Args:
        views: of stage 1.
        name: of the upscaler.
    """
    rgb = UPSCALERS[name](views.rgb)
    height, width = rgb.shape[-2:]
    alpha = F.interpolate(views.alpha, (height, width), mode="bicubic", align_corners=False)
    return Views(rgb, alpha.clamp(0, 1), views.cameras.resized(width, height))
