"""Opacity of views over white, against keying white: intersection over union with the true one.

    python benchmarks/view_alpha.py OBJECTS [resolution=128 count=40 num_views=16]

Renders an orbit of each object and asks for its opacity: of the views as they are, with all colors
moved towards white, with haze, blur and noise as generated views have them, and of the same object
all white under a light. Twice: of each view for itself, and of the orbit with the photo's opacity.

Where an object is exactly as white as the background, nothing can tell. So the scores stand beside
those of an oracle that knows the truth wherever a pixel is not white or is enclosed by such.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from common import ELEVATION_DEG, iou
from scipy import ndimage
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, max_pool2d

from hi3d.assets.load import load_object
from hi3d.assets.parts import ObjectPart, RenderObject
from hi3d.cameras import orbit_cameras
from hi3d.command_line import make_parser, parse_arguments, run
from hi3d.config import load_config
from hi3d.errors import InputError
from hi3d.evaluation.tables import markdown_table
from hi3d.photo.matting import key_white_background
from hi3d.photo.view_alpha import view_alpha, views_alpha
from hi3d.progress import console, track
from hi3d.rendering.rasterizer import render_views
from hi3d.views import Views

KEY_TOLERANCE = 0.08
THIN_WIDTH = 6.0  # pixels of 128: twice the area by the length of the contour
MIN_HOLES = 0.01  # of the object's area
TOLD = 0.97  # of the oracle's IoU: views with less hold object that is exactly white


@dataclass
class ViewAlphaConfig:
    """Settings of the benchmark."""

    resolution: int = 128
    """Side of the views in pixels."""
    count: int = 40
    """Objects, evenly from the folder."""
    num_views: int = 16
    """Of an orbit; all but the first are scored."""


@dataclass(frozen=True)
class Scores:
    """Of one view."""

    alone: float
    """IoU of `view_alpha`."""
    in_orbit: float
    """IoU of `views_alpha` with the photo's opacity."""
    keyed: float
    """IoU of keying white."""
    oracle: float
    """IoU of the truth without what is exactly white."""
    edge: float
    """Mean error of opacity where the true one lies between 0.02 and 0.98."""


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


def white_part(part: ObjectPart) -> ObjectPart:
    """The part with all colors white; what is cut out by its texture stays cut out."""
    factor = np.append(np.ones(3, np.float32), part.base_color_factor[3:])
    if part.alpha_mode == "OPAQUE" or part.texture is None:
        return replace(part, base_color_factor=factor, uvs=None, texture=None, vertex_rgba=None)
    texture = part.texture.copy()
    texture[..., :3] = 255
    return replace(part, base_color_factor=factor, texture=texture, vertex_rgba=None)


def kinds_of(
    object: RenderObject, config: ViewAlphaConfig, generator: torch.Generator
) -> Iterator[tuple[str, Views]]:
    """The orbit in each of its kinds."""
    cameras = orbit_cameras(ELEVATION_DEG, config.resolution, config.num_views)
    views = render_views(object, cameras).views
    yield "as rendered", views
    if thin_width(views) < THIN_WIDTH * config.resolution / 128:
        yield "of these, thin", views
    if hole_share(views) > MIN_HOLES:
        yield "of these, with holes", views
    yield "quarter of the contrast", replace(views, rgb=1 - 0.25 * (1 - views.rgb))
    yield "nearly white", replace(views, rgb=1 - 0.08 * (1 - views.rgb))
    yield "hazy", replace(views, rgb=hazy(views, generator))
    white = replace(object, parts=tuple(white_part(part) for part in object.parts))
    lit = render_views(white, cameras, shading="key").views
    yield "all white, lit", lit
    yield "all white, lit, hazy", replace(lit, rgb=hazy(lit, generator))


def thin_width(views: Views) -> float:
    """Twice the area by the length of the contour, in pixels."""
    mask = (views.alpha > 0.5).float()
    contour = mask - (1 - max_pool2d(1 - mask, 3, 1, 1))
    return 2 * (mask.sum() / contour.sum().clamp_min(1)).item()


def hole_share(views: Views) -> float:
    """Area of the holes by that of the object."""
    masks = (views.alpha[:, 0] > 0.5).numpy()
    holes = sum(int((ndimage.binary_fill_holes(mask) & ~mask).sum()) for mask in masks)
    return holes / max(1, int(masks.sum()))


def scores_of(views: Views) -> list[Scores]:
    """All views but the first."""
    in_orbit = views_alpha(views.rgb, views.alpha[0], views.cameras)
    return [scores_of_view(views[view], in_orbit[view]) for view in range(1, len(views))]


def scores_of_view(view: Views, in_orbit: Tensor) -> Scores:
    """One view."""
    rgb, true = view.rgb[0], view.alpha[0]
    alone, keyed = view_alpha(rgb), key_white_background(rgb, KEY_TOLERANCE)
    told = torch.from_numpy(ndimage.binary_fill_holes((rgb.amin(0) < 1).numpy()))
    masks = (alone > 0.5, in_orbit > 0.5, keyed > 0.5, (true > 0.5) & told)
    edge = (true > 0.02) & (true < 0.98)
    error = (alone - true)[edge].abs().mean().nan_to_num().item()
    found, agreed, white, oracle = (iou(mask, true > 0.5) for mask in masks)
    return Scores(found, agreed, white, oracle, error)


def row(scores: list[Scores]) -> dict[str, float]:
    """One kind of views."""
    alone = torch.tensor([view.alone for view in scores])
    oracle = torch.tensor([view.oracle for view in scores])
    in_orbit = torch.tensor([view.in_orbit for view in scores])
    keyed = torch.tensor([view.keyed for view in scores])
    told = oracle >= TOLD
    return {
        "views": float(len(scores)),
        "keying": keyed.mean().item(),
        "IoU": alone.mean().item(),
        "in an orbit": in_orbit.mean().item(),
        "oracle": oracle.mean().item(),
        "keying, told": keyed[told].mean().item(),
        "IoU, told": alone[told].mean().item(),
        "lower quartile": alone.quantile(0.25).item(),
        "keying, empty": float((keyed == 0).sum()),
        "empty": float((alone == 0).sum()),
        "in an orbit, empty": float((in_orbit == 0).sum()),
        "edge error": torch.tensor([view.edge for view in scores]).mean().item(),
    }


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
    scores: dict[str, list[Scores]] = {}
    for path in track(chosen, "objects"):
        for kind, views in kinds_of(load_object(path), config, generator):
            scores.setdefault(kind, []).extend(scores_of(views))
    rows = {kind: row(views) for kind, views in scores.items()}
    console.print(markdown_table(rows, 3, "views"))
    for kind, values in rows.items():
        console.print(f"{kind}: {values['IoU'] / max(values['keying'], 1e-3):.2f}x keying white")


if __name__ == "__main__":
    run(main)
