"""Opacity of views over white, against keying white: intersection over union with the true one.

    python benchmarks/view_alpha.py OBJECTS [resolution=128 count=40]

Renders four views of each object and asks for their opacity: of the views as they are, with all
colors moved towards white, and with haze, blur and noise as generated views have them. The photo's
opacity is not given, so no view knows anything of the object.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from common import ELEVATION_DEG, iou
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from hi3d.assets.load import load_object
from hi3d.cameras import orbit_cameras
from hi3d.command_line import make_parser, parse_arguments, run
from hi3d.config import load_config
from hi3d.errors import InputError
from hi3d.evaluation.tables import markdown_table
from hi3d.photo.matting import key_white_background
from hi3d.photo.view_alpha import view_alpha
from hi3d.progress import console, track
from hi3d.rendering.rasterizer import render_views
from hi3d.views import Views

NUM_VIEWS = 4
KEY_TOLERANCE = 0.08


@dataclass
class ViewAlphaConfig:
    """Settings of the benchmark."""

    resolution: int = 128
    """Side of the views in pixels."""
    count: int = 40
    """Objects, evenly from the folder."""


def hazy(views: Views, generator: torch.Generator) -> Tensor:
    """Colors [V, 3, H, W] blurred, with a halo and noise, each view for itself."""
    size = views.rgb.shape[-2:]
    small = interpolate(views.rgb, (size[0] // 2, size[1] // 2), mode="area")
    rgb = interpolate(small, size, mode="bicubic")
    halo = 1 - rgb
    for _ in range(3):
        halo = avg_pool2d(halo, 9, 1, 4)
    strength = 0.6 * torch.rand(len(rgb), 1, 1, 1, generator=generator)
    noise = 0.01 * torch.randn(rgb.shape, generator=generator)
    return (rgb - strength * halo * (1 - views.alpha) + noise).clamp(0, 1)


def main() -> None:
    parser = make_parser(__doc__.split("\n")[0], "benchmarks/view_alpha.py objects count=20")
    parser.add_argument("objects", type=Path, metavar="OBJECTS", help="folder of GLB files")
    arguments = parse_arguments(parser)
    config = load_config(ViewAlphaConfig, arguments.config, arguments.overrides)
    paths = sorted(arguments.objects.rglob("*.glb"))
    if not paths:
        raise InputError(f"no GLB files in {arguments.objects}: give a folder of objects")
    chosen = paths[:: max(1, len(paths) // config.count)][: config.count]
    generator = torch.Generator().manual_seed(0)
    cameras = orbit_cameras(ELEVATION_DEG, config.resolution, NUM_VIEWS)
    scores: dict[str, list[tuple[float, float]]] = {}
    for path in track(chosen, "objects"):
        views = render_views(load_object(path), cameras).views
        kinds = {
            "as rendered": views.rgb,
            "quarter of the contrast": 1 - 0.25 * (1 - views.rgb),
            "nearly white": 1 - 0.08 * (1 - views.rgb),
            "hazy": hazy(views, generator),
        }
        for kind, pictures in kinds.items():
            for rgb, alpha in zip(pictures, views.alpha, strict=True):
                keyed = key_white_background(rgb, KEY_TOLERANCE)
                found = [iou(mask > 0.5, alpha > 0.5) for mask in (view_alpha(rgb), keyed)]
                scores.setdefault(kind, []).append((found[0], found[1]))
    rows = {}
    for kind, pairs in scores.items():
        ours, keyed_white = torch.tensor(pairs).unbind(1)
        rows[kind] = {
            "IoU": ours.mean().item(),
            "keying white": keyed_white.mean().item(),
            "lower quartile": ours.quantile(0.25).item(),
            "empty": float((ours == 0).sum()),
            "keying white, empty": float((keyed_white == 0).sum()),
        }
    console.print(markdown_table(rows, 3, "views"))
    for kind, row in rows.items():
        console.print(f"{kind}: {row['IoU'] / max(row['keying white'], 1e-3):.2f}x keying white")


if __name__ == "__main__":
    run(main)
