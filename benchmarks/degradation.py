"""The degradation against a frame-by-frame composition of kornia, torch, numpy and Pillow.

    python benchmarks/degradation.py [ORBIT_FOLDER] [--config configs/degradation/paper.yaml]
        [--videos 5] [--resolution 1024] [--threads 2]

Degrades the same video with several seeds. The baseline takes the same drawn parameters and does
each step with the usual library: `kornia.filters.filter2d`, `torch.nn.functional.interpolate`,
`numpy.random` and Pillow's JPEG, one frame after the other, as Real-ESRGAN's data loader would. It
skips frame 0 as ours does. Prints wall and CPU seconds per video, the ratio, and how far the means
and the deviations of both results lie apart, which differ in the random numbers of the noise.
"""

import argparse
import io
from functools import partial

import kornia
import numpy as np
import torch
import torch.nn.functional as F
from common import timed
from PIL import Image
from torch import Tensor

from hi3d.command_line import make_parser, parse_arguments, run
from hi3d.config import load_config
from hi3d.degradation import draws as drawn
from hi3d.degradation.masks import replace_regions
from hi3d.degradation.noise import GREY_WEIGHTS
from hi3d.degradation.pipeline import degrade
from hi3d.views import Views


def compose(rgb: Tensor, alpha: Tensor, config: drawn.DegradationConfig, seed: int) -> Tensor:
    """The baseline: one video, step by step with other libraries.

    Args:
        rgb: [V, 3, S, S] in [0, 1], over white.
        alpha: [V, 1, S, S] in [0, 1].
        config: as for `degrade`, with a clean first frame and a white background.
        seed: of the parameters, which are those of `degrade`, and of the noise, which is not.

    Returns:
        [V, 3, S, S] in [0, 1].
    """
    generator = torch.Generator().manual_seed(seed)
    draws = drawn.draw_video(config, len(rgb), rgb.shape[-1], generator)
    random = np.random.default_rng(seed)
    frames = [rgb[0]]
    for view in range(1, len(rgb)):
        frame = replace_regions(rgb, alpha, draws.regions, view)
        frame = compose_frame(frame, view, draws, config, random)
        frames.append(torch.where(alpha[view] > 0, frame, torch.ones_like(frame)))
    return torch.stack(frames)


def compose_frame(
    image: Tensor,
    view: int,
    draws: drawn.VideoDraws,
    config: drawn.DegradationConfig,
    random: np.random.Generator,
) -> Tensor:
    """Both passes for one frame [3, S, S] in [0, 1]."""
    side = image.shape[-1]
    small = config.bottleneck or 1.0
    for ranges, parameters, scale in (
        (config.first, draws.first, 1.0),
        (config.second, draws.second, small),
    ):
        if ranges is None or parameters is None:
            continue
        if parameters.blurs[view]:
            image = blur(image, parameters.kernels.kernel(view))
        factor = scale * float(parameters.resize_factors[view])
        image = resize(image, int(side * factor), int(parameters.resize_modes[view]))
        if parameters.adds_noise[view]:
            image = add_noise(image, ranges, parameters, view, random)
        is_in_place = parameters is draws.first or not draws.jpeg_last[view]
        if is_in_place and parameters.compresses[view]:
            image = compress(image, float(parameters.jpeg_qualities[view]))
    image = resize(image, int(side * small), int(draws.bottleneck_modes[view]))
    if draws.final_sinc.are_sinc[view]:
        image = blur(image, draws.final_sinc.kernel(view))
    if draws.second is not None and draws.jpeg_last[view] and draws.second.compresses[view]:
        image = compress(image, float(draws.second.jpeg_qualities[view]))
    image = (image.clamp(0, 1) * 255).round() / 255
    return resize(image, side, int(draws.final_modes[view])).clamp(0, 1)


def blur(image: Tensor, kernel: Tensor) -> Tensor:
    return kornia.filters.filter2d(image[None], kernel[None], border_type="replicate")[0]


def resize(image: Tensor, side: int, mode: int) -> Tensor:
    return F.interpolate(image[None], (side, side), mode=drawn.RESIZE_MODES[mode])[0]


def add_noise(
    image: Tensor,
    ranges: drawn.DegradationPass,
    draws: drawn.PassDraws,
    view: int,
    random: np.random.Generator,
) -> Tensor:
    pixels = image.numpy()
    is_grey = bool(draws.is_grey[view])
    if draws.is_gaussian[view]:
        shape = (1, *pixels.shape[1:]) if is_grey else pixels.shape
        noise = random.standard_normal(shape, dtype=np.float32)
        noise *= float(draws.gaussian_sigmas[view]) / 255
    else:
        counted = np.tensordot(GREY_WEIGHTS, pixels, 1)[None] if is_grey else pixels
        counted = (counted.clip(0, 1) * 255).round() / 255
        photons = ranges.poisson_photons or 2 ** np.ceil(np.log2(len(np.unique(counted))))
        noise = (random.poisson(counted * photons) / photons - counted).astype(np.float32)
        noise *= float(draws.poisson_scales[view])
    return torch.from_numpy((pixels + noise).clip(0, 1).astype(np.float32))


def compress(image: Tensor, quality: float) -> Tensor:
    pixels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=round(quality), subsampling="4:2:0")
    decoded = np.asarray(Image.open(buffer)).astype(np.float32) / 255
    return torch.from_numpy(decoded).permute(2, 0, 1).contiguous()


def load_video(arguments: argparse.Namespace) -> tuple[Tensor, Tensor]:
    """Sixteen frames at the resolution: of an orbit folder, or discs of smooth random colors."""
    side = arguments.resolution
    if arguments.orbit:
        views = Views.load(arguments.orbit)
        size = (side, side)
        rgb = F.interpolate(views.rgb, size, mode="bilinear", antialias=True)
        return rgb, F.interpolate(views.alpha, size, mode="bilinear", antialias=True)
    axis = torch.arange(side) - side / 2
    disc = (axis[:, None] ** 2 + axis[None] ** 2).sqrt() < 0.35 * side
    colours = torch.rand(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    rgb = F.interpolate(colours, (side, side), mode="bicubic").clamp(0, 1)
    alpha = disc.float().expand(16, 1, side, side)
    return torch.where(alpha > 0, rgb, torch.ones_like(rgb)), alpha


def main() -> None:
    parser = make_parser(
        __doc__.split("\n")[0], "benchmarks/degradation.py outputs/orbits/chair --threads 1"
    )
    parser.add_argument("orbit", nargs="?", metavar="ORBIT_FOLDER", help="default: synthetic")
    parser.add_argument("--videos", type=int, default=5, metavar="N", help="seeds 0 to N - 1")
    parser.add_argument("--resolution", type=int, default=1024, metavar="PX", help="image side")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="of torch")
    arguments = parse_arguments(parser)
    torch.set_num_threads(arguments.threads)
    config = load_config(drawn.DegradationConfig, arguments.config, arguments.overrides)
    rgb, alpha = load_video(arguments)
    degrade(rgb[None], alpha[None], config, torch.Generator().manual_seed(0))  # warm-up
    compose(rgb, alpha, config, 0)
    print(
        "| seed | ours wall s | CPU s | baseline wall s | CPU s | ratio wall | CPU | mean | std |"
    )
    print("|---" * 9 + "|")
    rows = []
    for seed in range(arguments.videos):
        generator = torch.Generator().manual_seed(seed)
        ours, *ours_s = timed(partial(degrade, rgb[None], alpha[None], config, generator))
        baseline, *baseline_s = timed(partial(compose, rgb, alpha, config, seed))
        ours = ours[0]
        inside = (alpha > 0).expand_as(rgb)
        differences = [
            255 * float((f(ours[inside]) - f(baseline[inside])).abs())
            for f in (torch.mean, torch.std)
        ]
        ratios = [b / o for b, o in zip(baseline_s, ours_s, strict=True)]
        rows.append([*ours_s, *baseline_s, *ratios, *differences])
        print(f"| {seed} |" + "".join(f" {value:.2f} |" for value in rows[-1]), flush=True)
    mean = np.mean(rows, axis=0)
    mean[4:6] = mean[2:4] / mean[0:2]
    print("| mean |" + "".join(f" {value:.2f} |" for value in mean))


if __name__ == "__main__":
    run(main)
