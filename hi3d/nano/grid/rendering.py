"""Orbits of a field of density and color: rays, trilinear sampling and compositing over white.

Grids are [B, 4, G, G, G] over the cube [-CUBE_HALF, CUBE_HALF]^3, indexed z, y, x: a density logit
and three color logits. The frame is the reference's: z up, its camera at azimuth 0.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from hi3d.cameras import FOV_DEG, ORBIT_DISTANCE

HALF_TAN = math.tan(math.radians(FOV_DEG) / 2)  # of the field of view, in x as in y
CUBE_HALF = 0.56  # half the side of the cube of cells; the object's longest side is 1
GRID_SIDE = 64
CELL = 2 * CUBE_HALF / GRID_SIDE
SHARPNESS = 2.0  # slope from occupancy logit to density: steeper than -log(1 - p), less haze
DENSITY_SHIFT = -1.0  # at logit 0 a cell is a third opaque
NEAR_PLANE, FAR_PLANE = 0.9, 2.1  # depths of the first and last sample of a ray

Field = Callable[[Tensor], Tensor]
"""Points [B, N, 3] to a density logit and color logits [B, 4, N]."""


@dataclass(frozen=True)
class RaySampling:
    """Which pixels of a view are rendered, and where samples lie along their rays."""

    num_samples: int = 56
    """Along a ray."""
    jitter: float = 0.5
    """In [0, 1), where in its interval a sample lies."""
    pixel_stride: int = 1
    """Each n-th pixel of each n-th row,"""
    pixel_offset: tuple[int, int] = (0, 0)
    """from this row and column on."""


def camera_axes(azimuth_deg: Tensor, elevation_deg: Tensor) -> tuple[Tensor, Tensor]:
    """Centers of orbit cameras that look at the origin, and their right, down, forward axes.

    Args:
        azimuth_deg: [...] in degrees.
        elevation_deg: [...] in degrees, broadcast against the azimuths.

    Returns:
        origins [..., 3] and axes [..., 3, 3], a row each for right, down and forward.
    """
    azimuth, elevation = torch.broadcast_tensors(
        torch.deg2rad(azimuth_deg), torch.deg2rad(elevation_deg)
    )
    sin_a, cos_a, sin_e, cos_e = azimuth.sin(), azimuth.cos(), elevation.sin(), elevation.cos()
    backward = torch.stack([cos_a * cos_e, sin_a * cos_e, sin_e], -1)
    right = torch.stack([-sin_a, cos_a, torch.zeros_like(sin_a)], -1)
    down = torch.linalg.cross(-backward, right)
    return ORBIT_DISTANCE * backward, torch.stack([right, down, -backward], -2)


def rotated(vectors: Tensor, axes: Tensor) -> Tensor:
    """Vectors from cameras' axes into the world; their transposed axes do the inverse.

    In float32 also where networks multiply in bfloat16, with whose three digits a ray misses its
    pixel.

    Args:
        vectors: [..., N, 3] along right, down and forward.
        axes: [..., 3, 3] of `camera_axes`.

    Returns:
        [..., N, 3].
    """
    with torch.autocast(vectors.device.type, enabled=False):
        return vectors @ axes


def project(points: Tensor, azimuth_deg: Tensor, elevation_deg: Tensor) -> tuple[Tensor, Tensor]:
    """Where orbit cameras see points.

    Args:
        points: [B, N, 3].
        azimuth_deg: [B] or [B, V].
        elevation_deg: [B] or [B, 1].

    Returns:
        xy [B, (V,) N, 2] with the image's edges at -1 and 1 (y down), depths [B, (V,) N] along the
        camera's axis.
    """
    origins, axes = camera_axes(azimuth_deg, elevation_deg)
    if axes.dim() == 4:
        points = points[:, None]
    into = axes.transpose(-1, -2)
    local = rotated(points, into) - rotated(origins[..., None, :], into)
    depths = local[..., 2]
    return local[..., :2] / (depths[..., None] * HALF_TAN), depths


def sample_grid(grid: Tensor, points: Tensor, half: float = CUBE_HALF) -> Tensor:
    """Trilinear values of a grid; beyond the cube those of its border.

    Args:
        grid: [B, C, G, G, G] (z, y, x).
        points: [B, N, 3].
        half: half the side of the cube.

    Returns:
        values [B, C, N].
    """
    place = (points / half)[:, :, None, None]
    return F.grid_sample(grid, place, align_corners=False, padding_mode="border")[..., 0, 0]


def cell_centers(side: int = GRID_SIDE) -> Tensor:
    """Positions of the cells. [side, side, side, 3] xyz, indexed z, y, x."""
    line = ((torch.arange(side) + 0.5) / side * 2 - 1) * CUBE_HALF
    z, y, x = torch.meshgrid(line, line, line, indexing="ij")
    return torch.stack([x, y, z], -1)


def pixel_rays(resolution: int, device: torch.device) -> Tensor:
    """Rays of a view's pixels in its camera's axes (right, down, forward), at depth 1. [S, S, 3]"""
    line = ((torch.arange(resolution, device=device) + 0.5) / resolution * 2 - 1) * HALF_TAN
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x, y, torch.ones_like(x)], -1)


def ray_points(resolution: int, depths: Tensor, elevation_deg: Tensor) -> Tensor:
    """Points along the rays of photos, whose cameras are at azimuth 0. [B, S, S, D, 3]

    Args:
        resolution: S pixels a side.
        depths: [D] along the camera's axis.
        elevation_deg: [B] in degrees.
    """
    origins, axes = camera_axes(torch.zeros_like(elevation_deg), elevation_deg)
    rays = rotated(pixel_rays(resolution, depths.device).flatten(0, 1), axes)
    rays = rays.unflatten(1, (resolution, resolution))
    return origins[:, None, None, None] + rays[..., None, :] * depths[:, None]


def ray_weights(optical: Tensor) -> Tensor:
    """Weights of samples in their ray's color (NeRF, equation 3). [..., N]

    Args:
        optical: [..., N] optical depths, near to far.
    """
    before = torch.cumsum(optical, -1) - optical
    return torch.exp(-before) - torch.exp(-before - optical)


def render_field(
    field: Field,
    azimuth_deg: Tensor,
    elevation_deg: Tensor,
    resolution: int,
    sampling: RaySampling | None = None,
) -> tuple[Tensor, Tensor]:
    """Volume-render views of the orbit (NeRF, equation 3, with a constant color behind).

    Args:
        field: values at points.
        azimuth_deg: [B, V] relative to the reference.
        elevation_deg: [B] of the orbit.
        resolution: image side S in pixels.
        sampling: all pixels where None.

    Returns:
        rgb [B, V, 3, S/stride, S/stride] over white and alpha [B, V, 1, S/stride, S/stride].
    """
    sampling = sampling or RaySampling()
    origins, axes = camera_axes(azimuth_deg, elevation_deg[:, None])
    device = origins.device
    (row, column), stride = sampling.pixel_offset, sampling.pixel_stride
    local = pixel_rays(resolution, device)[row::stride, column::stride]
    rays = rotated(local.flatten(0, 1), axes)  # depth 1: t is the depth
    directions = rays.unflatten(2, local.shape[:2])
    step = (FAR_PLANE - NEAR_PLANE) / sampling.num_samples
    steps = torch.arange(sampling.num_samples, device=device)
    t = NEAR_PLANE + (steps + sampling.jitter) * step
    points = origins[:, :, None, None, None] + directions[..., None, :] * t[:, None]
    inside = (points.abs() < CUBE_HALF).all(-1)
    values = field(points.flatten(1, 4)).unflatten(2, inside.shape[1:])
    lengths = directions.norm(dim=-1, keepdim=True) * step
    return composite(values, lengths * inside)


def composite(values: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Colors over white and alpha of rays.

    Args:
        values: [B, 4, V, H, W, N] density and color logits, near to far.
        lengths: [B, V, H, W, N] that a sample stands for; 0 where nothing can be.

    Returns:
        rgb [B, V, 3, H, W], alpha [B, V, 1, H, W].
    """
    optical = F.softplus(SHARPNESS * values[:, 0] + DENSITY_SHIFT) / CELL * lengths
    weights = ray_weights(optical)
    alpha = weights.sum(-1)[:, :, None]
    rgb = (weights[:, None] * torch.sigmoid(values[:, 1:])).sum(-1).transpose(1, 2)
    return rgb + 1 - alpha, alpha
