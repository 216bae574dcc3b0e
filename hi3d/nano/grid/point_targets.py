"""What the grid predictor learns from in 3D: points that an orbit's depth calls empty or solid.

A point is empty if any view sees past it: its depth map has a surface behind the point, or the
point lies outside its silhouette. All others are solid, for certain just behind a surface, and
probably deeper. That is the visual hull with depth (space carving), at random points in place of a
grid.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from hi3d.nano.grid.rendering import (
    CELL,
    CUBE_HALF,
    HALF_TAN,
    camera_axes,
    pixel_rays,
    project,
    rotated,
)

TOUCHING = 0.6  # cells before a surface that still count as solid: sheets thinner than a cell stay
BAND = 2.5  # cells before and behind a surface among which points are drawn
CERTAIN = 4.0  # cells behind the nearest surface; what lies deeper may be a place that no view sees
DEEP_WEIGHT = 0.1  # of such points
COLOR_FALLOFF = 1.5  # a cell from the surface the color weighs exp(-1.5)
SILHOUETTE_ALPHA = 0.3  # a point is outside a silhouette where less than this is covered


@dataclass(frozen=True)
class PointTargets:
    """N points of each of B objects, in the frame of the orbit's first view."""

    points: Tensor  # [B, N, 3]
    """Positions."""
    occupancy: Tensor  # [B, N]
    """1 in the object, else 0."""
    weight: Tensor  # [B, N]
    """In [0, 1], how sure that is."""
    rgb: Tensor  # [B, 3, N]
    """sRGB in [0, 1] of the surface nearby."""
    rgb_weight: Tensor  # [B, N]
    """In [0, 1]; 0 where the color is not known."""


@dataclass(frozen=True)
class DepthOrbit:
    """B orbits with depth whose views look at the origin, evenly around."""

    rgb: Tensor  # [B, T, 3, H, W]
    """Over white, in [0, 1]."""
    alpha: Tensor  # [B, T, 1, H, W]
    """In [0, 1]."""
    depth: Tensor  # [B, T, H, W]
    """Along the camera's axis; 0 where there is no surface."""
    elevation_deg: Tensor  # [B]
    """Of all views of the orbit."""

    @property
    def azimuth_deg(self) -> Tensor:
        """Of the views, relative to the first. [1, T]"""
        num_views = self.rgb.shape[1]
        return torch.arange(num_views).to(self.rgb)[None] * (360 / num_views)

    @property
    def surface(self) -> Tensor:
        """Pixels that show a surface. [B, T, H, W] bool"""
        return self.depth > 0


def point_targets(orbit: DepthOrbit, num_points: int, generator: torch.Generator) -> PointTargets:
    """Half of the points near surfaces that the orbit sees, half anywhere in the cube.

    Args:
        orbit: B orbits.
        num_points: N per orbit, even.
        generator: on the CPU, draws the points.
    """
    near, rgb, rgb_weight = near_points(orbit, num_points // 2, generator)
    shape = (len(near), num_points - near.shape[1], 3)
    anywhere = (torch.rand(shape, generator=generator).to(near) * 2 - 1) * CUBE_HALF
    points = torch.cat([near, anywhere], 1)
    occupancy, weight = occupancy_of(orbit, points)
    unknown = (0, anywhere.shape[1])
    return PointTargets(points, occupancy, weight, F.pad(rgb, unknown), F.pad(rgb_weight, unknown))


def near_points(
    orbit: DepthOrbit, num_points: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Points along the rays of random surface pixels, within `BAND` cells of the surface.

    Args:
        orbit: B orbits, each with a surface somewhere.
        num_points: N per orbit.
        generator: on the CPU.

    Returns:
        points [B, N, 3]; rgb [B, 3, N] of the pixels; rgb_weight [B, N], less away from the surface
        and 0 at the outline, where the background mixes in.
    """
    size = orbit.depth.shape[-1]
    counts = orbit.surface.flatten(1).cumsum(1)
    draws = torch.rand(len(counts), num_points, generator=generator).to(orbit.depth)
    ranks = torch.minimum((draws * counts[:, -1:]).long() + 1, counts[:, -1:])
    chosen = torch.searchsorted(counts, ranks)
    view, pixel = chosen // size**2, chosen % size**2
    y, x = ((pixel // size + 0.5) / size * 2 - 1), ((pixel % size + 0.5) / size * 2 - 1)
    local = torch.stack([x * HALF_TAN, y * HALF_TAN, torch.ones_like(x)], -1)
    offset = (torch.rand(chosen.shape, generator=generator).to(local) * 2 - 1) * BAND
    depth = orbit.depth.flatten(1).gather(1, chosen)
    z = depth + offset * CELL / local.norm(dim=-1)
    origins, axes = camera_axes(orbit.azimuth_deg, orbit.elevation_deg[:, None])
    rows = torch.arange(len(view), device=view.device)[:, None]
    directions = rotated(local[:, :, None], axes[rows, view])[:, :, 0]
    points = origins[rows, view] + z[..., None] * directions
    rgb = orbit.rgb.transpose(1, 2).flatten(2).gather(2, chosen[:, None].expand(-1, 3, -1))
    opaque = orbit.alpha.flatten(1).gather(1, chosen) > 0.9
    return points, rgb, torch.exp(-COLOR_FALLOFF * offset.abs()) * opaque


def occupancy_of(orbit: DepthOrbit, points: Tensor) -> tuple[Tensor, Tensor]:
    """Whether points are solid for all views, and how sure that is.

    Points lower than everything that the orbit sees are empty: objects stand on their ground.

    Args:
        orbit: B orbits.
        points: [B, N, 3].

    Returns:
        occupancy [B, N], 0 or 1; weight [B, N].
    """
    xy, z = project(points, orbit.azimuth_deg, orbit.elevation_deg[:, None])
    seen = nearest_pixels(orbit.depth[:, :, None], xy)[:, :, 0]
    surface = nearest_pixels(orbit.surface[:, :, None].float(), xy)[:, :, 0] > 0.5
    covered = nearest_pixels(orbit.alpha, xy)[:, :, 0] >= SILHOUETTE_ALPHA
    gap = (z - seen) / CELL
    solid = torch.where(surface, gap >= -TOUCHING, covered)
    behind = torch.where(surface, gap, math.inf).amin(1)
    above_ground = points[..., 2] >= lowest_surface(orbit)[:, None] - TOUCHING * CELL
    occupied = solid.all(1) & above_ground
    weight = torch.where(occupied & (behind > CERTAIN), DEEP_WEIGHT, 1.0)
    return occupied.float(), weight


def lowest_surface(orbit: DepthOrbit) -> Tensor:
    """The smallest z that the views see a surface at. [B]"""
    size = orbit.depth.shape[-1]
    local = pixel_rays(size, orbit.depth.device)
    origins, axes = camera_axes(orbit.azimuth_deg, orbit.elevation_deg[:, None])
    slope = rotated(local.flatten(0, 1), axes)[..., 2].unflatten(2, (size, size))
    z = origins[..., 2, None, None] + orbit.depth * slope
    return torch.where(orbit.surface, z, math.inf).flatten(1).amin(1)


def nearest_pixels(images: Tensor, xy: Tensor) -> Tensor:
    """Pixels at places, those of the border beyond it.

    Args:
        images: [B, T, C, H, W].
        xy: [B, T, N, 2], the edges at -1 and 1.

    Returns:
        [B, T, C, N].
    """
    values = F.grid_sample(
        images.flatten(0, 1),
        xy.flatten(0, 1)[:, None],
        mode="nearest",
        padding_mode="border",
        align_corners=False,
    )
    return values[:, :, 0].unflatten(0, images.shape[:2])
