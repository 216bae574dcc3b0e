"""Pits of a wall that the views do not ask for are filled up to the wall's plane.

Print that a fit explains by shape leaves pits of any depth. On the plane before such a pit the
views agree, for there the print lies; before a true niche they do not, as each sees another part of
it there.
"""

from dataclasses import replace

import numpy as np
import torch
import trimesh
from scipy import ndimage

from hi3d.surface.color_agreement import ColorAgreement
from hi3d.surface.grid import GridField
from hi3d.surface.printed_walls import PrintedWall
from hi3d.surface.visual_hull import FOREGROUND_ALPHA, grid_points

MIN_SOLID = 0.9
"""Of the opening of a pit that all views show as object, and that lies within their hull."""
EDGE = 0.015
"""Of a wall, where views mix it with what is beside it: points there are not asked."""
SLAB = 1.5
"""Voxels before the plane in which the field becomes the distance to it."""
MAX_VARIANCE = 2e-3
"""On the plane, where it is print."""
MAX_EXCESS = 0.02
"""Variance on the plane beyond that in the pit, summed over the voxels of its opening: openings of
a few pixels, in which views mix print, say less than large ones."""
MIN_CLEAR = 0.7
"""Of an opening that is to lie away from the wall's edge: else it is a side of something else."""
DEEPEST = 0.75
"""Of the object's extent along the wall's normal: what is empty further behind lies beyond it."""
AROUND = np.ones((3, 3, 3), dtype=bool)


def with_filled_pits(
    field: GridField, wall: PrintedWall, mesh: trimesh.Trimesh, agreement: ColorAgreement
) -> GridField:
    """Fill what is empty behind the plane of a wall, where the views see the wall before it.

    Args:
        field: sdf negative inside.
        wall: its plane and outline.
        mesh: the field's surface.
        agreement: of the views, with that mesh.
    """
    shape, sdf = field.sdf.shape, field.sdf.detach().cpu().numpy().ravel().copy()
    heights = _heights(field, wall, mesh)
    empty = (sdf > 0) & (heights < 0)
    labels, count = ndimage.label(empty.reshape(shape), AROUND)
    if count == 0:
        return field
    numbers = np.arange(len(sdf)).reshape(shape)
    printed = _are_print(field, labels, heights, wall, mesh, agreement)
    for pit, box in enumerate(ndimage.find_objects(labels), start=1):
        if printed[pit]:
            wider = tuple(slice(max(0, end.start - 2), end.stop + 2) for end in box)
            inside, cells = labels[wider] == pit, numbers[wider].ravel()
            around = ndimage.binary_dilation(inside, AROUND, iterations=2).ravel()
            filled = cells[inside.ravel() | (around & (heights[cells] >= 0))]
            sdf[filled] = np.minimum(sdf[filled], heights[filled])
    return replace(field, sdf=torch.from_numpy(sdf.reshape(shape)).to(field.sdf))


def _heights(field: GridField, wall: PrintedWall, mesh: trimesh.Trimesh) -> np.ndarray:
    """Before the wall's plane, of grid vertices within its outline and the object; else infinite.

    Returns:
        [R^3] float32
    """
    points = grid_points(field.resolution, field.half_extent, "cpu").numpy()
    low, high = mesh.bounds.astype(np.float32)
    near = np.flatnonzero(((points > low - field.voxel_size) & (points < high)).all(1))
    heights = wall.heights(points[near])
    deepest = DEEPEST * np.ptp(mesh.vertices @ wall.normal)
    near = near[(heights < SLAB * field.voxel_size) & (heights > -deepest)]
    near = near[wall.contained(points[near])]
    result = np.full(len(points), np.inf, dtype=np.float32)
    result[near] = wall.heights(points[near])
    return result


def _are_print(
    field: GridField,
    labels: np.ndarray,
    heights: np.ndarray,
    wall: PrintedWall,
    mesh: trimesh.Trimesh,
    agreement: ColorAgreement,
) -> np.ndarray:
    """Whether the views agree on the plane before each pit at least as well as on the pit.

    Args:
        field: of R vertices a side.
        labels: [R, R, R] number of the pit from 1 on, 0 outside.
        heights: [R^3] before the wall's plane.
        wall: with its plane.
        mesh: the field's surface.
        agreement: of the views.

    Returns:
        [pits + 1] bool
    """
    count = int(labels.max()) + 1
    opening = np.flatnonzero((labels.ravel() > 0) & (heights > -field.voxel_size))
    points = grid_points(field.resolution, field.half_extent, "cpu").numpy()[opening]
    points = points - np.outer(heights[opening], wall.normal)
    clear = wall.depths(points) > EDGE
    whole = np.bincount(labels.ravel()[opening], minlength=count)
    points, pits = points[clear], labels.ravel()[opening][clear]
    before = agreement.on_plane(points, wall.normal)
    solid = (before.alpha > FOREGROUND_ALPHA) & agreement.in_hull(points)
    on_plane = before.mean_variances(pits, count)

    vertices, normals = np.asarray(mesh.vertices), np.asarray(mesh.vertex_normals)
    pit_of_vertex = _nearby_labels(labels, vertices, field)
    chosen = np.flatnonzero(pit_of_vertex)
    within = agreement.on_surface(vertices[chosen], normals[chosen])
    in_pit = within.mean_variances(pit_of_vertex[chosen], count)
    number = np.bincount(pits, minlength=count)
    shown = np.bincount(pits, solid, count) >= MIN_SOLID * number.clip(1)
    enclosed = (number > 0) & (number >= MIN_CLEAR * whole)
    believed = (on_plane <= MAX_VARIANCE) & ((on_plane - in_pit) * number <= MAX_EXCESS)
    return np.asarray(believed & shown & enclosed)


def _nearby_labels(labels: np.ndarray, vertices: np.ndarray, field: GridField) -> np.ndarray:
    """The label of the pit within a voxel or so of each vertex. [V]"""
    cells = np.round((vertices + field.half_extent) / field.voxel_size).astype(int)
    x, y, z = cells.clip(0, field.resolution - 1).T
    return np.asarray(ndimage.maximum_filter(labels, 3)[x, y, z])
