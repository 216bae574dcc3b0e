"""Walls with engraved print become flat; what is round, or stands out, stays."""

import numpy as np
import torch
import trimesh

from hi3d.surface.flat_walls import with_flat_walls
from hi3d.surface.grid import GridField
from hi3d.surface.marching_cubes import marching_cubes
from hi3d.surface.meshing import MeshingConfig, extract_mesh

RESOLUTION, EXTENT = 72, 0.55
AXIS = np.linspace(-EXTENT, EXTENT, RESOLUTION)
POINTS = np.stack(np.meshgrid(AXIS, AXIS, AXIS, indexing="ij"), axis=-1)
HALF = np.array([0.45, 0.3, 0.2])


def field(sdf: np.ndarray) -> GridField:
    values = torch.from_numpy(sdf).float()
    return GridField(values, torch.zeros(*values.shape, 3), EXTENT)


def box_sdf() -> np.ndarray:
    q = np.abs(POINTS - [0.01, 0.0, 0.0]) - HALF
    return np.linalg.norm(q.clip(0), axis=-1) + q.max(-1).clip(max=0)


def print_like(amplitude: float) -> np.ndarray:
    """Bars of a few voxels' width with gaps, alike along all axes."""
    bars = [np.sin(70 * POINTS[..., axis]) > 0.3 for axis in range(3)]
    return amplitude * (sum(bars) % 2)


def wall_deviation(vertices: np.ndarray) -> float:
    """How far the vertices on the walls, away from the box's edges, are from being flat."""
    deviation = []
    for axis in range(3):
        for side in (-1, 1):
            others = [other for other in range(3) if other != axis]
            near = (np.abs(vertices[:, others]) < HALF[others] - 0.06).all(1)
            near &= side * vertices[:, axis] > HALF[axis] - 0.05
            deviation.append(np.ptp(vertices[near, axis]) / 2)
    return max(deviation)


def test_engraved_walls_become_flat():
    engraved = field(box_sdf() + print_like(0.008))
    rough = extract_mesh(engraved, MeshingConfig(0, flat_walls=False)).vertices.numpy()
    flat = extract_mesh(engraved, MeshingConfig(0)).vertices.numpy()
    assert wall_deviation(rough) > 0.003
    assert wall_deviation(flat) < 0.0005
    assert np.abs(flat - rough).max() < 0.0071


def moved(sdf: np.ndarray) -> float:
    mesh = marching_cubes(field(sdf))
    trimesh.smoothing.filter_taubin(mesh, 0.5, 0.53, 20)
    return float(np.abs(with_flat_walls(mesh).vertices - mesh.vertices).max())


def test_round_surfaces_stay():
    x, y, z = np.moveaxis(POINTS, -1, 0)
    assert moved(np.linalg.norm(POINTS, axis=-1) - 0.45) == 0
    upright = np.hypot(x, y) - 0.4
    # The side of a cylinder stays; its ends are flat as they are.
    assert moved(np.maximum(upright, np.abs(z) - 0.45)) < 0.004
    assert moved(np.maximum(np.hypot(x + 1.2, y) - 1.6, np.abs(POINTS).max(-1) - 0.4)) < 0.004


def test_what_stands_out_stays():
    """A relief of two voxels on a wall keeps its height."""
    relief = np.abs(POINTS - [0.46 + 0.01, 0, 0]) - [0.035, 0.12, 0.1]
    mesh = marching_cubes(field(np.minimum(box_sdf(), relief.max(-1))))
    flat = with_flat_walls(mesh).vertices
    assert abs(flat[:, 0].max() - mesh.vertices[:, 0].max()) < 0.002
    assert flat[:, 0].max() > 0.46 + 0.02
