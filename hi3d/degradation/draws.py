"""The parameters of the degradation: what they are drawn from, and the draws of one video."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from hi3d.config import check_number
from hi3d.degradation.kernels import (
    KernelConfig,
    KernelDraws,
    SincConfig,
    draw_final_sinc,
    draw_kernels,
)
from hi3d.degradation.masks import MaskConfig, RegionDraws, draw_regions
from hi3d.degradation.random_draws import (
    Draws,
    Range,
    SharedDraws,
    check_probability,
    check_range,
    check_weights,
)
from hi3d.errors import InputError

RESIZE_MODES = ("area", "bilinear", "bicubic")


@dataclass
class DegradationPass:
    """Ranges of one pass of blur, resize, noise and JPEG; the defaults are the first pass's."""

    blur_probability: float = 1.0
    """Chance of the blur."""
    kernels: KernelConfig = field(default_factory=KernelConfig)
    """Blur kernels, in pixels of an image of `reference_resolution`."""
    resize_up_probability: float = 0.2
    """Chance of enlarging; excludes shrinking, and the rest keeps the size."""
    resize_up: Range = (1.0, 1.5)
    """Factors of enlarging."""
    resize_down_probability: float = 0.7
    """Chance of shrinking."""
    resize_down: Range = (0.15, 1.0)
    """Factors of shrinking."""
    noise_probability: float = 1.0
    """Chance of noise."""
    gaussian_probability: float = 0.5
    """Chance that the noise is Gaussian, else it is Poisson."""
    gaussian_sigma: Range = (1.0, 30.0)
    """Standard deviation of Gaussian noise in 8-bit levels."""
    poisson_scale: Range = (0.05, 3.0)
    """Factor of Poisson noise."""
    poisson_photons: float | None = None
    """Mean count of Poisson noise at white; None takes the number of distinct 8-bit values of the
    frame, rounded up to a power of two (256 for most images)."""
    grey_probability: float = 0.4
    """Chance that the noise is the same in all three channels."""
    jpeg_probability: float = 1.0
    """Chance of JPEG compression."""
    jpeg_quality: Range = (30.0, 95.0)
    """JPEG quality in [1, 100]."""

    def __post_init__(self) -> None:
        for name in ("blur", "resize_up", "resize_down", "noise", "gaussian", "grey", "jpeg"):
            check_probability(f"{name}_probability", getattr(self, f"{name}_probability"))
        if self.resize_up_probability + self.resize_down_probability > 1 + 1e-6:
            raise InputError("resize_up_probability + resize_down_probability > 1: lower one")
        check_range("resize_up", self.resize_up, 1.0, 4.0)
        check_range("resize_down", self.resize_down, 0.01, 1.0)
        check_range("gaussian_sigma", self.gaussian_sigma, 0.0, 255.0)
        check_range("poisson_scale", self.poisson_scale, 0.0, 100.0)
        check_range("jpeg_quality", self.jpeg_quality, 1.0, 100.0)
        if self.poisson_photons is not None:
            check_range(
                "poisson_photons", (self.poisson_photons, self.poisson_photons), 1.0, 10_000.0
            )


def second_pass() -> DegradationPass:
    """The second, milder pass of Real-ESRGAN."""
    return DegradationPass(
        blur_probability=0.8,
        kernels=KernelConfig(sigma=(0.2, 1.5)),
        resize_up_probability=0.3,
        resize_up=(1.0, 1.2),
        resize_down_probability=0.4,
        resize_down=(0.3, 1.0),
        gaussian_sigma=(1.0, 25.0),
        poisson_scale=(0.05, 2.5),
    )


@dataclass
class DegradationConfig:
    """How the refiner's training input is made from the true orbit; the defaults are the paper's.

    Kernel sizes and widths are pixels of an image whose side is `reference_resolution` and shrink
    with the image, so that a 128² video is blurred as the same video at 1024² would be and then
    reduced. Resize factors, masks and the bottleneck are relative already; noise and JPEG act on
    the pixels that are there. A small model whose images hold detail down to the pixel wants a
    smaller reference (128² with `reference_resolution=256`: sigma in [0.1, 1.5] px).
    """

    probability: float = 1.0
    """Chance per video of being degraded at all; 0 is the identity."""
    masks: MaskConfig = field(default_factory=MaskConfig)
    """Replaced regions of the object."""
    first: DegradationPass = field(default_factory=DegradationPass)
    """First pass."""
    second: DegradationPass | None = field(default_factory=second_pass)
    """Second pass, or None for first order."""
    bottleneck: float | None = 0.5
    """Side of the smallest image over the side of the input: 512 / 1024, as stage 1 over stage 2;
    the official code has 256 / 1024. The second pass's resize factors are relative to it. None: no
    bottleneck."""
    final_sinc: SincConfig = field(default_factory=SincConfig)
    """Sinc filter at the bottleneck."""
    jpeg_last_probability: float = 0.5
    """Chance that the second compression follows the bottleneck and the final sinc filter instead
    of preceding them."""
    resize_mode_weights: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(RESIZE_MODES, 1.0)
    )
    """Weight of each interpolation, in all resizes; those that a config file does not name keep
    theirs. None has antialiasing."""
    reference_resolution: int = 1024
    """Image side that kernel sizes and widths refer to, in pixels."""
    white_background: bool = True
    """Set pixels of alpha 0 back to white."""
    clean_first_frame: bool = True
    """Frame 0 stays as it is: at inference it is the photo."""
    shared: SharedDraws = field(default_factory=SharedDraws)
    """What all frames of a video share."""

    def __post_init__(self) -> None:
        check_probability("probability", self.probability)
        check_probability("jpeg_last_probability", self.jpeg_last_probability)
        if self.bottleneck is not None and not 0.01 <= self.bottleneck <= 1:
            raise InputError(f"bottleneck {self.bottleneck}: give a factor in [0.01, 1] or null")
        check_number("reference_resolution", self.reference_resolution, 16, 65_536)
        check_weights("resize_mode_weights", self.resize_mode_weights, RESIZE_MODES)


@dataclass(frozen=True)
class PassDraws:
    """Parameters of one pass for every frame."""

    blurs: Tensor  # [V] bool
    kernels: KernelDraws
    resize_factors: Tensor  # [V]
    resize_modes: Tensor  # [V] int, index into RESIZE_MODES
    adds_noise: Tensor  # [V] bool
    is_gaussian: Tensor  # [V] bool
    gaussian_sigmas: Tensor  # [V] in 8-bit levels
    poisson_scales: Tensor  # [V]
    is_grey: Tensor  # [V] bool
    compresses: Tensor  # [V] bool
    jpeg_qualities: Tensor  # [V]


@dataclass(frozen=True)
class VideoDraws:
    """All parameters of one video; only the noise itself is drawn later."""

    is_degraded: bool
    regions: list[RegionDraws]
    first: PassDraws
    second: PassDraws | None
    jpeg_last: Tensor  # [V] bool
    bottleneck_modes: Tensor  # [V] int, index into RESIZE_MODES
    final_sinc: KernelDraws
    final_modes: Tensor  # [V] int, index into RESIZE_MODES


def draw_video(
    config: DegradationConfig, num_views: int, side: int, generator: torch.Generator
) -> VideoDraws:
    """Draw the parameters of one video.

    Args:
        config: ranges and probabilities.
        num_views: V.
        side: of the images, in pixels.
        generator: on the CPU.
    """
    draws = Draws(num_views, config.shared, generator)
    pixel_scale = side / config.reference_resolution
    mode_weights = [config.resize_mode_weights.get(mode, 0.0) for mode in RESIZE_MODES]
    is_degraded = bool(torch.rand(1, generator=generator) < config.probability)
    regions = draw_regions(draws, config.masks)
    passes = [
        _draw_pass(draws, ranges, pixel_scale, mode_weights) if ranges else None
        for ranges in (config.first, config.second)
    ]
    assert passes[0] is not None
    return VideoDraws(
        is_degraded=is_degraded,
        regions=regions,
        first=passes[0],
        second=passes[1],
        jpeg_last=draws.happens("order", config.jpeg_last_probability),
        bottleneck_modes=draws.choice("resize_mode", mode_weights),
        final_sinc=draw_final_sinc(draws, config.final_sinc, pixel_scale),
        final_modes=draws.choice("resize_mode", mode_weights),
    )


def _draw_pass(
    draws: Draws, ranges: DegradationPass, pixel_scale: float, mode_weights: list[float]
) -> PassDraws:
    direction = draws.uniform("resize_factor")
    up = draws.uniform("resize_factor", ranges.resize_up)
    down = draws.uniform("resize_factor", ranges.resize_down)
    is_up = direction < ranges.resize_up_probability
    is_down = direction < ranges.resize_up_probability + ranges.resize_down_probability
    return PassDraws(
        blurs=draws.happens("steps", ranges.blur_probability),
        kernels=draw_kernels(draws, ranges.kernels, pixel_scale),
        resize_factors=torch.where(is_up, up, torch.where(is_down, down, torch.ones(()))),
        resize_modes=draws.choice("resize_mode", mode_weights),
        adds_noise=draws.happens("steps", ranges.noise_probability),
        is_gaussian=draws.happens("noise_kind", ranges.gaussian_probability),
        gaussian_sigmas=draws.uniform("noise_strength", ranges.gaussian_sigma),
        poisson_scales=draws.uniform("noise_strength", ranges.poisson_scale),
        is_grey=draws.happens("grey_noise", ranges.grey_probability),
        compresses=draws.happens("steps", ranges.jpeg_probability),
        jpeg_qualities=draws.uniform("jpeg_quality", ranges.jpeg_quality),
    )
