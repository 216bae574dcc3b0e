"""High-order degradation of orbit videos: the refiner's input during training (Section 4.3).

The model is that of Real-ESRGAN (Wang et al. 2021): blur, resize, noise and JPEG, twice, and a sinc
filter for ringing. Kernels, noise strength and JPEG quality are drawn per frame; resize scale and
mode, the kind of noise and the order of the last steps are drawn once per video.
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from hi3d.data.blur_kernels import KernelConfig, draw_blur_kernels, draw_sinc_kernels
from hi3d.data.jpeg import jpeg_compress

RESIZE_MODES = ("area", "bilinear", "bicubic")
Range = tuple[float, float]


@dataclass
class DegradationPass:
    """Ranges of one pass of blur, resize, noise and JPEG; the defaults are the first pass's."""

    blur_probability: float = 1.0
    """Chance per video that its frames are blurred."""
    kernels: KernelConfig = field(default_factory=KernelConfig)
    """Blur kernels, in pixels of an image of `reference_resolution`."""
    resize_up_probability: float = 0.2
    """Chance per video of enlarging; excludes shrinking, and the rest keeps the size."""
    resize_up: Range = (1.0, 1.5)
    """Factors of enlarging."""
    resize_down_probability: float = 0.7
    """Chance per video of shrinking."""
    resize_down: Range = (0.15, 1.0)
    """Factors of shrinking."""
    noise_probability: float = 1.0
    """Chance per video of noise."""
    gaussian_probability: float = 0.5
    """Chance per noisy video that the noise is Gaussian, else it is Poisson."""
    gaussian_sigma: Range = (1.0, 30.0)
    """Standard deviation of Gaussian noise in 8-bit levels, drawn per frame."""
    poisson_scale: Range = (0.05, 3.0)
    """Strength of Poisson noise; 1 is the shot noise of 255 photons at white. Drawn per frame."""
    grey_probability: float = 0.4
    """Chance per frame that the noise is the same in all three channels."""
    jpeg_probability: float = 1.0
    """Chance per video of JPEG compression."""
    jpeg_quality: Range = (30.0, 95.0)
    """JPEG quality in [1, 100], drawn per frame."""


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
    """How the refiner's training input is made from the true orbit; defaults as in Real-ESRGAN.

    Kernel sizes and widths are pixels of an image whose side is `reference_resolution` and shrink
    with the image, so that a 128² video is blurred as the same video at 1024² would be and then
    reduced. Resize factors and the bottleneck are relative already; noise and JPEG act on the
    pixels that are there. A small model whose images hold detail down to the pixel wants a smaller
    reference (128² with `reference_resolution=256`: sigma in [0.1, 1.5] px).
    """

    probability: float = 1.0
    """Chance per video of being degraded at all; 0 is the identity."""
    first: DegradationPass = field(default_factory=DegradationPass)
    """First pass."""
    second: DegradationPass | None = field(default_factory=second_pass)
    """Second pass, or None for first order."""
    bottleneck: float | None = 0.5
    """Side of the smallest image over the side of the input: 512 / 1024, as stage 1 over stage 2.
    The official code has 0.25. None: no bottleneck."""
    final_sinc_probability: float = 0.8
    """Chance per video of a sinc filter at the bottleneck."""
    reference_resolution: int = 1024
    """Image side that kernel sizes and widths refer to, in pixels."""
    mask_probability: float = 0.0
    """Chance per frame that random squares are wiped to white: the paper's random masking, which
    imitates wrong shapes and has no published numbers (the official code has none)."""
    mask_count: int = 3
    """Squares in a masked frame."""
    mask_side: Range = (0.03, 0.15)
    """Sides of the squares over the image side."""
    white_background: bool = True
    """Set pixels of alpha 0 back to white."""
    clean_first_frame: bool = True
    """Frame 0 stays as it is: at inference it is the photo."""


def degrade(
    rgb: Tensor,  # [B, V, 3, H, W] [0,1]
    alpha: Tensor,  # [B, V, 1, H, W] [0,1]
    config: DegradationConfig,
    generator: torch.Generator,
) -> Tensor:
    """Degrade orbit videos as coarse stage-1 frames are degraded.

    Args:
        rgb: [B, V, 3, H, W] in [0, 1], over white.
        alpha: [B, V, 1, H, W] in [0, 1].
        config: ranges and probabilities.
        generator: on the CPU; the only randomness, so the same seed gives the same pixels.

    Returns:
        [B, V, 3, H, W] in [0, 1], on the device of `rgb`; no gradients flow through it.

    Raises:
        ValueError: shapes do not fit, or the generator is not on the CPU.
    """
    if rgb.ndim != 5 or rgb.shape[2] != 3:
        raise ValueError(f"rgb must be [B, V, 3, H, W], got {tuple(rgb.shape)}")
    if alpha.shape != (*rgb.shape[:2], 1, *rgb.shape[3:]):
        raise ValueError(f"alpha must be [B, V, 1, H, W] like rgb, got {tuple(alpha.shape)}")
    if generator.device.type != "cpu":
        raise ValueError("the generator must be on the CPU, so that a seed means the same anywhere")
    with torch.no_grad():
        degraded = torch.stack([_degrade_video(video, config, generator) for video in rgb])
        if config.white_background:
            degraded = torch.where(alpha > 0, degraded, torch.ones_like(degraded))
        if config.clean_first_frame:
            degraded[:, 0] = rgb[:, 0]
    return degraded


def _degrade_video(frames: Tensor, config: DegradationConfig, generator: torch.Generator) -> Tensor:
    """Degrade the frames [V, 3, H, W] of one video; the size stays."""
    if not _happens(config.probability, generator):
        return frames.clone()
    side = min(frames.shape[-2:])
    pixel_scale = side / config.reference_resolution
    original_size = (frames.shape[-2], frames.shape[-1])
    small = config.bottleneck or 1.0
    video = frames

    first = config.first
    video = _blur(video, first, pixel_scale, generator)
    video = _resize(video, _scaled(original_size, _resize_factor(first, generator)), generator)
    video = _noise(video, first, generator)
    video = _jpeg(video, first, generator)

    second = config.second
    if second is not None:
        video = _blur(video, second, pixel_scale, generator)
        factor = small * _resize_factor(second, generator)
        video = _resize(video, _scaled(original_size, factor), generator)
        video = _noise(video, second, generator)
    jpeg_last = _happens(0.5, generator)
    if second is not None and not jpeg_last:
        video = _jpeg(video, second, generator)
    if config.bottleneck is not None:
        video = _resize(video, _scaled(original_size, small), generator)
    if _happens(config.final_sinc_probability, generator):
        kernels = draw_sinc_kernels(len(video), config.first.kernels, pixel_scale, generator)
        video = _filter_frames(video, kernels)
    if second is not None and jpeg_last:
        video = _jpeg(video, second, generator)
    video = _resize(video, original_size, generator)
    return _wipe_squares(video, config, generator)


def _filter_frames(frames: Tensor, kernels: Tensor) -> Tensor:
    """Filter frame v of [V, 3, h, w] with kernel v of [V, k, k], the edge repeated."""
    radius = kernels.shape[-1] // 2
    padded = F.pad(frames, (radius,) * 4, mode="replicate").flatten(0, 1)[None]
    weights = kernels.to(frames).repeat_interleave(3, dim=0)[:, None]
    return F.conv2d(padded, weights, groups=len(weights)).view_as(frames).clamp_(0, 1)


def _blur(
    frames: Tensor, ranges: DegradationPass, pixel_scale: float, generator: torch.Generator
) -> Tensor:
    if not _happens(ranges.blur_probability, generator):
        return frames
    kernels = draw_blur_kernels(len(frames), ranges.kernels, pixel_scale, generator)
    return _filter_frames(frames, kernels)


def _resize_factor(ranges: DegradationPass, generator: torch.Generator) -> float:
    draw = _uniform(1, (0.0, 1.0), generator).item()
    if draw < ranges.resize_up_probability:
        return _uniform(1, ranges.resize_up, generator).item()
    if draw < ranges.resize_up_probability + ranges.resize_down_probability:
        return _uniform(1, ranges.resize_down, generator).item()
    return 1.0


def _resize(frames: Tensor, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Resize [V, 3, h, w] to `size` (height, width) in a mode drawn for the whole video."""
    mode = RESIZE_MODES[int(torch.randint(len(RESIZE_MODES), (1,), generator=generator))]
    if size == tuple(frames.shape[-2:]):
        return frames
    # Without anti-aliasing, as in Real-ESRGAN: the aliasing is part of the degradation.
    align_corners = None if mode == "area" else False
    return F.interpolate(frames, size=size, mode=mode, align_corners=align_corners).clamp(0, 1)


def _noise(frames: Tensor, ranges: DegradationPass, generator: torch.Generator) -> Tensor:
    """Add Gaussian or Poisson noise of a strength drawn per frame."""
    if not _happens(ranges.noise_probability, generator):
        return frames
    num_views = len(frames)
    is_gaussian = _happens(ranges.gaussian_probability, generator)
    is_grey = _uniform(num_views, (0.0, 1.0), generator) < ranges.grey_probability
    is_grey = is_grey.to(frames.device)[:, None, None, None]
    noise = torch.randn(frames.shape, generator=generator).to(frames)
    if is_gaussian:
        strength = _uniform(num_views, ranges.gaussian_sigma, generator) / 255
        noise = torch.where(is_grey, noise[:, :1], noise)
    else:
        # The normal law of the same variance, x / 255, stands for Poisson's: 5 times faster.
        strength = _uniform(num_views, ranges.poisson_scale, generator)
        grey = frames.mean(dim=1, keepdim=True)
        noise = torch.where(
            is_grey, (grey / 255).sqrt() * noise[:, :1], (frames / 255).sqrt() * noise
        )
    return (frames + strength.to(frames)[:, None, None, None] * noise).clamp(0, 1)


def _jpeg(frames: Tensor, ranges: DegradationPass, generator: torch.Generator) -> Tensor:
    if not _happens(ranges.jpeg_probability, generator):
        return frames
    quality = _uniform(len(frames), ranges.jpeg_quality, generator)
    return jpeg_compress(frames, quality.to(frames.device))


def _wipe_squares(frames: Tensor, config: DegradationConfig, generator: torch.Generator) -> Tensor:
    """Wipe `mask_count` random squares to white in a random share of the frames."""
    if config.mask_probability <= 0:
        return frames
    frames = frames.clone()
    height, width = frames.shape[-2:]
    for frame in frames:
        if not _happens(config.mask_probability, generator):
            continue
        sides = _uniform(config.mask_count, config.mask_side, generator) * min(height, width)
        places = torch.rand(config.mask_count, 2, generator=generator)
        for side, (y, x) in zip(sides.tolist(), places.tolist(), strict=True):
            top, left = int(y * height - side / 2), int(x * width - side / 2)
            bottom, right = top + max(1, round(side)), left + max(1, round(side))
            frame[:, max(0, top) : max(0, bottom), max(0, left) : max(0, right)] = 1.0
    return frames


def _scaled(size: tuple[int, int], factor: float) -> tuple[int, int]:
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def _uniform(count: int, limits: Range, generator: torch.Generator) -> Tensor:
    """`count` draws from U[limits], on the CPU."""
    low, high = limits
    return low + (high - low) * torch.rand(count, generator=generator)


def _happens(probability: float, generator: torch.Generator) -> bool:
    return bool(torch.rand(1, generator=generator).item() < probability)
