"""Folders of views as they are given: of any camera format, with straight alpha or on white."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from hi3d.orbits.camera_files import has_camera_file, read_camera_file
from hi3d.photo.view_alpha import views_alpha
from hi3d.progress import console
from hi3d.views import Views, read_views

WHITE_TOLERANCE = 0.04
MIN_WHITE_BORDER = 0.9
"""Share of the pixels at the images' borders that are white where white is the background."""
MAX_HIDDEN_COLOR = 0.75
"""Transparent pixels that are darker in the mean have no white behind them: straight alpha."""


def load_views(folder: str | Path, elevation_deg: float | None = None, key: bool = True) -> Views:
    """Read a folder of views with the cameras of any known format.

    Args:
        folder: images with `cameras.json`, `transforms.json`, a COLMAP model or `camera-16.pkl`.
        elevation_deg: of a standard orbit, where there are no cameras.
        key: cut images without alpha out of a white background.

    Returns:
        Views over white.

    Raises:
        InputError: a file is missing or broken, or the elevation is needed and not given.
    """
    folder = Path(folder)
    given = read_camera_file(folder) if not (folder / "cameras.json").exists() else None
    if given:
        views = read_views(given.paths, given.cameras, given.sizes)
        views = given.masked(views)
    else:
        views = Views.load(folder, elevation_deg)
    if is_straight(views):
        console.print(f"{folder}: transparent pixels are dark: composited over white")
        views = replace(views, rgb=views.rgb * views.alpha + 1 - views.alpha)
    if key and is_on_white(views):
        console.print(f"{folder}: images without alpha on white: white is taken as background")
        views = replace(views, alpha=views_alpha(views.rgb))
    return views


def load_views_to_score(folder: str | Path) -> tuple[Views, bool]:
    """Read a folder of views as it is, and whether it has cameras.

    Without any the views have those of a level orbit, which mean nothing.
    """
    folder = Path(folder)
    known = (folder / "cameras.json").exists() or has_camera_file(folder)
    return load_views(folder, None if known else 0.0, key=False), known


def is_straight(views: Views) -> bool:
    """Whether color is stored beside alpha rather than over white, as transparent pixels tell."""
    hidden = (views.alpha == 0).expand_as(views.rgb)
    return bool(hidden.any()) and views.rgb[hidden].mean().item() < MAX_HIDDEN_COLOR


def is_on_white(views: Views) -> bool:
    """Whether the images have no alpha and white borders."""
    return bool((views.alpha == 1).all()) and _white_border(views.rgb) > MIN_WHITE_BORDER


def _white_border(rgb: Tensor) -> float:
    white = rgb.amin(1) > 1 - WHITE_TOLERANCE
    edges = [white[:, 0], white[:, -1], white[:, :, 0], white[:, :, -1]]
    return torch.cat([edge.flatten() for edge in edges]).float().mean().item()
