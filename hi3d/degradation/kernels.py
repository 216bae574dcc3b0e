"""Random blur and sinc kernels of Real-ESRGAN (Wang et al. 2021, Sections 3.1 and 3.3)."""

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from hi3d.config import check_number
from hi3d.degradation.random_draws import (
    Draws,
    Range,
    check_probability,
    check_range,
    check_weights,
)
from hi3d.errors import InputError

KERNEL_KINDS = (
    "iso",
    "aniso",
    "generalised_iso",
    "generalised_aniso",
    "plateau_iso",
    "plateau_aniso",
)
MAX_SIDE = 101
MIN_CUTOFF = 1e-3
"""Below it a sinc kernel is flat and its sum is lost; 0 is no kernel."""


@dataclass
class KernelConfig:
    """From what blur kernels are drawn; sizes and widths in pixels of the reference image."""

    size: tuple[int, int] = (7, 21)
    """Smallest and largest kernel side, odd; the odd sides between are equally likely."""
    sigma: Range = (0.2, 3.0)
    """Width along each axis of the kernel."""
    kind_weights: dict[str, float] = field(
        default_factory=lambda: dict(
            zip(KERNEL_KINDS, (0.45, 0.25, 0.12, 0.03, 0.12, 0.03), strict=True)
        )
    )
    """Weight of each kind of kernel; a config file that names some keeps the others', so give 0 to
    those that are not wanted. Anisotropic ones are turned by U[-pi, pi]."""
    generalised_beta: Range = (0.5, 4.0)
    """Shape of generalized Gaussians, exp(-q^beta / 2); 1 is the Gaussian. Values below and above
    1 are equally likely where the range has both."""
    plateau_beta: Range = (1.0, 2.0)
    """Shape of plateau kernels, 1 / (1 + q^beta). Values below and above 1 are equally likely, so
    half of them have the lower end's shape if that is 1, as in the official code."""
    sinc_probability: float = 0.1
    """Chance of a sinc kernel in place of a blur kernel."""
    sinc_cutoff: Range = (1 / 5, 1.0)
    """Cutoff of sinc kernels over the Nyquist frequency (pi rad/px)."""
    small_sinc_cutoff: Range = (1 / 3, 1.0)
    """The same for kernels with sides below `small_sinc_size` px."""
    small_sinc_size: int = 13
    """Side, in pixels of the image at hand, that tells small kernels from large ones."""

    def __post_init__(self) -> None:
        check_sides("kernels.size", self.size)
        check_range("kernels.sigma", self.sigma, 0.0, 1000.0)
        check_range("kernels.generalised_beta", self.generalised_beta, 0.0, 100.0)
        check_range("kernels.plateau_beta", self.plateau_beta, 0.0, 100.0)
        check_range("kernels.sinc_cutoff", self.sinc_cutoff, MIN_CUTOFF, 1.0)
        check_range("kernels.small_sinc_cutoff", self.small_sinc_cutoff, MIN_CUTOFF, 1.0)
        check_probability("kernels.sinc_probability", self.sinc_probability)
        check_number("kernels.small_sinc_size", self.small_sinc_size, 0, 10_000)
        check_weights("kernels.kind_weights", self.kind_weights, KERNEL_KINDS)


@dataclass
class SincConfig:
    """From what the final sinc filter, which leaves ringing, is drawn."""

    probability: float = 0.8
    """Chance of the filter."""
    size: tuple[int, int] = (7, 21)
    """Smallest and largest kernel side, odd, in pixels of the reference image."""
    cutoff: Range = (1 / 3, 1.0)
    """Cutoff over the Nyquist frequency (pi rad/px)."""

    def __post_init__(self) -> None:
        check_probability("final_sinc.probability", self.probability)
        check_sides("final_sinc.size", self.size)
        check_range("final_sinc.cutoff", self.cutoff, MIN_CUTOFF, 1.0)


@dataclass(frozen=True)
class KernelDraws:
    """Parameters of one kernel per frame."""

    sizes: Tensor  # [V] int, odd px
    kinds: Tensor  # [V] int, index into KERNEL_KINDS
    sigmas: Tensor  # [V, 2] px
    angles: Tensor  # [V] rad
    betas: Tensor  # [V]
    are_sinc: Tensor  # [V] bool
    cutoffs: Tensor  # [V] rad/px

    def kernel(self, view: int) -> Tensor:
        """The kernel [k, k] of one frame; its sum is 1."""
        size = int(self.sizes[view])
        one = slice(view, view + 1)
        if self.are_sinc[view]:
            kernel = sinc_kernels(self.cutoffs[one], size)[0]
        else:
            is_plateau = self.kinds[one] >= KERNEL_KINDS.index("plateau_iso")
            kernel = gaussian_kernels(
                self.sigmas[one], self.angles[one], self.betas[one], is_plateau, size
            )[0]
        return kernel / kernel.sum()


def draw_kernels(draws: Draws, config: KernelConfig, pixel_scale: float) -> KernelDraws:
    """Draw a blur or sinc kernel for every frame.

    Args:
        draws: the video's draws.
        config: ranges.
        pixel_scale: image side over the reference side: multiplies sizes and widths.
    """
    sizes = _draw_sizes(draws, config.size, pixel_scale)
    weights = [config.kind_weights.get(kind, 0.0) for kind in KERNEL_KINDS]
    kinds = draws.choice("kernels", weights)
    sigmas = torch.stack([draws.uniform("kernels", config.sigma) for _ in range(2)], dim=1)
    sigmas = sigmas * pixel_scale
    is_iso = kinds % 2 == 0
    sigmas = torch.where(is_iso[:, None], sigmas[:, :1], sigmas)
    angles = draws.uniform("kernels", (-math.pi, math.pi))
    generalised = _one_sided(draws, config.generalised_beta)
    plateau = _one_sided(draws, config.plateau_beta)
    betas = torch.where(kinds < 2, torch.ones(()), torch.where(kinds < 4, generalised, plateau))
    are_sinc = draws.happens("kernels", config.sinc_probability)
    small = draws.uniform("kernels", config.small_sinc_cutoff)
    large = draws.uniform("kernels", config.sinc_cutoff)
    is_small = sizes < config.small_sinc_size
    cutoffs = math.pi * torch.where(is_small, small, large)
    return KernelDraws(sizes, kinds, sigmas, angles, betas, are_sinc, cutoffs)


def draw_final_sinc(draws: Draws, config: SincConfig, pixel_scale: float) -> KernelDraws:
    """Draw the final sinc kernel of every frame; `are_sinc` says which frames are filtered."""
    sizes = _draw_sizes(draws, config.size, pixel_scale, "final_sinc")
    cutoffs = math.pi * draws.uniform("final_sinc", config.cutoff)
    happens = draws.happens("final_sinc", config.probability)
    zeros = torch.zeros(len(sizes))
    sigmas = torch.ones(len(sizes), 2)
    return KernelDraws(sizes, zeros.long(), sigmas, zeros, zeros + 1, happens, cutoffs)


def gaussian_kernels(
    sigmas: Tensor,  # [N, 2] px
    angle: Tensor,  # [N] rad
    beta: Tensor,  # [N]
    is_plateau: Tensor,  # [N] bool
    size: int,
) -> Tensor:
    """Generalized Gaussian exp(-q^beta / 2) or plateau 1 / (1 + q^beta), not normalized.

    q is the squared Mahalanobis distance of the covariance with axes `sigmas` turned by `angle`
    (Real-ESRGAN, Section 3.1).

    Args:
        sigmas: [N, 2] widths along the two axes, in pixels.
        angle: [N] of the first axis, in radians, from x (right) to y (down).
        beta: [N] shape; 1 is the Gaussian.
        is_plateau: [N] bool.
        size: side of the kernels in pixels, odd.

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
    """Circular low-pass kernels w J1(w r) / (2 pi r), not normalized (Real-ESRGAN, Section 3.3).

    Args:
        cutoff: w [N] in rad/px, in (0, pi].
        size: side of the kernels in pixels, odd.

    Returns:
        [N, size, size]
    """
    axis = torch.arange(size) - (size - 1) / 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    r = (x**2 + y**2).sqrt()
    cutoff = cutoff[:, None, None]
    values = cutoff * torch.special.bessel_j1(cutoff * r) / (2 * math.pi * r.clamp_min(1e-6))
    return torch.where(r == 0, cutoff**2 / (4 * math.pi), values)  # the limit at r = 0


def filter_image(image: Tensor, kernel: Tensor) -> Tensor:
    """Correlate every channel with one kernel, the edge pixels repeated outward.

    By FFT: on a CPU six times as fast as a 21 x 21 depthwise convolution, and no slower for small
    kernels. The result is not clamped; a sinc filter overshoots.

    Args:
        image: [C, H, W].
        kernel: [k, k], k odd.

    Returns:
        [C, H, W]
    """
    height, width = image.shape[-2:]
    radius = kernel.shape[-1] // 2
    padded = F.pad(image[None], (radius,) * 4, mode="replicate")[0]
    size = [_fast_length(side) for side in padded.shape[-2:]]
    # The flipped kernel's corner at the origin: no pixel that is kept wraps around.
    transfer = torch.fft.rfft2(kernel.flip(0, 1).to(image), s=size)
    spectrum = torch.fft.rfft2(padded, s=size).mul_(transfer)
    reach = 2 * radius
    filtered = torch.fft.irfft2(spectrum, s=size)
    return filtered[:, reach : reach + height, reach : reach + width]


def check_sides(name: str, sides: tuple[int, int]) -> None:
    """Raise `InputError` unless both kernel sides are odd, positive and in order."""
    check_range(name, sides, 1, MAX_SIDE)
    if any(side % 2 == 0 for side in sides):
        raise InputError(f"{name} {list(sides)}: kernel sides are odd")


def _draw_sizes(
    draws: Draws, limits: tuple[int, int], pixel_scale: float, kind: str = "kernels"
) -> Tensor:
    """Odd sides [V] from the scaled range, at least 3."""
    low, high = (max(1, round((side * pixel_scale - 1) / 2)) for side in limits)
    return 2 * draws.integer(kind, low, high) + 1


def _one_sided(draws: Draws, limits: Range) -> Tensor:
    """Draw from [low, 1] or [1, high] with equal chance, so that heavy and light tails are even.

    A range on one side of 1 is drawn from uniformly: its middle takes the place of 1.
    """
    low, high = limits
    middle = 1.0 if low <= 1 <= high else (low + high) / 2
    below = draws.uniform("kernels", (low, middle))
    above = draws.uniform("kernels", (middle, high))
    return torch.where(draws.happens("kernels", 0.5), below, above)


def _fast_length(minimum: int) -> int:
    """The smallest even product of 2, 3 and 5 that is at least `minimum`."""
    length = minimum + minimum % 2
    while True:
        rest = length
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return length
        length += 2
