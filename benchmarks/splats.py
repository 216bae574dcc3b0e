"""Gaussian splats on unseen views, with and without the options for views that do not agree.

    python benchmarks/splats.py OBJECT [OBJECT ...] --output DIR [resolution=256 key=value ...]

Renders 16 views of each object at elevation 20 and 8 between them, which no fit sees. Fits splats
to the views as they are, and to views perturbed as generated ones are: smooth warps, shifts of
colour, blur. Prints PSNR at the unseen views and the CPU seconds of each fit, and the gain of each
option over the plain fit.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from kornia.filters import gaussian_blur2d

from hi3d.assets.load import load_object
from hi3d.cameras import between_views, orbit_cameras
from hi3d.command_line import make_parser, parse_arguments, run
from hi3d.config import load_config
from hi3d.errors import InputError
from hi3d.evaluation.tables import mean_over_objects, write_results
from hi3d.evaluation.view_metrics import psnr
from hi3d.progress import console
from hi3d.rendering.rasterizer import render_views
from hi3d.splatting.fit import SplatConfig, fit_splats, render_between_views
from hi3d.surface.initial_points import SURFACE_SHARE, initial_points
from hi3d.views import Views

ELEVATION_DEG = 20.0


@dataclass
class SplatBenchmarkConfig:
    """Settings of the benchmark."""

    resolution: int = 256
    seed: int = 0
    options: list[str] = field(default_factory=lambda: ["plain"])
    """Which of `OPTIONS` are tried, or "all"."""
    perturbed: bool = False
    """Whether perturbed views are fitted too."""
    warp: float = 0.01
    """Largest displacement of a warp, as a share of the image's side."""
    color_shift: float = 0.08
    """Largest change of a colour channel's gain, and half of it of its offset."""
    splats: SplatConfig = field(default_factory=SplatConfig)


OPTIONS: dict[str, Callable[[SplatConfig], SplatConfig]] = {
    "plain": lambda config: config,
    "fog only": lambda config: config,
    "sh degree 1": lambda config: replace(config, sh_degree=1),
    "gsplat": lambda config: replace(config, density="gsplat"),
    "mcmc": lambda config: replace(config, density="mcmc"),
}
"""Those of gsplat need CUDA; "fog only" starts without discs on the hull."""
SURFACE_SHARES = {"fog only": 0.0}


def perturb(views: Views, warp: float, color_shift: float, generator: torch.Generator) -> Views:
    """Views that no longer agree, each changed for itself.

    Args:
        views: V views.
        warp: largest displacement as a share of the image's side.
        color_shift: largest change of a channel's gain; half of it of its offset.
        generator: on the CPU.
    """
    num, _, height, width = views.rgb.shape

    def uniform(*shape: int) -> torch.Tensor:
        return 2 * torch.rand(*shape, generator=generator) - 1

    # Displacements at 5 x 5 points, smoothly between; grid_sample's image has a side of 2.
    coarse = 2 * warp * uniform(num, 2, 5, 5)
    flow = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    identity = torch.eye(2, 3).repeat(num, 1, 1)
    grid = torch.nn.functional.affine_grid(identity, [num, 4, height, width], align_corners=False)
    rgba = torch.cat([views.rgb - 1, views.alpha], dim=1)  # 0 beyond the border is white, empty
    rgba = torch.nn.functional.grid_sample(
        rgba, grid + flow.permute(0, 2, 3, 1), align_corners=False
    )
    rgb, alpha = rgba[:, :3] + 1, rgba[:, 3:].clamp(0, 1)
    gain, offset = color_shift * uniform(num, 3, 1, 1), color_shift / 2 * uniform(num, 3, 1, 1)
    rgb = rgb + gain * (rgb - (1 - alpha)) + offset * alpha
    share = 0.5 * torch.rand(num, 1, 1, 1, generator=generator)  # of a blur of 1.5 px
    rgb = 1 + torch.lerp(rgb - 1, gaussian_blur2d(rgb - 1, (11, 11), (1.5, 1.5), "constant"), share)
    return Views(rgb.clamp(0, 1), alpha, views.cameras)


def main() -> None:
    parser = make_parser(__doc__.split("\n")[0], "benchmarks/splats.py cup.glb --output out")
    parser.add_argument("objects", nargs="+", metavar="OBJECT")
    parser.add_argument("--output", required=True, metavar="DIR")
    arguments = parse_arguments(parser)
    config = load_config(SplatBenchmarkConfig, arguments.config, arguments.overrides)
    names = list(OPTIONS) if config.options == ["all"] else config.options
    unknown = [name for name in names if name not in OPTIONS]
    if unknown:
        raise InputError(f"options={unknown[0]!r}: give some of {', '.join(OPTIONS)}, or all")
    results: dict[str, dict[str, float]] = {}
    for path in arguments.objects:
        scores = results[Path(path).stem] = {}
        cameras = orbit_cameras(ELEVATION_DEG, config.resolution)
        views = render_views(load_object(path), cameras).views
        unseen = render_views(load_object(path), between_views(cameras, 8)).views
        perturbation = torch.Generator().manual_seed(config.seed)
        inputs = {"oracle": views}
        if config.perturbed:
            inputs["perturbed"] = perturb(views, config.warp, config.color_shift, perturbation)
        for kind, given in inputs.items():
            for name in names:
                settings = OPTIONS[name](config.splats)
                start = time.process_time()
                generator = torch.Generator(given.rgb.device).manual_seed(config.seed)
                share = SURFACE_SHARES.get(name, SURFACE_SHARE)
                points = initial_points(given, settings.num_initial, generator, surface_share=share)
                splats = fit_splats(given, points, settings, generator)
                scores[f"{kind}, {name}: CPU s"] = time.process_time() - start
                shown = render_between_views(splats, cameras, 8)
                scores[f"{kind}, {name}: PSNR"] = psnr(shown.rgb, unseen.rgb).mean().item()
                line = f"{scores[f'{kind}, {name}: PSNR']:.2f} dB"
                console.print(f"{Path(path).stem}, {kind}, {name}: {line}")
        write_results(Path(arguments.output) / "scores.json", results)
    mean = mean_over_objects(results)
    for key, value in mean.items():
        plain = mean.get(f"{key.split(',')[0]}, plain: PSNR")
        gain = f" ({value - plain:+.2f})" if key.endswith("PSNR") and plain is not None else ""
        console.print(f"{key}: {value:.2f}{gain}")


if __name__ == "__main__":
    run(main)
