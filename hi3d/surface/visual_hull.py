"""The visual hull: the largest shape whose silhouettes agree with the views' alpha.

It bounds the object from outside and starts both the splats and the NeuS field.
"""

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from hi3d.errors import InputError
from hi3d.progress import console
from hi3d.views import Views

FOREGROUND_ALPHA = 0.5
HALF_EXTENT = 0.55
"""Grids span [-HALF_EXTENT, HALF_EXTENT] in each axis; the object's longest side is 1."""
MIN_INSIDE = 8
"""A field with fewer grid vertices inside holds no surface worth the name."""
PLAIN_RANGE = 0.02
"""A frame filled with a color that varies less than this shows nothing."""


def shows_object(views: Views) -> Tensor:
    """Which views show an object; empty ones and frames of one color do not.

    A single empty view would carve the whole hull away, and a black frame would fill it.

    Args:
        views: V views with alpha.

    Returns:
        [V] bool, at least one of them true, on the views' device. Those that do not are named on
        the console.

    Raises:
        InputError: a value is not finite, no view shows an object, or none shows background.
    """
    if not (torch.isfinite(views.rgb).all() and torch.isfinite(views.alpha).all()):
        raise InputError("the views hold values that are not finite: make them again")
    foreground = (views.alpha >= FOREGROUND_ALPHA).flatten(1)
    filled, rgb = foreground.all(1), views.rgb.flatten(1)
    plain = filled & (rgb.amax(1) - rgb.amin(1) < PLAIN_RANGE)
    shown = foreground.any(1) & ~plain
    if not shown.any():
        raise InputError("no view shows an object (alpha is 0 everywhere): check the matting")
    if filled[shown].all():
        raise InputError("no view shows background (alpha is 1 everywhere): cut the object out")
    if not shown.all():
        numbers = ", ".join(str(i) for i in (~shown).nonzero()[:, 0].tolist())
        console.print(f"views without an object are left out: {numbers}")
    return shown


def hull_sdf(views: Views, resolution: int, half_extent: float, tolerance: int = 0) -> Tensor:
    """An approximate signed distance to the visual hull, negative inside.

    Each view gives the signed distance to its silhouette in the image, scaled to the depth of the
    grid point; a hull is an intersection, so the largest of them counts. A view in which the point
    projects outside the image says nothing: the object may leave the frame.

    Args:
        views: V views with alpha.
        resolution: R grid points a side.
        half_extent: the grid spans [-half_extent, half_extent] in each axis, ends included.
        tolerance: how many views may show background at a point of the hull that all see, and
            proportionally fewer where fewer see it. More than 0 keeps parts on which inconsistent
            views disagree.

    Returns:
        [R, R, R] float32, indexed x, y, z, on the views' device; `2 * half_extent` where no view
        sees the point.
    """
    device, cameras = views.rgb.device, views.cameras.to(views.rgb.device)
    points = grid_points(resolution, half_extent, device)
    far = 2 * half_extent
    largest = torch.full((tolerance + 1, len(points)), -torch.inf, device=device)
    num_seeing = torch.zeros(len(points), dtype=torch.int64, device=device)
    for view in range(len(views)):
        pixel_distance = silhouette_distance(views.alpha[view, 0])
        pixels, depth, seen = cameras.project(points, view)
        x, y = pixels.floor().long().unbind(-1)
        index = torch.where(seen, y * cameras.width + x, 0)
        distance = pixel_distance.flatten()[index] * depth / cameras.Ks[view, 1, 1]
        distance = torch.where(seen, distance, -torch.inf)
        largest = torch.cat([largest, distance[None]]).topk(tolerance + 1, dim=0).values
        num_seeing += seen
    # Where few views look, in the corners, proportionally fewer are overruled.
    rank = (tolerance * num_seeing // len(views)).minimum((num_seeing - 1).clamp_min(0))
    sdf = largest.gather(0, rank[None])[0].clamp(-far, far)
    sdf = torch.where(num_seeing == 0, far, sdf)
    return sdf.reshape(resolution, resolution, resolution)


def shared_hull(
    views: Views, resolution: int, half_extent: float, tolerance: int = 0, margin: float = 0.0
) -> Tensor:
    """`hull_sdf` with the least tolerance that leaves something of the object.

    Views that contradict each other, or one with a wrong camera, may share nothing. Then more and
    more of them are overruled, but never the majority.

    Args:
        views: V views with alpha.
        resolution: R grid points a side.
        half_extent: the grid spans [-half_extent, half_extent] in each axis, ends included.
        tolerance: how many views may show background at a point of the hull, to begin with.
        margin: points whose distance is below it count as inside.

    Returns:
        [R, R, R] as `hull_sdf`, with at least `MIN_INSIDE` points inside.

    Raises:
        InputError: no view shows an object, or more than half of them contradict each other.
    """
    for allowed in range(tolerance, max(tolerance, len(views) // 2) + 1):
        sdf = hull_sdf(views, resolution, half_extent, allowed)
        if (sdf < margin).sum() >= MIN_INSIDE:
            return sdf
    if not (views.alpha >= FOREGROUND_ALPHA).any():
        raise InputError("no view shows an object (alpha is 0 everywhere): check the matting")
    raise InputError(
        f"the object is smaller than a voxel or outside the cube of half side {half_extent}: "
        "check the cameras and the framing"
    )


def silhouette_distance(alpha: Tensor) -> Tensor:
    """Signed distance in pixels of pixel centers to the silhouette's edge, negative inside.

    Args:
        alpha: [H, W] in [0, 1].

    Returns:
        [H, W] float32 on alpha's device.
    """
    inside = (alpha.detach() >= FOREGROUND_ALPHA).cpu().numpy()
    diagonal = float(np.hypot(*inside.shape))
    if inside.all() or not inside.any():  # no edge in the image
        return torch.full_like(alpha, -diagonal if inside.all() else diagonal)
    # Pixel centers lie half a pixel from the edge between an inside and an outside pixel.
    outer, inner = distance_transform_edt(~inside), distance_transform_edt(inside)
    distance = np.where(inside, 0.5 - inner, outer - 0.5).astype(np.float32)
    return torch.from_numpy(distance).to(alpha.device)


def grid_points(resolution: int, half_extent: float, device: torch.device | str) -> Tensor:
    """The points of a cubic grid around the origin, x slowest. [R^3, 3]"""
    axis = torch.linspace(-half_extent, half_extent, resolution, device=device)
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).reshape(-1, 3)
