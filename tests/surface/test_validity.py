"""Whatever the field is like, the mesh bounds a solid and has no debris."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from hi3d.cameras import orbit_cameras
from hi3d.surface.grid import GridField
from hi3d.surface.meshing import MeshingConfig, extract_mesh, mesh_to_trimesh
from hi3d.surface.topology import topology

EXTENT = 0.55
AXIS = np.linspace(-EXTENT, EXTENT, 24)
POINTS = np.stack(np.meshgrid(AXIS, AXIS, AXIS, indexing="ij"), axis=-1)
VOXEL = AXIS[1] - AXIS[0]
NOISE = np.random.default_rng(0).normal(size=POINTS.shape[:3])


def ball(center, radius: float) -> np.ndarray:
    return np.linalg.norm(POINTS - center, axis=-1) - radius


def cube(center) -> np.ndarray:
    return np.abs(POINTS - center).max(-1) - 0.2


SPECKS = [ball(speck, 0.05) for speck in np.random.default_rng(1).uniform(-0.5, 0.5, (20, 3))]
FIELDS = {
    "ball beyond the box": ball((0, 0, 0), 0.7),
    "filled box": np.full(NOISE.shape, -1.0),
    "one vertex": np.where(np.arange(NOISE.size).reshape(NOISE.shape) == 6000, -1.0, 1.0),
    "tilted sheet": np.maximum(abs(POINTS @ [0.6, 0, 0.8]) - 0.4 * VOXEL, ball((0, 0, 0), 0.45)),
    "touching balls": np.minimum(ball((-0.2, 0, 0), 0.2), ball((0.2, 0, 0), 0.2)),
    "cubes with one edge in common": np.minimum(cube((-0.2, -0.2, 0)), cube((0.2, 0.2, 0))),
    "cubes with one corner in common": np.minimum(cube((-0.2,) * 3), cube((0.2,) * 3)),
    "ball among specks": np.minimum.reduce([ball((0, 0, 0), 0.3), *SPECKS]),
    "hollow ball": abs(ball((0, 0, 0), 0.35)) - 0.05,
    "ball with noise": ball((0, 0, 0), 0.35) + VOXEL * NOISE,
    "smooth noise": gaussian_filter(NOISE, 1.5),
    "signs of noise": np.where(gaussian_filter(NOISE, 1.0) > 0, VOXEL, -VOXEL),
}


@pytest.mark.parametrize("name", FIELDS)
def test_meshes_bound_a_solid(name):
    sdf = torch.from_numpy(FIELDS[name]).float()
    field = GridField(sdf, torch.zeros(*sdf.shape, 3), EXTENT)
    mesh = extract_mesh(field, MeshingConfig(800), orbit_cameras(20, 32, 8))
    found = topology(mesh.vertices.numpy(), mesh.faces.numpy())
    assert found.sound, found
    pieces = mesh_to_trimesh(mesh).split(only_watertight=False)
    areas = np.array([piece.area for piece in pieces])
    assert (areas > 0.005 * areas.max()).all()
    assert all(piece.volume > 0 for piece in pieces)


def test_a_speck_beside_a_thin_sheet_is_debris():
    """It has 3 % of the sheet's volume, and less than 1 % of its area."""
    sheet = np.maximum(abs(POINTS[..., 2] - AXIS[6]) - 0.55 * VOXEL, abs(POINTS).max(-1) - 0.45)
    sdf = torch.from_numpy(np.minimum(sheet, ball(POINTS[12, 12, 18], 0.9 * VOXEL))).float()
    field = GridField(sdf, torch.zeros(*sdf.shape, 3), EXTENT)
    assert len(mesh_to_trimesh(extract_mesh(field, MeshingConfig(0))).split()) == 1
