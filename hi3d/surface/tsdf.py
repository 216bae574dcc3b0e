"""Fusion of exact depth maps into a truncated signed distance field: what views could give at best.

After Curless and Levoy 1996, "A Volumetric Method for Building Complex Models from Range Images".
Distances are taken to the plane through the surface point behind a pixel, which is more exact than
along the ray; and a point that a view sees through is empty whatever the others say.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from hi3d.cameras import Cameras
from hi3d.progress import track
from hi3d.surface.grid import GridField
from hi3d.surface.visual_hull import FOREGROUND_ALPHA, HALF_EXTENT, grid_points, shared_hull
from hi3d.views import Views

MIN_COS = 0.01
"""Pixels that see the surface flatter than this say nothing about its place."""
TRUNCATION_VOXELS = 3.0
"""A depth says something about points up to this far behind it. Walls thinner than twice this are
thickened or lost."""
POINTS_AT_ONCE = 1 << 19
COLOR_MARGIN = 0.01  # colors are kept this far from 0 and 1, where the logit is infinite


def fuse_depth(
    views: Views,
    depth: Tensor,  # [V, H, W]
    resolution: int = 192,
) -> GridField:
    """Fuse depth maps into a field that `extract_mesh` takes.

    What no view looks into, behind surfaces and below the object, is filled up to the visual hull.

    Args:
        views: V views over white with alpha, which carves what they show as background.
        depth: [V, H, W] along the camera's z axis in world units; 0, infinity or NaN where there is
            none.
        resolution: grid vertices a side, 8 or more.

    Returns:
        The field, on the views' device. `sdf` is cut at the truncation.

    Raises:
        InputError: no view shows an object, or what they show has no room in common.
        ValueError: depth does not fit the views.
    """
    size = (len(views), views.cameras.height, views.cameras.width)
    if depth.shape != size:
        raise ValueError(f"depth must be {list(size)} like the views, got {tuple(depth.shape)}")
    device, extent = views.rgb.device, HALF_EXTENT
    cameras, depth = views.cameras.to(device), depth.to(device)
    voxel = 2 * extent / (resolution - 1)
    truncation = TRUNCATION_VOXELS * voxel
    hull = shared_hull(views, resolution, extent).flatten()
    candidates = (hull < truncation).nonzero()[:, 0]
    points = grid_points(resolution, extent, device)[candidates]
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
            )
    # Half a pixel of doubt: silhouettes are known no better.
    half_pixel = 0.5 * cameras.positions.norm(dim=-1).mean() / cameras.Ks[:, 1, 1].mean()
    sdf = hull.clamp(-truncation, truncation)
    carved = (hull[candidates] - half_pixel).clamp(-truncation, truncation)
    sdf[candidates] = torch.maximum(sums.sdf(truncation), carved)
    rgb = torch.full((len(hull), 3), 0.5, device=device)
    rgb[candidates] = sums.colors()
    shape = (resolution,) * 3
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
    """Step to the neighboring surface point on the side where depth changes less. [H, W, 3]"""
    forward = positions.roll(-1, axis) - positions
    jump = (depth.roll(-1, axis) - depth).abs()
    # A neighbor without depth, or on the other side of the image, is no neighbor.
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
        weight = surface.cos[flat] ** 2
        self.weight[index] += weight
        self.distance[index] += weight * distance
        self.rgb[index] += weight[:, None] * image.reshape(3, -1).T[flat]
        front = distance > 0
        self.front_weight[index[front]] += weight[front]
        self.front_distance[index[front]] += (weight * distance)[front]

    def sdf(self, truncation: float) -> Tensor:
        """The fused distance; inside where nothing is known. [N]"""
        mean = self.distance / self.weight.clamp_min(1e-12)
        mean = torch.where(self.weight > 0, mean, -truncation)
        # Of a point that is known to be empty only those who see it as such know the distance.
        front = self.front_distance / self.front_weight.clamp_min(1e-12)
        front = torch.where(self.front_weight > 0, front, truncation)
        free = self.free_views > 0
        return torch.where(free, torch.maximum(mean, front), mean).clamp(-truncation, truncation)

    def colors(self) -> Tensor:
        """The mean color, gray where nothing is known. [N, 3]"""
        mean = self.rgb / self.weight.clamp_min(1e-12)[:, None]
        return torch.where(self.weight[:, None] > 0, mean, 0.5)
