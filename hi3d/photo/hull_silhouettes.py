"""Silhouettes of what the other views leave of an object: their visual hull, seen from a view."""

import torch
import torch.nn.functional as F
from torch import Tensor

from hi3d.cameras import Cameras

GRID_RESOLUTION, IMAGE_RESOLUTION = 72, 64
HALF_EXTENT = 0.55
"""The grid spans it to both sides of the origin; the object's longest side is 1."""
MIN_SHARE = 0.5
"""Of the views must show an object for their hull to bound it from all sides."""


def hull_silhouettes(alpha: Tensor, cameras: Cameras, wanted: list[int]) -> dict[int, Tensor]:
    """Where the views that show an object agree that there is one, seen from others.

    Args:
        alpha: [V, 1, H, W] in [0, 1]; views without an object say nothing.
        cameras: of the V views.
        wanted: numbers of views.

    Returns:
        For each of the wanted views [1, H, W] in [0, 1]; none where too few views show an object or
        where they share nothing.
    """
    shown = (alpha > 0.5).flatten(1).any(1)
    if not wanted or shown.float().mean() < MIN_SHARE:
        return {}
    small = cameras.resized(IMAGE_RESOLUTION, IMAGE_RESOLUTION)
    masks = F.interpolate(alpha, (IMAGE_RESOLUTION, IMAGE_RESOLUTION), mode="area") > 0.5
    axis = torch.linspace(-HALF_EXTENT, HALF_EXTENT, GRID_RESOLUTION)
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).reshape(-1, 3)
    for view in shown.nonzero()[:, 0].tolist():
        pixels, seen = _pixels(small, view, points)
        points = points[~seen | masks[view].flatten()[pixels]]
    found = {}
    for view in wanted if len(points) else []:
        pixels, seen = _pixels(small, view, points)
        silhouette = torch.zeros(IMAGE_RESOLUTION**2)
        silhouette[pixels[seen]] = 1
        silhouette = silhouette.reshape(1, 1, IMAGE_RESOLUTION, IMAGE_RESOLUTION)
        found[view] = F.interpolate(silhouette, alpha.shape[-2:], mode="bilinear")[0]
    return found


def _pixels(cameras: Cameras, view: int, points: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers of the pixels in which a view has points, and whether it has them. [N], [N]"""
    pixels, _, seen = cameras.project(points, view)
    x, y = pixels.floor().long().unbind(-1)
    return torch.where(seen, y * cameras.width + x, 0), seen
