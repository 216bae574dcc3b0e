"""Space that no camera looks into: images cannot say that it is empty, so it counts as solid.

A fit by rendering leaves pockets and tunnels behind its surface, in which nothing is ever rendered,
and a mesh of the field has their walls too. The visual hull counts such space as solid as well.
"""

from dataclasses import replace

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor
from torch.nn.functional import max_pool2d

from hi3d.cameras import Cameras
from hi3d.surface.grid import GridField
from hi3d.surface.marching_cubes import marching_cubes
from hi3d.surface.ray_casting import RayCaster


def fill_unseen_space(field: GridField, cameras: Cameras) -> GridField:
    """Make the grid vertices outside the surface that every camera finds hidden part of the inside.

    A vertex that no camera has in its frame stays as it is. The new distances are those to the
    nearest vertex that stays outside.

    Args:
        field: with a surface.
        cameras: of the views that it was fitted to.

    Returns:
        The field with other distances where something was filled; colors stay.

    Raises:
        InputError: the field has no surface.
    """
    mesh = marching_cubes(field)
    caster = RayCaster(torch.from_numpy(np.array(mesh.vertices)), torch.from_numpy(mesh.faces))
    inside, cameras = (field.sdf < 0).cpu(), cameras.to("cpu")
    corners = inside.nonzero()
    first, last = corners.amin(0).tolist(), corners.amax(0).tolist()
    box = tuple(slice(low, high + 1) for low, high in zip(first, last, strict=True))
    vertices = (~inside[box]).nonzero() + torch.tensor(first)
    vertices = vertices[hidden(vertices * field.voxel_size - field.half_extent, caster, cameras)]
    filled = torch.zeros_like(inside)
    filled[tuple(vertices.T)] = True
    depth = torch.from_numpy(distance_transform_edt((inside | filled).numpy())).float()
    distance = (0.5 - depth[filled]) * field.voxel_size
    sdf = field.sdf.masked_scatter(filled.to(field.sdf.device), distance.to(field.sdf.device))
    return replace(field, sdf=sdf)


def hidden(points: Tensor, caster: RayCaster, cameras: Cameras) -> Tensor:
    """Which points lie in the frame of some camera, and behind a surface in all such frames.

    Args:
        points: [N, 3], off the surface.
        caster: holds the surface.
        cameras: V cameras, on the CPU.

    Returns:
        [N] bool.
    """
    unseen = torch.ones(len(points), dtype=torch.bool)
    # Most points are in plain view: a depth map tells, and spares the rays.
    for view in range(len(cameras)):
        left = unseen.nonzero()[:, 0]
        pixels, depths, framed = cameras.project(points[left], view)
        left, depths = left[framed], depths[framed]
        column, row = pixels[framed].long().unbind(1)
        nearest = -max_pool2d(-caster.depth(cameras, view)[None], 3, stride=1, padding=1)[0]
        unseen[left] = depths >= nearest[row, column]
    framed_once = torch.zeros_like(unseen)
    for view in range(len(cameras)):
        left = unseen.nonzero()[:, 0]
        left = left[cameras.project(points[left], view)[2]]
        to_camera = cameras.positions[view] - points[left]
        unseen[left] = caster.distances(points[left], to_camera) <= 1
        framed_once[left] = True
    return unseen & framed_once
