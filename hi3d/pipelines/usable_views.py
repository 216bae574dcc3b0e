"""Which views a reconstruction can trust: one broken view would carve the whole object away."""

import torch
from torch import Tensor

from hi3d.errors import InputError
from hi3d.surface.visual_hull import FOREGROUND_ALPHA, HALF_EXTENT, hull_sdf
from hi3d.views import Views

MIN_VIEWS = 2
MIN_VIEWS_TO_JUDGE = 6
"""With fewer, the others say too little about where the object can be."""
GRID_RESOLUTION, IMAGE_RESOLUTION = 40, 64
MAX_CARVED_SHARE = 0.2
"""A view that alone calls more than this share of the hull empty contradicts the others ..."""
MAX_CARVED_RATIO = 4.0
"""... if it is also this much worse than the views are in general."""


def usable_views(views: Views) -> tuple[Views, dict[str, str]]:
    """Leave out views without an object and views that contradict all others.

    Args:
        views: V views over white with alpha.

    Returns:
        The views to use, and for each of the others, by its number, what is wrong with it.

    Raises:
        InputError: a camera is not finite, no view shows an object, or fewer than two are left.
    """
    if not (
        torch.isfinite(views.cameras.viewmats).all() and torch.isfinite(views.cameras.Ks).all()
    ):
        raise InputError("a camera holds numbers that are not finite: correct cameras.json")
    faults: dict[str, str] = {}
    for view in range(len(views)):
        fault = view_fault(views.rgb[view], views.alpha[view])
        if fault:
            faults[str(view)] = fault
    if len(faults) == len(views):
        raise InputError(f"no view shows an object ({faults['0']}): check the matting")
    while True:
        kept = [view for view in range(len(views)) if str(view) not in faults]
        carved = carved_shares(views[kept])
        worst = int(carved.argmax())
        limit = max(MAX_CARVED_SHARE, MAX_CARVED_RATIO * carved.median().item())
        contradicts = len(kept) >= MIN_VIEWS_TO_JUDGE and carved[worst] > limit
        if not contradicts or 4 * (len(faults) + 1) > len(views):
            break
        faults[str(kept[worst])] = "contradicts the other views: a wrong camera or matte"
    if len(kept) < MIN_VIEWS:
        raise InputError(f"{len(kept)} usable view of {len(views)}: give at least {MIN_VIEWS}")
    return (views[kept] if faults else views), faults


def carved_shares(views: Views) -> Tensor:
    """Of the points that at most one view calls empty, the share that each view does. [V]"""
    views = views.shrunk(IMAGE_RESOLUTION)
    spacing = 2 * HALF_EXTENT / (GRID_RESOLUTION - 1)
    far = 2 * HALF_EXTENT  # where a view does not look
    background = torch.stack(
        [
            (sdf > spacing / 2) & (sdf < far)
            for sdf in (
                hull_sdf(views[view], GRID_RESOLUTION, HALF_EXTENT).flatten()
                for view in range(len(views))
            )
        ]
    )
    count = background.sum(0)
    alone = (background & (count == 1)).sum(1)
    return alone / (count <= 1).sum().clamp_min(1)


def view_fault(rgb: Tensor, alpha: Tensor) -> str | None:
    """What makes one view, [3, H, W] and [1, H, W], useless by itself."""
    if not (torch.isfinite(rgb).all() and torch.isfinite(alpha).all()):
        return "holds numbers that are not finite"
    largest = alpha.max().item()
    if 0.02 < largest < FOREGROUND_ALPHA:
        return f"alpha is at most {largest:.2f}, below {FOREGROUND_ALPHA}: scale it to reach 1"
    if largest < FOREGROUND_ALPHA:
        return "alpha is 0 everywhere"
    if (alpha >= FOREGROUND_ALPHA).all():
        return "alpha is 1 everywhere: no background is marked"
    return None
