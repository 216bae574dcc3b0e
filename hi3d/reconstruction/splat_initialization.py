"""The first Gaussians: a fog of points in the visual hull, coloured by the views."""

import math

import torch
from torch import Tensor

from hi3d.reconstruction.gaussian_splats import GaussianSplats
from hi3d.reconstruction.visual_hull import grid_points, shared_hull
from hi3d.views import Views

SH_0 = 0.5 / math.sqrt(math.pi)  # the constant harmonic


def hull_points(
    views: Views, num_points: int, half_extent: float, resolution: int, generator: torch.Generator
) -> Tensor:
    """Points spread evenly through the visual hull.

    Through it rather than over its surface: from one ring of cameras the hull of a box bulges far
    beyond the box, and Gaussians move badly over such distances. In a fog of faint ones the views
    themselves decide which stay.

    Args:
        views: V views with alpha.
        num_points: about how many points.
        half_extent: the hull is searched in [-half_extent, half_extent]^3.
        resolution: of the grid, a side.
        generator: of the views' device.

    Returns:
        [N, 3]

    Raises:
        InputError: no view shows an object, or more than half of them contradict each other.
    """
    device = views.rgb.device
    spacing = 2 * half_extent / (resolution - 1)
    points = grid_points(resolution, half_extent, device)
    # Half a voxel outside the hull is kept, or parts thinner than a voxel would be lost.
    margin = 0.5 * spacing
    sdf = shared_hull(views, resolution, half_extent, margin=margin).flatten()
    points_inside = points[sdf < margin]
    pick = torch.randint(len(points_inside), (num_points,), generator=generator, device=device)
    if num_points < len(points_inside):  # without repetition where there are enough
        pick = torch.randperm(len(points_inside), generator=generator, device=device)[:num_points]
    jitter = torch.rand(len(pick), 3, generator=generator, device=device) - 0.5
    return points_inside[pick] + jitter * spacing


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
    points: Tensor, colors: Tensor, opacity: float, sh_degree: int
) -> GaussianSplats:
    """Round Gaussians at points, as large as the distance to their neighbours.

    Args:
        points: [N, 3]
        colors: [N, 3] in [0, 1].
        opacity: of each, in (0, 1).
        sh_degree: 0 to 3.
    """
    from scipy.spatial import cKDTree

    num = len(points)
    neighbours = min(4, num)
    distances = cKDTree(points.cpu().numpy()).query(points.cpu().numpy(), k=neighbours)[0]
    distances = torch.from_numpy(distances.reshape(num, -1)).to(points)
    mean_distance = (distances * distances).mean(-1).sqrt().clamp(min=1e-4)
    sh = points.new_zeros(num, (sh_degree + 1) ** 2, 3)
    sh[:, 0] = (colors - 0.5) / SH_0
    quats = points.new_zeros(num, 4)
    quats[:, 0] = 1
    return GaussianSplats(
        means=points,
        quats=quats,
        log_scales=mean_distance.log()[:, None].repeat(1, 3),
        logit_opacities=points.new_full((num,), math.log(opacity / (1 - opacity))),
        sh=sh,
    )
