"""Fusion of depth maps into a truncated signed distance field: the fast alternative to NeuS.

After Curless and Levoy 1996, "A Volumetric Method for Building Complex Models from Range Images".
Distances are taken to the plane through the surface point behind a pixel, which is more exact than
along the ray; and a point that enough views see through is empty whatever the others say.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from hi3d.cameras import Cameras
from hi3d.errors import InputError
from hi3d.progress import track
from hi3d.surface.grid import GridField
from hi3d.surface.visual_hull import FOREGROUND_ALPHA, grid_points, shared_hull
from hi3d.views import Views

MIN_COS = 0.01
"""Pixels that see the surface flatter than this say nothing about its place."""
POINTS_AT_ONCE = 1 << 19
COLOR_MARGIN = 0.01  # colours are kept this far from 0 and 1, where the logit is infinite


@dataclass
class TsdfConfig:
    """Settings of `fuse_depth`."""

    resolution: int = 192
    """Grid vertices a side."""
    half_extent: float = 0.55
    """The grid spans [-half_extent, half_extent]; the object's longest side is 1."""
    truncation_voxels: float = 3.0
    """A depth says something about points up to this far behind it. Walls thinner than twice this
    are thickened or lost."""
    min_free_views: int = 2
    """A point is empty if so many views see it in front of their depth by more than the truncation.
    1 suits exact depth."""
    hull_tolerance: int = 0
    """How many views may show background at a point of the object."""

    def __post_init__(self) -> None:
        if self.resolution < 8:
            raise InputError(f"resolution is {self.resolution}: give at least 8")
        if not self.half_extent > 0 or not self.truncation_voxels >= 1:
            raise InputError("half_extent must be above 0 and truncation_voxels at least 1")
        if self.min_free_views < 1 or self.hull_tolerance < 0:
            raise InputError("min_free_views must be at least 1 and hull_tolerance at least 0")


def fuse_depth(
    views: Views,
    depth: Tensor,  # [V, H, W]
    config: TsdfConfig | None = None,
    view_weights: Tensor | None = None,  # [V]
) -> GridField:
    """Fuse depth maps into a field that `extract_mesh` takes.

    What no view looks into, behind surfaces and below the object, is filled up to the visual hull.

    Args:
        views: V views over white with alpha, which carves what they show as background.
        depth: [V, H, W] along the camera's z axis in world units; 0, infinity or NaN where there is
            none.
        config: settings; None = the defaults.
        view_weights: [V] weight of each view's depth; None = all 1.

    Returns:
        The field, on the views' device. `sdf` is cut at the truncation.

    Raises:
        InputError: no view shows an object, or what they show has no room in common.
        ValueError: depth or weights do not fit the views.
    """
    config = config or TsdfConfig()
    size = (len(views), views.cameras.height, views.cameras.width)
    if depth.shape != size:
        raise ValueError(f"depth must be {list(size)} like the views, got {tuple(depth.shape)}")
    if view_weights is None:
        view_weights = torch.ones(len(views))
    if view_weights.shape != (len(views),):
        raise ValueError(f"view_weights must be [{len(views)}], got {tuple(view_weights.shape)}")
    device, extent = views.rgb.device, config.half_extent
    cameras, depth = views.cameras.to(device), depth.to(device)
    voxel = 2 * extent / (config.resolution - 1)
    truncation = config.truncation_voxels * voxel
    hull = shared_hull(views, config.resolution, extent, config.hull_tolerance).flatten()
    candidates = (hull < truncation).nonzero()[:, 0]
    points = grid_points(config.resolution, extent, device)[candidates]
    sums = _Sums(len(points), device)
    for view in track(range(len(views)), "fusion"):
        surface = _surface_maps(depth[view], views.alpha[view, 0], cameras[view])
        for chunk in torch.arange(len(points), device=device).split(POINTS_AT_ONCE):
            sums.add(
                chunk,
                points[chunk],
                surface,
                views.rgb[view],
                cameras[view],
                truncation,
                float(view_weights[view]),
            )
    # Half a pixel of doubt: silhouettes are known no better.
    half_pixel = 0.5 * cameras.positions.norm(dim=-1).mean() / cameras.Ks[:, 1, 1].mean()
    sdf = hull.clamp(-truncation, truncation)
    carved = (hull[candidates] - half_pixel).clamp(-truncation, truncation)
    sdf[candidates] = torch.maximum(sums.sdf(truncation, config.min_free_views), carved)
    rgb = torch.full((len(hull), 3), 0.5, device=device)
    rgb[candidates] = sums.colors()
    shape = (config.resolution,) * 3
    logits = rgb.clamp(COLOR_MARGIN, 1 - COLOR_MARGIN).logit()
    return GridField(sdf.reshape(shape), logits.reshape(*shape, 3), extent)


@dataclass(frozen=True)
class _SurfaceMaps:
    """What one view knows about the surface behind its pixels, flattened."""

    depth: Tensor  # [H * W], 0 where there is none
    positions: Tensor  # [H * W, 3]
    normals: Tensor  # [H * W, 3] turned to the camera
    cos: Tensor  # [H * W] of the angle between normal and ray


def _surface_maps(depth: Tensor, alpha: Tensor, camera: Cameras) -> _SurfaceMaps:
    """Positions and normals behind the pixels of a depth map [H, W] with opacity [H, W]."""
    valid = torch.isfinite(depth) & (depth > 0) & (alpha >= FOREGROUND_ALPHA)
    depth = torch.where(valid, depth, 0.0)
    origins, directions = camera.rays(0)
    distance = depth / (directions @ camera.viewmats[0, 2, :3])
    positions = origins + distance[..., None] * directions
    down, right = (_slope(positions, depth, axis) for axis in (0, 1))
    normals = normalize(torch.linalg.cross(down, right), dim=-1)
    cos = -(normals * directions).sum(-1)
    normals, cos = normals * cos.sign()[..., None], cos.abs()
    return _SurfaceMaps(
        depth.flatten(), positions.reshape(-1, 3), normals.reshape(-1, 3), (cos * valid).flatten()
    )


def _slope(positions: Tensor, depth: Tensor, axis: int) -> Tensor:
    """Step to the neighbouring surface point on the side where depth changes less. [H, W, 3]"""
    forward = positions.roll(-1, axis) - positions
    jump = (depth.roll(-1, axis) - depth).abs()
    # A neighbour without depth, or on the other side of the image, is no neighbour.
    jump = torch.where((depth.roll(-1, axis) > 0) & (depth > 0), jump, torch.inf)
    jump.select(axis, -1).fill_(torch.inf)
    backward, jump_back = forward.roll(1, axis), jump.roll(1, axis)
    step = torch.where((jump <= jump_back)[..., None], forward, backward)
    return torch.where(torch.minimum(jump, jump_back).isinf()[..., None], 0.0, step)


class _Sums:
    """What the views say about N points, added up."""

    def __init__(self, count: int, device: torch.device):
        self.weight = torch.zeros(count, device=device)
        self.distance = torch.zeros(count, device=device)
        self.front_weight = torch.zeros(count, device=device)
        self.front_distance = torch.zeros(count, device=device)
        self.free_views = torch.zeros(count, dtype=torch.int16, device=device)
        self.rgb = torch.zeros(count, 3, device=device)

    def add(
        self,
        index: Tensor,  # [M]
        points: Tensor,  # [M, 3]
        surface: _SurfaceMaps,
        image: Tensor,  # [3, H, W]
        camera: Cameras,
        truncation: float,
        view_weight: float,
    ) -> None:
        """Add one view's say on the points `index`."""
        pixels, z, seen = camera.project(points, 0)
        x, y = pixels.floor().long().unbind(-1)
        index, points, z = index[seen], points[seen], z[seen]
        flat = (y * camera.width + x)[seen]
        in_front = surface.depth[flat] - z
        known = surface.depth[flat] > 0
        self.free_views[index[known & (in_front > truncation)]] += 1

        near = known & (in_front.abs() <= truncation) & (surface.cos[flat] > MIN_COS)
        index, flat, points = index[near], flat[near], points[near]
        distance = ((points - surface.positions[flat]) * surface.normals[flat]).sum(-1)
        weight = view_weight * surface.cos[flat] ** 2
        self.weight[index] += weight
        self.distance[index] += weight * distance
        self.rgb[index] += weight[:, None] * image.reshape(3, -1).T[flat]
        front = distance > 0
        self.front_weight[index[front]] += weight[front]
        self.front_distance[index[front]] += (weight * distance)[front]

    def sdf(self, truncation: float, min_free_views: int) -> Tensor:
        """The fused distance; inside where nothing is known. [N]"""
        mean = self.distance / self.weight.clamp_min(1e-12)
        mean = torch.where(self.weight > 0, mean, -truncation)
        # Of a point that is known to be empty only those who see it as such know the distance.
        front = self.front_distance / self.front_weight.clamp_min(1e-12)
        front = torch.where(self.front_weight > 0, front, truncation)
        free = self.free_views >= min_free_views
        return torch.where(free, torch.maximum(mean, front), mean).clamp(-truncation, truncation)

    def colors(self) -> Tensor:
        """The mean colour, grey where nothing is known. [N, 3]"""
        mean = self.rgb / self.weight.clamp_min(1e-12)[:, None]
        return torch.where(self.weight[:, None] > 0, mean, 0.5)
