"""Silhouettes of what the other views leave of an object: their visual hull, seen from a view."""

import torch
import torch.nn.functional as F
from torch import Tensor

from hi3d.cameras import Cameras

MAX_RESOLUTION = 64
"""Of grid and silhouettes, which have the views' up to a side that shows what a hull can."""
HALF_EXTENT = 0.55
"""The grid spans it to both sides of the origin; the object's longest side is 1."""
MIN_SHARE = 0.5
"""Of the views must show an object for their hull to bound it from all sides."""
VIEWS_PER_DISSENT = 12
"""Of so many views one may see background where the others see the object."""


def hull_silhouettes(alpha: Tensor, cameras: Cameras, wanted: list[int]) -> dict[int, Tensor]:
    """Where the other views agree that there is an object, seen from some of them.

    Args:
        alpha: [V, 1, H, W] in [0, 1]; views without an object say nothing.
        cameras: of the V views.
        wanted: numbers of views.

    Returns:
        For each of the wanted views [1, H, W] in [0, 1], smooth over a coarse pixel to each side of
        the silhouette's edge at 0.5; none where too few views show an object or they share nothing.
    """
    shown = (alpha > 0.5).flatten(1).any(1)
    if not wanted or shown.float().mean() < MIN_SHARE:
        return {}
    side = min(MAX_RESOLUTION, max(alpha.shape[-2:]))
    small = cameras.resized(side, side)
    masks = F.interpolate(alpha, (side, side), mode="area") > 0.5
    axis = torch.linspace(-HALF_EXTENT, HALF_EXTENT, side)
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).reshape(-1, 3)
    dissent = torch.zeros(len(points), dtype=torch.int64)
    allowed = len(alpha) // VIEWS_PER_DISSENT
    for view in shown.nonzero()[:, 0].tolist():
        pixels, seen = _pixels(small, view, points)
        dissent += seen & ~masks[view].flatten()[pixels]
        kept = dissent <= allowed + 1  # a view that is itself wanted does not count
        points, dissent = points[kept], dissent[kept]
    found = {}
    for view in wanted:
        pixels, seen = _pixels(small, view, points)
        own = seen & ~masks[view].flatten()[pixels] & shown[view]
        silhouette = torch.zeros(side**2)
        silhouette[pixels[seen & (dissent - own.long() <= allowed)]] = 1
        if silhouette.any():
            image = silhouette.reshape(1, 1, side, side)
            found[view] = F.interpolate(image, alpha.shape[-2:], mode="bilinear")[0]
    return found


def _pixels(cameras: Cameras, view: int, points: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers of the pixels in which a view has points, and whether it has them. [N], [N]"""
    pixels, _, seen = cameras.project(points, view)
    x, y = pixels.floor().long().unbind(-1)
    return torch.where(seen, y * cameras.width + x, 0), seen
