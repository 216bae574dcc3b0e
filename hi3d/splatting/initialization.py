"""The first Gaussians, discs and round ones, colored by the views."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hi3d.splats import GaussianSplats
from hi3d.views import Views

SH_0 = 0.5 / math.sqrt(math.pi)  # the constant harmonic
DISC_THICKNESS = 0.1  # of its diameter


@dataclass(frozen=True)
class InitialPoints:
    """N points at which Gaussians start."""

    means: Tensor  # [N, 3]
    """In the world."""
    normals: Tensor | None = None  # [N, 3]
    """Those of unit length make discs across them, those of length 0 round Gaussians. None = all
    are round."""
    colors: Tensor | None = None  # [N, 3]
    """In [0, 1]. None = the mean of what the views show."""

    def __post_init__(self) -> None:
        shape = (len(self.means), 3)
        for name in ("means", "normals", "colors"):
            tensor = getattr(self, name)
            if tensor is not None and (tensor.shape != shape or len(tensor) == 0):
                raise ValueError(f"{name} must be [N, 3], N at least 1, got {list(tensor.shape)}")


def mean_colors(views: Views, points: Tensor) -> Tensor:
    """The mean color that the views show at each point, through whatever lies before it.

    Args:
        views: V views.
        points: [N, 3] in the world.

    Returns:
        [N, 3] in [0, 1]; gray where no view shows foreground.
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
    """Gaussians at points, as large as the distance to their neighbors.

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
