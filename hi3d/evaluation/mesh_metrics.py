"""Scores of a mesh against ground truth, in the coordinates both come in: nothing is aligned.

Lengths are in world units: the longest side of the object is 1.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from hi3d.cameras import Cameras
from hi3d.config import check_number, check_seed
from hi3d.errors import InputError
from hi3d.evaluation.enclosed_space import enclosed_cells
from hi3d.mesh import SurfaceMesh
from hi3d.surface.ray_casting import RayCaster


@dataclass
class MeshMetricsConfig:
    """How finely the meshes are sampled."""

    num_samples: int = 100_000
    """Points drawn on each surface, 1 to 1e8."""
    seed: int = 0
    """Of the drawing, 0 to 2^63 - 1."""
    f_score_threshold: float = 0.02
    """Distance at which a point counts as matched, world units, 1e-9 to 1e9."""
    resolution: int = 64
    """Cells along each side of the volume grid, 1 to 1024."""
    half_extent: float = 1.0
    """The grid spans [-half_extent, half_extent]^3, world units, 1e-9 to 1e9."""

    def __post_init__(self) -> None:
        check_seed(self.seed)
        for name, least, most in (
            ("num_samples", 1, 1e8), ("f_score_threshold", 1e-9, 1e9),
            ("resolution", 1, 1024), ("half_extent", 1e-9, 1e9),
        ):  # fmt: skip
            check_number(name, getattr(self, name), least, most)


@dataclass(frozen=True)
class MeshScores:
    """One object's scores."""

    chamfer_distance: float
    """In world units, unsquared and halved; 0 is best."""
    volume_iou: float
    """In [0, 1]; 1 is best."""
    f_score: float
    """In [0, 1]; 1 is best."""


def sample_surface(mesh: SurfaceMesh, num_samples: int, seed: int = 0) -> Tensor:
    """Draw points on a mesh, uniformly by area.

    Returns:
        [num_samples, 3] float32, on the CPU.

    Raises:
        InputError: the surface has no area.
    """
    a, b, c = mesh.vertices.detach().cpu().double()[mesh.faces.cpu()].unbind(1)
    areas = torch.linalg.cross(b - a, c - a).norm(dim=-1)
    if not areas.sum() > 0:
        raise InputError("the mesh has no surface: give a mesh with triangles")
    generator = np.random.default_rng(seed)
    face = torch.from_numpy(
        generator.choice(len(areas), num_samples, p=(areas / areas.sum()).numpy())
    )
    # Uniform in a triangle: fold the unit square along its diagonal.
    u, v = torch.from_numpy(generator.random((2, num_samples, 1)))
    folded = u + v > 1
    u, v = torch.where(folded, 1 - u, u), torch.where(folded, 1 - v, v)
    return (a[face] + u * (b - a)[face] + v * (c - a)[face]).float()


def chamfer_distance(
    pred: SurfaceMesh, gt: SurfaceMesh, num_samples: int = 100_000, seed: int = 0
) -> float:
    """Half the sum of the mean distances from each surface to the other, unsquared.

    Args:
        pred: reconstructed mesh.
        gt: true mesh.
        num_samples: points drawn on each surface; their spacing bounds the result from below.
        seed: of the drawing.
    """
    return _chamfer(*_nearest_distances(pred, gt, num_samples, seed))


def seen_chamfer_distance(
    pred: SurfaceMesh,
    gt: SurfaceMesh,
    cameras: Cameras,
    num_samples: int = 100_000,
    seed: int = 0,
) -> float:
    """The Chamfer distance of what cameras see: insides and undersides do not count.

    Args:
        pred: reconstructed mesh.
        gt: true mesh.
        cameras: every pixel gives one point of each mesh, as in SyncDreamer's evaluation.
        num_samples: at most so many of the points are compared.
        seed: of the choice.

    Raises:
        InputError: no camera sees one of the meshes.
    """
    pred_points = seen_points(pred, cameras, num_samples, 2 * seed)
    gt_points = seen_points(gt, cameras, num_samples, 2 * seed + 1)
    return _chamfer(*_distances_between(pred_points, gt_points))


def seen_points(mesh: SurfaceMesh, cameras: Cameras, num_samples: int, seed: int = 0) -> Tensor:
    """The surface points behind the pixels of all cameras, `num_samples` of them at random.

    Returns:
        [N, 3] float32, on the CPU; all points where there are fewer.

    Raises:
        InputError: no camera sees the mesh.
    """
    caster, cameras = RayCaster(mesh.vertices, mesh.faces), cameras.to("cpu")
    points = []
    for view in range(len(cameras)):
        origins, directions = (ray.reshape(-1, 3) for ray in cameras.rays(view))
        distances = caster.distances(origins, directions)
        hit = distances < torch.inf
        points.append(origins[hit] + distances[hit, None] * directions[hit])
    seen = torch.cat(points)
    if len(seen) == 0:
        raise InputError("no camera sees the mesh: check that mesh and cameras belong together")
    chosen = torch.randperm(len(seen), generator=torch.Generator().manual_seed(seed))
    return seen[chosen[:num_samples]]


def f_score(
    pred: SurfaceMesh,
    gt: SurfaceMesh,
    threshold: float = 0.02,
    num_samples: int = 100_000,
    seed: int = 0,
) -> float:
    """Harmonic mean of precision and recall: shares of points within `threshold` of the other."""
    return _f_score(*_nearest_distances(pred, gt, num_samples, seed), threshold)


def volume_iou(
    pred: SurfaceMesh, gt: SurfaceMesh, resolution: int = 64, half_extent: float = 1.0
) -> float:
    """Intersection over union of the enclosed volumes, on the centers of a grid's cells.

    Args:
        pred: reconstructed mesh.
        gt: true mesh.
        resolution: cells along each side.
        half_extent: the grid spans [-half_extent, half_extent]^3.

    Raises:
        InputError: neither mesh encloses the center of a cell.
    """
    inside_pred, inside_gt = (inside_grid(m, resolution, half_extent) for m in (pred, gt))
    union = int((inside_pred | inside_gt).sum())
    if union == 0:
        raise InputError(
            "neither mesh encloses a volume: give closed meshes or a larger resolution"
        )
    return int((inside_pred & inside_gt).sum()) / union


def inside_grid(mesh: SurfaceMesh, resolution: int, half_extent: float) -> Tensor:
    """Which cell centers of a grid lie inside a mesh.

    A center is inside where the generalized winding number exceeds a half in size, so meshes with
    holes have an inside too, and those turned inside out have the same. Space that the surface
    shuts in is inside as well: no image can tell a hollow box with its lid closed from a solid one.

    Returns:
        [R, R, R] bool, indexed x, y, z.
    """
    import igl

    axis = ((torch.arange(resolution) + 0.5) / resolution * 2 - 1) * half_extent
    centres = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).double()
    vertices = mesh.vertices.detach().cpu().double()
    faces = mesh.faces.cpu().long()
    # Outside the box around the surface no winding number reaches a half.
    used = vertices[faces.reshape(-1)]
    in_box = ((centres >= used.amin(0)) & (centres <= used.amax(0))).all(-1)
    inside = torch.zeros((resolution,) * 3, dtype=torch.bool)
    if in_box.any():
        winding = igl.fast_winding_number(
            np.ascontiguousarray(vertices.numpy()),
            np.ascontiguousarray(faces.numpy()),
            np.ascontiguousarray(centres[in_box].numpy()),
        )
        inside[in_box] = torch.from_numpy(np.abs(winding) > 0.5)
    return inside | enclosed_cells(mesh, resolution, half_extent)


def check_in_grid(mesh: SurfaceMesh, name: str, half_extent: float) -> None:
    """Raise where a mesh leaves the grid of the volume, which other units make it do.

    Args:
        mesh: any mesh.
        name: of the mesh, for the message.
        half_extent: the grid spans [-half_extent, half_extent]^3.

    Raises:
        InputError: a vertex lies outside.
    """
    largest = mesh.vertices.abs().max().item() if len(mesh.vertices) else 0.0
    if not largest <= half_extent * (1 + 1e-6):
        key = "pred" if name == "predicted" else "gt"
        raise InputError(
            f"the {name} mesh reaches {largest:.4g}, outside the cube of half side "
            f"{half_extent:g}: scale its longest side to 1, or give normalize_{key}=true"
        )


def rotated_about_up(mesh: SurfaceMesh, angle_deg: float) -> SurfaceMesh:
    """The mesh turned about the up axis (z), counter-clockwise seen from above.

    A photo taken from azimuth A gives a mesh whose azimuth 0 is there: turn the true mesh by -A, as
    SyncDreamer's evaluation does.

    Args:
        mesh: any mesh.
        angle_deg: in degrees.
    """
    angle = math.radians(angle_deg)
    x, y, z = mesh.vertices.unbind(-1)
    cos, sin = math.cos(angle), math.sin(angle)
    return replace(mesh, vertices=torch.stack([cos * x - sin * y, sin * x + cos * y, z], dim=-1))


def score_mesh(
    pred: SurfaceMesh, gt: SurfaceMesh, config: MeshMetricsConfig | None = None
) -> MeshScores:
    """All scores of one mesh.

    Args:
        pred: reconstructed mesh.
        gt: true mesh, in the same coordinates.
        config: defaults to `MeshMetricsConfig()`.

    Raises:
        InputError: a mesh has no surface or leaves the grid, or neither has a volume.
    """
    config = config or MeshMetricsConfig()
    for name, mesh in (("predicted", pred), ("true", gt)):
        check_in_grid(mesh, name, config.half_extent)
    to_gt, to_pred = _nearest_distances(pred, gt, config.num_samples, config.seed)
    return MeshScores(
        chamfer_distance=_chamfer(to_gt, to_pred),
        volume_iou=volume_iou(pred, gt, config.resolution, config.half_extent),
        f_score=_f_score(to_gt, to_pred, config.f_score_threshold),
    )


def _nearest_distances(
    pred: SurfaceMesh, gt: SurfaceMesh, num_samples: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Distances from points of `pred` to the nearest of `gt`, and back. Each [num_samples]"""
    # Two seeds: with the same points on both sides equal meshes would be closer than sampling is.
    return _distances_between(
        sample_surface(pred, num_samples, 2 * seed), sample_surface(gt, num_samples, 2 * seed + 1)
    )


def _distances_between(pred_points: Tensor, gt_points: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Distances from points [N, 3] to the nearest of others [M, 3], and back. [N], [M]"""
    from scipy.spatial import cKDTree

    to_gt = cKDTree(gt_points.numpy()).query(pred_points.numpy(), workers=-1)[0]
    to_pred = cKDTree(pred_points.numpy()).query(gt_points.numpy(), workers=-1)[0]
    return to_gt, to_pred


def _chamfer(to_gt: np.ndarray, to_pred: np.ndarray) -> float:
    return float(to_gt.mean() + to_pred.mean()) / 2


def _f_score(to_gt: np.ndarray, to_pred: np.ndarray, threshold: float) -> float:
    precision, recall = float((to_gt < threshold).mean()), float((to_pred < threshold).mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
