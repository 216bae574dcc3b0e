"""The first Gaussians: discs on the visual hull and a fog within it, coloured by the views."""

import math

import numpy as np
import torch
from torch import Tensor

from hi3d.splats import GaussianSplats
from hi3d.surface.grid import GridField
from hi3d.surface.marching_cubes import marching_cubes
from hi3d.surface.visual_hull import grid_points, shared_hull
from hi3d.views import Views

SH_0 = 0.5 / math.sqrt(math.pi)  # the constant harmonic
DISC_THICKNESS = 0.1  # of its diameter


def hull_points(
    hull: Tensor,
    num_points: int,
    surface_share: float,
    half_extent: float,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
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
        points: [N, 3], those on the surface first
        normals: [N, 3], of unit length on the surface and 0 in the fog
    """
    num_surface = round(surface_share * num_points) if (hull < 0).any() else 0
    surface, normals = surface_points(hull, num_surface, half_extent, generator)
    fog = fog_points(hull, num_points - num_surface, half_extent, generator)
    return torch.cat([surface, fog]), torch.cat([normals, torch.zeros_like(fog)])


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


def mean_colors(views: Views, points: Tensor) -> Tensor:
    """The mean colour that the views show at each point, through whatever lies before it.

    Args:
        views: V views.
        points: [N, 3] in the world.

    Returns:
        [N, 3] in [0, 1]; grey where no view shows foreground.
    """
    cameras = views.cameras
    local = points @ cameras.viewmats[:, :3, :3].transpose(1, 2) + cameras.viewmats[:, None, :3, 3]
    projected = local @ cameras.Ks.transpose(1, 2)
    size = points.new_tensor([cameras.width, cameras.height])
    positions = projected[..., :2] / projected[..., 2:].clamp(min=1e-6) / size * 2 - 1  # [V, N, 2]
    rgba = torch.cat([views.rgb, views.alpha], dim=1)
    samples = torch.nn.functional.grid_sample(rgba, positions[:, None], align_corners=False)
    rgb, alpha = samples[:, :, 0].split([3, 1], dim=1)
    weights = torch.where(alpha > 0.9, alpha, torch.zeros_like(alpha))
    mean = (rgb * weights).sum(0) / weights.sum(0).clamp(min=1e-6)
    return torch.where(weights.sum(0) > 0, mean, torch.full_like(mean, 0.5)).T


def initial_splats(
    points: Tensor,
    colors: Tensor,
    opacity: float,
    sh_degree: int,
    normals: Tensor | None = None,
) -> GaussianSplats:
    """Gaussians at points, as large as the distance to their neighbours.

    Args:
        points: [N, 3]
        colors: [N, 3] in [0, 1].
        opacity: of each, in (0, 1).
        sh_degree: 0 to 3.
        normals: [N, 3]; those of unit length make discs across them, those of length 0 round
            Gaussians. None = all are round.
    """
    from scipy.spatial import cKDTree

    num = len(points)
    neighbours = min(4, num)
    distances = cKDTree(points.cpu().numpy()).query(points.cpu().numpy(), k=neighbours)[0]
    distances = torch.from_numpy(distances.reshape(num, -1)).to(points)
    mean_distance = (distances * distances).mean(-1).sqrt().clamp(min=1e-4)
    sh = points.new_zeros(num, (sh_degree + 1) ** 2, 3)
    sh[:, 0] = (colors - 0.5) / SH_0
    normals = torch.zeros_like(points) if normals is None else normals
    discs = normals.norm(dim=-1) > 0.5
    log_scales = mean_distance.log()[:, None].repeat(1, 3)
    log_scales[discs, 2] += math.log(DISC_THICKNESS)
    return GaussianSplats(
        means=points,
        quats=rotations_to(normals),
        log_scales=log_scales,
        logit_opacities=points.new_full((num,), math.log(opacity / (1 - opacity))),
        sh=sh,
    )


def rotations_to(normals: Tensor) -> Tensor:
    """Quaternions that turn the z axis to unit normals; for normals of length 0, no rotation.

    Args:
        normals: [N, 3]

    Returns:
        [N, 4] wxyz, of length 1.
    """
    x, y, z = normals.unbind(-1)
    # The half-way rotation, 1 + cos and the axis z x n; any axis across z turns it to -z.
    quats = torch.stack([1 + z, -y, x, torch.zeros_like(z)], dim=-1)
    backwards = quats.norm(dim=-1, keepdim=True) < 1e-3
    quats = torch.where(backwards, quats.new_tensor([0.0, 1.0, 0.0, 0.0]), quats)
    return torch.nn.functional.normalize(quats, dim=-1)
