"""How well the views agree on the colors of points: photo-consistency (Seitz and Dyer 1997)."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
import trimesh
from torch import Tensor

from hi3d.cameras import Cameras
from hi3d.surface.ray_casting import RayCaster
from hi3d.surface.visual_hull import FOREGROUND_ALPHA
from hi3d.views import Views

MIN_COSINE = 0.4
"""Between a surface's normal and the direction to a camera that counts."""
LIFT = 0.004
"""Of a point above the surface before it is asked which cameras see it: half a voxel."""

SILHOUETTE_SIDE = 128
"""Pixels of the images in which silhouettes are compared."""


@dataclass(frozen=True)
class Agreement:
    """What the views say of N points."""

    variance: np.ndarray
    """[N] of colors and alpha in [0, 1], averaged over the channels; 0 where one view or none
    sees the point."""
    alpha: np.ndarray
    """[N] mean of the views'; 0 where none sees the point."""
    num_views: np.ndarray
    """[N] how many see the point."""

    def mean_variances(self, groups: np.ndarray, count: int) -> np.ndarray:
        """Of each group, over its points that two views see; 0 where there is none.

        Args:
            groups: [N] number of each point's group.
            count: G groups.

        Returns:
            [G]
        """
        compared = self.num_views > 1
        total = np.bincount(groups[compared], self.variance[compared], count)
        mean: np.ndarray = total / np.bincount(groups[compared], minlength=count).clip(1)
        return mean


class ColorAgreement:
    """The views of an object, asked whether their colors agree on points of its surface."""

    def __init__(self, views: Views, mesh: trimesh.Trimesh):
        """Args:
        views: V views over white with alpha.
        mesh: what hides points from cameras.
        """
        views = views.to("cpu")
        self.cameras: Cameras = views.cameras
        self._colors = torch.cat([views.rgb, views.alpha], dim=1).float()
        vertices = torch.from_numpy(np.array(mesh.vertices, dtype=np.float32))
        self._caster = RayCaster(vertices, torch.from_numpy(np.array(mesh.faces)))

    def on_surface(self, points: np.ndarray, normals: np.ndarray) -> Agreement:
        """At points [N, 3] of the mesh with unit normals [N, 3], by the cameras that see them."""
        target, facing = torch.from_numpy(points).float(), torch.from_numpy(normals).float()
        weights = self._cosine_weights(target, facing)
        pairs = weights.nonzero()
        lifted = target + LIFT * facing
        away = self.cameras.positions[pairs[:, 0]] - lifted[pairs[:, 1]]
        hidden = self._caster.distances(lifted[pairs[:, 1]], away) < 1
        weights[pairs[hidden, 0], pairs[hidden, 1]] = 0
        return self._agreement(target, weights)

    def on_plane(self, points: np.ndarray, normal: np.ndarray) -> Agreement:
        """At points [N, 3] of a plane, which nothing hides from the cameras before it."""
        target = torch.from_numpy(points).float()
        return self._agreement(
            target, self._cosine_weights(target, torch.from_numpy(normal).float())
        )

    def in_hull(self, points: np.ndarray) -> np.ndarray:
        """Which points [N, 3] lie within the silhouettes of all views. [N] bool"""
        target = torch.from_numpy(points).float()
        inside = torch.ones(len(points), dtype=torch.bool)
        for view in range(len(self.cameras)):
            inside &= self._sampled(target, view)[3] >= FOREGROUND_ALPHA
        return inside.numpy()

    def silhouette_errors(self) -> Tensor:
        """Of each view's object, the share by which the mesh's silhouette departs from it. [V]"""
        cameras = self.cameras.resized(SILHOUETTE_SIDE, SILHOUETTE_SIDE)
        size = (SILHOUETTE_SIDE, SILHOUETTE_SIDE)
        objects = F.interpolate(self._colors[:, 3:], size, mode="area")[:, 0] >= FOREGROUND_ALPHA
        meshes = torch.stack(
            [self._caster.depth(cameras, view).isfinite() for view in range(len(cameras))]
        )
        wrong = (objects != meshes).sum((1, 2))
        return wrong / objects.sum((1, 2)).clamp_min(1)

    def _cosine_weights(self, points: Tensor, normals: Tensor) -> Tensor:
        away = F.normalize(self.cameras.positions[:, None] - points, dim=2)
        cosines = (away * normals).sum(2)
        return torch.where(cosines > MIN_COSINE, cosines**2, 0)

    def _agreement(self, points: Tensor, weights: Tensor) -> Agreement:
        num_views = (weights > 0).sum(0)
        seen = torch.nonzero((weights > 0).any(1))[:, 0].tolist()
        if not seen:
            zeros = np.zeros(len(points))
            return Agreement(zeros, zeros, num_views.numpy())
        shares = weights[seen][:, None] / weights.sum(0).clamp_min(1e-9)
        values = torch.stack([self._sampled(points, view) for view in seen])
        average = (shares * values).sum(0)
        variance = (shares * (values - average) ** 2).sum(0).mean(0)
        return Agreement(variance.numpy(), average[3].numpy(), num_views.numpy())

    def _sampled(self, points: Tensor, view: int) -> Tensor:
        """Color and alpha that a view has at points. [4, N]"""
        size = points.new_tensor([self.cameras.width, self.cameras.height])
        places = 2 * self.cameras.project(points, view)[0] / size - 1
        colors = self._colors[view : view + 1]
        return F.grid_sample(colors, places[None, :, None], align_corners=False)[0, :, :, 0]
