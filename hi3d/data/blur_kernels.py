"""Random blur and sinc kernels of Real-ESRGAN (Wang et al. 2021, Sections 3.1 and 3.3)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

KERNEL_KINDS = (
    "iso",
    "aniso",
    "generalised_iso",
    "generalised_aniso",
    "plateau_iso",
    "plateau_aniso",
)


@dataclass
class KernelConfig:
    """From what blur kernels are drawn; sizes and widths in pixels of the reference image."""

    size: tuple[int, int] = (7, 21)
    """Smallest and largest kernel side, odd."""
    sigma: tuple[float, float] = (0.2, 3.0)
    """Width along each axis of the kernel."""
    kind_weights: tuple[float, float, float, float, float, float] = (
        0.45,
        0.25,
        0.12,
        0.03,
        0.12,
        0.03,
    )
    """Weights of the kinds iso, aniso, generalised iso and aniso, plateau iso and aniso."""
    generalised_beta: tuple[float, float] = (0.5, 4.0)
    """Shape of generalised Gaussians, exp(-q^beta / 2); 1 is the Gaussian."""
    plateau_beta: tuple[float, float] = (1.0, 2.0)
    """Shape of plateau kernels, 1 / (1 + q^beta)."""
    sinc_probability: float = 0.1
    """Chance per frame of a sinc kernel in place of a blur kernel."""


def draw_blur_kernels(
    count: int, config: KernelConfig, pixel_scale: float, generator: torch.Generator
) -> Tensor:
    """Kernels that sum to 1, each of its own size, kind, widths and angle.

    Args:
        count: number of kernels.
        config: ranges.
        pixel_scale: image side over the reference side: multiplies sizes and widths.
        generator: on the CPU.

    Returns:
        [count, k, k] where k is the largest side; a kernel is 0 outside its own side.
    """
    sizes, limit = _draw_sizes(count, config, pixel_scale, generator)
    kinds = torch.multinomial(
        torch.tensor(config.kind_weights), count, replacement=True, generator=generator
    )
    sigmas = _uniform((count, 2), config.sigma, generator) * pixel_scale
    angle = _uniform((count,), (-math.pi, math.pi), generator)
    generalised_beta = _one_sided(config.generalised_beta, count, generator)
    plateau_beta = _one_sided(config.plateau_beta, count, generator)
    is_sinc = torch.rand(count, generator=generator) < config.sinc_probability
    cutoff = _draw_cutoffs(sizes, generator)

    is_iso = kinds % 2 == 0
    sigmas = torch.where(is_iso[:, None], sigmas[:, :1], sigmas)
    is_plateau = kinds >= 4
    beta = torch.where(kinds < 2, torch.ones(()), generalised_beta)
    beta = torch.where(is_plateau, plateau_beta, beta)
    kernels = gaussian_kernels(sigmas, angle, beta, is_plateau, limit)
    kernels = torch.where(is_sinc[:, None, None], sinc_kernels(cutoff, limit), kernels)
    return _crop_and_normalise(kernels, sizes)


def draw_sinc_kernels(
    count: int, config: KernelConfig, pixel_scale: float, generator: torch.Generator
) -> Tensor:
    """Sinc kernels that sum to 1, with cutoffs from U[pi/3, pi] [count, k, k]."""
    sizes, limit = _draw_sizes(count, config, pixel_scale, generator)
    cutoff = _uniform((count,), (math.pi / 3, math.pi), generator)
    return _crop_and_normalise(sinc_kernels(cutoff, limit), sizes)


def gaussian_kernels(
    sigmas: Tensor,  # [N, 2] px
    angle: Tensor,  # [N] rad
    beta: Tensor,  # [N]
    is_plateau: Tensor,  # [N] bool
    size: int,
) -> Tensor:
    """Generalised Gaussian exp(-q^beta / 2) or plateau 1 / (1 + q^beta), not normalised.

    q is the squared Mahalanobis distance of the covariance with axes `sigmas` turned by `angle`.

    Returns:
        [N, size, size]
    """
    axis = torch.arange(size) - (size - 1) / 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    along, across = cos * x + sin * y, cos * y - sin * x
    widths = sigmas.clamp_min(1e-3)[:, :, None, None]
    q = (along / widths[:, 0]) ** 2 + (across / widths[:, 1]) ** 2
    powered = q ** beta[:, None, None]
    plateau = 1 / (1 + powered)
    return torch.where(is_plateau[:, None, None], plateau, (-0.5 * powered).exp())


def sinc_kernels(cutoff: Tensor, size: int) -> Tensor:
    """Circular low-pass kernels w J1(w r) / (2 pi r), w = `cutoff` [N] in rad/px; not normalised.

    Returns:
        [N, size, size]
    """
    axis = torch.arange(size) - (size - 1) / 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    r = (x**2 + y**2).sqrt()
    cutoff = cutoff[:, None, None]
    values = cutoff * torch.special.bessel_j1(cutoff * r) / (2 * math.pi * r.clamp_min(1e-6))
    return torch.where(r == 0, cutoff**2 / (4 * math.pi), values)  # the limit at r = 0


def _draw_sizes(
    count: int, config: KernelConfig, pixel_scale: float, generator: torch.Generator
) -> tuple[Tensor, int]:
    """Odd sides [count] from the scaled range, at least 3, and the largest of them."""
    low, high = (max(1, round((side * pixel_scale - 1) / 2)) for side in config.size)
    radius = torch.randint(low, high + 1, (count,), generator=generator)
    sizes = 2 * radius + 1
    return sizes, int(sizes.max())


def _draw_cutoffs(sizes: Tensor, generator: torch.Generator) -> Tensor:
    """Cutoffs from U[pi/3, pi] for kernels smaller than 13, else U[pi/5, pi]."""
    low = torch.where(sizes < 13, math.pi / 3, math.pi / 5)
    return low + (math.pi - low) * torch.rand(len(sizes), generator=generator)


def _one_sided(limits: tuple[float, float], count: int, generator: torch.Generator) -> Tensor:
    """Draw from [low, 1] or [1, high] with equal chance, so that heavy and light tails are even."""
    low, high = limits
    below = _uniform((count,), (low, 1.0), generator)
    above = _uniform((count,), (1.0, high), generator)
    return torch.where(torch.rand(count, generator=generator) < 0.5, below, above)


def _crop_and_normalise(kernels: Tensor, sizes: Tensor) -> Tensor:
    """Zero what lies outside each kernel's own side, and divide by the sum."""
    limit = kernels.shape[-1]
    offset = (torch.arange(limit) - limit // 2).abs()
    reach = torch.maximum(offset[:, None], offset[None, :])
    kernels = kernels * (reach <= (sizes // 2)[:, None, None])
    return kernels / kernels.sum(dim=(1, 2), keepdim=True)


def _uniform(
    shape: tuple[int, ...], limits: tuple[float, float], generator: torch.Generator
) -> Tensor:
    low, high = limits
    return low + (high - low) * torch.rand(shape, generator=generator)
