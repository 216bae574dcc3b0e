"""Where the first Gaussians lie: discs on the visual hull and a fog within it."""

import numpy as np
import torch
from torch import Tensor

from hi3d.splatting.initialization import InitialPoints
from hi3d.surface.grid import GridField
from hi3d.surface.marching_cubes import marching_cubes
from hi3d.surface.visual_hull import HALF_EXTENT, grid_points, shared_hull
from hi3d.views import Views

HULL_RESOLUTION = 64  # grid points a side: finer ones only cost time, the fit moves the points
SURFACE_SHARE = 0.7  # of the points, that are discs on the hull


def initial_points(
    views: Views,
    num_points: int,
    generator: torch.Generator,
    hull_resolution: int = HULL_RESOLUTION,
    surface_share: float = SURFACE_SHARE,
) -> InitialPoints:
    """Points of the views' visual hull to start Gaussians at.

    Args:
        views: V views with alpha.
        num_points: N.
        generator: of the views' device.
        hull_resolution: grid points of the hull a side.
        surface_share: of the points, that lie on the surface, from 0 to 1.

    Raises:
        InputError: no view shows an object, or more than half of them contradict each other.
    """
    hull = initial_hull(views, HALF_EXTENT, hull_resolution)
    return hull_points(hull, num_points, surface_share, HALF_EXTENT, generator)


def hull_points(
    hull: Tensor,
    num_points: int,
    surface_share: float,
    half_extent: float,
    generator: torch.Generator,
) -> InitialPoints:
    """Points on the surface of the visual hull, and spread evenly through it.

    Discs on the surface are a good start where the hull touches the object, and leave it to the
    views to thin out the rest; but from one ring of cameras the hull of a box bulges far beyond the
    box, and Gaussians move badly over such distances. There a fog of faint ones, of which the views
    decide which stay, is the better start.

    Args:
        hull: [R, R, R] signed distances, from `initial_hull`.
        num_points: N.
        surface_share: of the points, that lie on the surface.
        half_extent: the hull spans [-half_extent, half_extent]^3.
        generator: of the hull's device.

    Returns:
        N points, those on the surface first, with its normals; those of the fog have none.
    """
    num_surface = round(surface_share * num_points) if (hull < 0).any() else 0
    surface, normals = surface_points(hull, num_surface, half_extent, generator)
    fog = fog_points(hull, num_points - num_surface, half_extent, generator)
    means, no_normals = torch.cat([surface, fog]), torch.zeros_like(fog)
    return InitialPoints(means, torch.cat([normals, no_normals]))


def initial_hull(views: Views, half_extent: float, resolution: int) -> Tensor:
    """`shared_hull` with half a voxel around it, or parts thinner than a voxel would be lost.

    Raises:
        InputError: no view shows an object, or more than half of them contradict each other.
    """
    margin = half_extent / (resolution - 1)
    return shared_hull(views, resolution, half_extent, margin=margin)


def surface_points(
    hull: Tensor, num_points: int, half_extent: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Points evenly on the hull's surface, with its normals. [N, 3] each"""
    if num_points == 0:
        return hull.new_zeros(0, 3), hull.new_zeros(0, 3)
    mesh = marching_cubes(GridField(hull, hull.new_zeros(*hull.shape, 3), half_extent))
    corners = torch.from_numpy(np.array(mesh.triangles, dtype=np.float32)).to(hull)  # [F, 3, 3]
    normals = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    chosen = torch.multinomial(
        normals.norm(dim=-1), num_points, replacement=True, generator=generator
    )
    u, v = torch.rand(2, num_points, 1, generator=generator, device=hull.device).unbind()
    beyond = u + v > 1  # in the other half of the parallelogram
    u, v = torch.where(beyond, 1 - u, u), torch.where(beyond, 1 - v, v)
    first, second, third = corners[chosen].unbind(1)
    points = first + u * (second - first) + v * (third - first)
    return points, torch.nn.functional.normalize(normals[chosen], dim=-1)


def fog_points(
    hull: Tensor, num_points: int, half_extent: float, generator: torch.Generator
) -> Tensor:
    """Points spread evenly through the hull and half a voxel around it. [N, 3]"""
    resolution, device = len(hull), hull.device
    spacing = 2 * half_extent / (resolution - 1)
    points = grid_points(resolution, half_extent, device)[hull.flatten() < 0.5 * spacing]
    pick = torch.randint(len(points), (num_points,), generator=generator, device=device)
    if num_points < len(points):  # without repetition where there are enough
        pick = torch.randperm(len(points), generator=generator, device=device)[:num_points]
    jitter = torch.rand(len(pick), 3, generator=generator, device=device) - 0.5
    return points[pick] + jitter * spacing
