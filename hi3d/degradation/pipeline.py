"""High-order degradation of orbit videos: the refiner's input during training (Section 4.3).

The model is that of Real-ESRGAN (Wang et al. 2021): blur, resize, noise and JPEG, twice, and a sinc
filter for ringing. Before it, regions of the object are masked. What is drawn from which range, and
what the frames of a video share, is in `hi3d.degradation.draws`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from hi3d.degradation.draws import (
    RESIZE_MODES,
    DegradationConfig,
    DegradationPass,
    PassDraws,
    VideoDraws,
    draw_video,
)
from hi3d.degradation.jpeg import jpeg_compress
from hi3d.degradation.kernels import filter_image
from hi3d.degradation.masks import replace_regions
from hi3d.degradation.noise import add_gaussian_noise, add_poisson_noise


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
        generator: on the CPU; the only randomness, so the same seed gives the same pixels, and on
            every device the same parameters and the same random numbers of the noise.

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
    degraded = rgb.detach().clone()
    with torch.no_grad():
        for video, video_alpha, output in zip(rgb, alpha, degraded, strict=True):
            draws = draw_video(config, len(video), min(video.shape[-2:]), generator)
            if not draws.is_degraded:
                continue
            # One frame at a time: frames differ in kernels, and 12 MB at 1024² fit a cache.
            for view in range(1 if config.clean_first_frame else 0, len(video)):
                frame = replace_regions(video, video_alpha, draws.regions, view)
                output[view] = degrade_frame(frame, view, draws, config, generator)
                if config.white_background:
                    output[view].masked_fill_(video_alpha[view] == 0, 1.0)
    return degraded


def degrade_frame(
    frame: Tensor,  # [3, H, W]
    view: int,
    draws: VideoDraws,
    config: DegradationConfig,
    generator: torch.Generator,
) -> Tensor:
    """Both passes, the bottleneck and the way back to the full size, for one frame.

    Args:
        frame: [3, H, W] in [0, 1].
        view: index of the frame in the draws.
        draws: parameters of the video.
        config: what they were drawn from.
        generator: on the CPU, for the noise.

    Returns:
        [3, H, W] in [0, 1].
    """
    full = (frame.shape[-2], frame.shape[-1])
    small = config.bottleneck or 1.0
    image = _blur(frame, draws.first, view)
    image = _resize_in_pass(image, draws.first, view, full, 1.0)
    image = _add_noise(image, config.first, draws.first, view, generator)
    image = _compress(image, draws.first, view)
    second, ranges = draws.second, config.second
    if second is not None and ranges is not None:
        image = _blur(image, second, view)
        image = _resize_in_pass(image, second, view, full, small)
        image = _add_noise(image, ranges, second, view, generator)
        if not draws.jpeg_last[view]:
            image = _compress(image, second, view)
    if config.bottleneck is not None:
        image = resize(image, _scaled(full, small), RESIZE_MODES[draws.bottleneck_modes[view]])
    if draws.final_sinc.are_sinc[view]:
        image = filter_image(image, draws.final_sinc.kernel(view))
    if second is not None and draws.jpeg_last[view]:
        image = _compress(image, second, view)
    image = image.clamp(0, 1).mul_(255).round_().div_(255)  # stored in 8 bits
    return resize(image, full, RESIZE_MODES[draws.final_modes[view]]).clamp(0, 1)


def resize(image: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    """Resize without antialiasing, as Real-ESRGAN does: aliasing is part of the degradation.

    Args:
        image: [3, h, w].
        size: height and width.
        mode: `area` averages the pixels that an output pixel touches; `bilinear` or `bicubic`.

    Returns:
        [3, *size]; bicubic values may leave the range of the input.
    """
    if tuple(image.shape[-2:]) == size:
        return image
    align_corners = None if mode == "area" else False
    return F.interpolate(image[None], size=size, mode=mode, align_corners=align_corners)[0]


def _blur(image: Tensor, draws: PassDraws, view: int) -> Tensor:
    return filter_image(image, draws.kernels.kernel(view)) if draws.blurs[view] else image


def _resize_in_pass(
    image: Tensor, draws: PassDraws, view: int, full: tuple[int, int], small: float
) -> Tensor:
    size = _scaled(full, small * float(draws.resize_factors[view]))
    return resize(image, size, RESIZE_MODES[draws.resize_modes[view]])


def _add_noise(
    image: Tensor, ranges: DegradationPass, draws: PassDraws, view: int, generator: torch.Generator
) -> Tensor:
    if not draws.adds_noise[view]:
        return image
    is_grey = bool(draws.is_grey[view])
    if draws.is_gaussian[view]:
        sigma = float(draws.gaussian_sigmas[view]) / 255
        return add_gaussian_noise(image, sigma, is_grey, generator)
    scale = float(draws.poisson_scales[view])
    return add_poisson_noise(image, scale, is_grey, generator, ranges.poisson_photons)


def _compress(image: Tensor, draws: PassDraws, view: int) -> Tensor:
    if not draws.compresses[view]:
        return image
    quality = draws.jpeg_qualities[view : view + 1].to(image.device)
    return jpeg_compress(image[None], quality)[0]


def _scaled(size: tuple[int, int], factor: float) -> tuple[int, int]:
    """Height and width times `factor`, at least 1; rounded down as interpolation by factor does."""
    return max(1, int(size[0] * factor + 1e-4)), max(1, int(size[1] * factor + 1e-4))
