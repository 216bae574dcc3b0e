"""Pictures of a row: the photo, and views, the true ones and their difference side by side."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from hi3d.evaluation.truth import Truth
from hi3d.views import save_rgba

STRIP_VIEWS = 8
"""Views in a strip, spread over the orbit."""
STRIP_SIDE = 128
"""Of a view in a strip, in pixels."""


def draw_pictures(
    output: Path,
    folder: Path,
    shown: Tensor | None,  # [V, 3, H, W]
    truth: Truth,
    kind: str = "views",
) -> dict[str, str]:
    """Write the pictures of a row, and those of its object unless they are there.

    Args:
        output: folder of the table.
        folder: of the row's files, two levels below the object's, relative to `output`.
        shown: views in [0, 1], or renders of a mesh where there are no views; None = neither.
        truth: of the object.
        kind: of what is shown: `views` or `renders`.

    Returns:
        Paths relative to `output`: `input`, `truth`, and with something to show `kind` and `error`.
    """
    true = resized(spread(truth.views.rgb), STRIP_SIDE)
    of_object = folder.parents[1]
    images = {
        of_object / "input.png": resized(truth.photo.rgb, 2 * STRIP_SIDE)[0],
        of_object / "truth.png": strip(true),
    }
    if shown is not None and len(shown) == len(truth.views):
        views = resized(spread(shown), STRIP_SIDE)
        images |= {folder / f"{kind}.png": strip(views)}
        images |= {folder / "error.png": strip(1 - (views - true).abs())}
    for path, image in images.items():
        save_rgba(output / path, image, torch.ones_like(image[:1]))
    return {path.stem: path.as_posix() for path in images}


def spread(rgb: Tensor) -> Tensor:
    """At most `STRIP_VIEWS` of V views, evenly. [V, 3, H, W]"""
    count = min(STRIP_VIEWS, len(rgb))
    return rgb[torch.arange(count) * len(rgb) // count]


def resized(rgb: Tensor, side: int) -> Tensor:
    """Square views of another size, to be shown: averaged down, or bicubic up. [V, 3, S, S]"""
    if rgb.shape[-1] == side:
        return rgb
    if rgb.shape[-1] > side:
        return F.interpolate(rgb, (side, side), mode="area")
    return F.interpolate(rgb, (side, side), mode="bicubic", align_corners=False).clamp(0, 1)


def strip(rgb: Tensor) -> Tensor:
    """Views side by side. [V, 3, H, W] to [3, H, V * W]"""
    return torch.cat(list(rgb), dim=-1)
