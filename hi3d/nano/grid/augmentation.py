"""Photos of other objects and other framings made from those of a training batch."""

import torch
from torch import Tensor
from torch.nn import functional as F

MAX_ZOOM, MAX_SHIFT = 0.06, 0.04  # of the photo's framing; the shift in half image sides
GAMMA_STD = 0.3  # of ln gamma


def random_gamma(count: int, probability: float, generator: torch.Generator) -> Tensor:
    """An exponent for each color channel of `count` objects, 1 for those not chosen. [count, 3]

    Args:
        count: of objects.
        probability: share of objects that are recolored.
        generator: on the CPU.
    """
    gamma = torch.exp(torch.randn(count, 3, generator=generator) * GAMMA_STD)
    chosen = torch.rand(count, 1, generator=generator) < probability
    return torch.where(chosen, gamma, 1.0)


def with_gamma(rgb: Tensor, gamma: Tensor) -> Tensor:
    """Colors to the power of gamma; white stays white.

    Args:
        rgb: [B, 3, ...] in [0, 1].
        gamma: [B, 3].
    """
    extra = (1,) * (rgb.dim() - 2)
    return rgb.clamp_min(1e-3) ** gamma.to(rgb).view(len(rgb), 3, *extra)


def reframed(rgba: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Photos zoomed and shifted a little: real ones are not framed to the pixel.

    Args:
        rgba: [B, 4, S, S] over white, and alpha.
        probability: share of the photos.
        generator: on the CPU.
    """
    count = len(rgba)
    chosen = torch.rand(count, generator=generator) < probability
    draws = torch.rand(count, 3, generator=generator) * 2 - 1
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = 1 + draws[:, 0] * MAX_ZOOM
    theta[:, :, 2] = draws[:, 1:] * MAX_SHIFT
    theta[~chosen] = torch.eye(2, 3)
    background = rgba.new_tensor([1.0, 1.0, 1.0, 0.0]).view(1, 4, 1, 1)
    place = F.affine_grid(theta.to(rgba), list(rgba.shape), align_corners=False)
    moved = F.grid_sample(rgba - background, place, align_corners=False) + background
    return torch.where(chosen.to(rgba.device)[:, None, None, None], moved, rgba)
