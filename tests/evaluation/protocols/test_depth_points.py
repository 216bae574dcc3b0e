"""SyncDreamer's mesh scores against its formulas written out in numpy."""

import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial.distance import cdist

from hi3d.cameras import orbit_cameras
from hi3d.errors import InputError
from hi3d.evaluation.protocols import depth_points as module
from hi3d.evaluation.protocols.depth_points import (
    depth_chamfer,
    depth_points,
    inside_at_corners,
    one_per_voxel,
    syncdreamer_cameras,
)
from tests.evaluation.protocols.shapes import surface


def protocol_points(mesh: trimesh.Trimesh, azimuths_deg) -> np.ndarray:
    """Vertices are projected, triangles filled with depth linear in the image, covered pixels taken
    back by their integer coordinates."""
    size, focal, center = 256, 280.0, 128.0
    elevation, points = np.deg2rad(30), []
    inverse = np.linalg.inv([[focal, 0, center], [0, focal, center], [0, 0, 1]])
    for azimuth in np.deg2rad(azimuths_deg):
        ca, sa, ce, se = np.cos(azimuth), np.sin(azimuth), np.cos(elevation), np.sin(elevation)
        rotation = np.array([[-sa, ca, 0], [ca * se, sa * se, -ce], [-ca * ce, -sa * ce, -se]])
        local = mesh.vertices @ rotation.T + [0, 0, 1.5]
        image = local[:, :2] / local[:, 2:] * focal + center
        depth = np.full((size, size), np.inf)
        for face in mesh.faces:
            corners, z = image[face], local[face, 2]
            low = np.floor(corners.min(0)).astype(int).clip(0, size - 1)
            high = np.ceil(corners.max(0)).astype(int).clip(0, size - 1)
            x, y = np.meshgrid(np.arange(low[0], high[0] + 1), np.arange(low[1], high[1] + 1))
            system = np.vstack([corners.T, np.ones(3)])
            if abs(np.linalg.det(system)) < 1e-9:
                continue
            pixels = np.stack([x.ravel() + 0.5, y.ravel() + 0.5, np.ones(x.size)])
            weights = np.linalg.solve(system, pixels)
            inside = (weights >= 0).all(0)
            row, column = y.ravel()[inside], x.ravel()[inside]
            depth[row, column] = np.minimum(depth[row, column], (z @ weights)[inside])
        rows, columns = np.nonzero(np.isfinite(depth))
        z = depth[rows, columns]
        back = np.stack([columns * z, rows * z, z], 1) @ inverse.T
        points.append((back - [0, 0, 1.5]) @ rotation)
    return np.concatenate(points)


def voxel_means(points: np.ndarray) -> np.ndarray:
    cells: dict[tuple, list] = {}
    origin = points.min(0) - 0.005
    for point in points:
        key = tuple(np.floor((point - origin) / 0.01).astype(int))
        cells.setdefault(key, []).append(point)
    return np.array([np.mean(cell, 0) for cell in cells.values()])


@pytest.fixture(scope="module", name="pair")
def pair_fixture() -> list[trimesh.Trimesh]:
    box = trimesh.creation.box((1.0, 0.5, 0.3))
    ball = trimesh.creation.icosphere(1, 0.35)
    return [box, ball]


def test_chamfer_equals_the_formulas(pair):
    cameras = syncdreamer_cameras()
    expected, found = [], []
    for mesh in pair:
        ours = depth_points(surface(mesh), cameras[slice(0, 16, 5)])
        theirs = protocol_points(mesh, np.arange(0, 16, 5) * 22.5)
        assert len(ours) == pytest.approx(len(theirs), rel=2e-3)  # pixels on outlines
        found.append(one_per_voxel(ours))
        expected.append(voxel_means(theirs))
        assert len(found[-1]) == pytest.approx(len(expected[-1]), rel=0.01)
    distances = cdist(*expected)
    reference = (distances.min(1).mean() + distances.min(0).mean()) / 2
    assert reference > 0.05
    assert depth_chamfer(*found) == pytest.approx(reference, rel=1e-3)


def test_flat_faces_are_bent_as_the_protocol_bends_them(pair):
    # Depth that is linear in the image differs from the true depth on large faces: a correct
    # rasterizer would give other numbers.
    points = depth_points(surface(pair[0]), syncdreamer_cameras()[[1]]).numpy()
    distance = trimesh.proximity.closest_point(pair[0], points[::97])[1]
    assert distance.max() > 0.01


def test_depth_of_the_truth_is_in_perspective_and_of_16_bits(pair):
    cameras = syncdreamer_cameras()[[1]]
    points = depth_points(surface(pair[0]), cameras, rendered=True)
    depth = cameras.project(points, 0)[1].numpy()
    levels = (depth - 0.6) / 1.8 * 65535
    np.testing.assert_allclose(levels, levels.round(), atol=0.05)
    # Through corners rather than centers: half a pixel, 0.0038 at the distance of the origin.
    distance = trimesh.proximity.closest_point(pair[0], points.numpy()[::97])[1]
    assert distance.max() < 0.005
    near = trimesh.creation.icosphere(1, 0.05).apply_translation((1.0, 0, 0.577))  # depth 0.3
    assert len(depth_points(surface(near), syncdreamer_cameras()[[0]])) > 1000
    with pytest.raises(InputError, match="no camera sees"):
        depth_points(surface(near), syncdreamer_cameras()[[0]], rendered=True)


@pytest.mark.parametrize("moved", [0.0, 0.5, 1.2])
def test_rays_around_the_object_are_enough(moved, monkeypatch):
    """In the middle, partly out of the frame, and with vertices behind cameras."""
    box = surface(trimesh.creation.box((1.0, 0.6, 0.4)).apply_translation([moved, 0, 0]))
    cameras = orbit_cameras(30.0, 48)
    points = depth_points(box, cameras)
    monkeypatch.setattr(module, "pixels_around", lambda *_: torch.arange(48 * 48))
    assert torch.equal(points, depth_points(box, cameras))


def test_points_of_a_cell_become_their_mean():
    points = torch.tensor([[0.0, 0, 0], [0.002, 0, 0], [0.02, 0, 0]])
    torch.testing.assert_close(one_per_voxel(points), torch.tensor([[0.001, 0, 0], [0.02, 0, 0]]))


def test_volume_is_sampled_where_mesh2sdf_samples():
    # mesh2sdf at size 64: a box of half side .1 moved by .013 has points 30-35 in x and 29-35 in y
    # and z inside.
    box = trimesh.creation.box((0.2, 0.2, 0.2)).apply_translation((0.013, 0, 0))
    found = np.argwhere(inside_at_corners(surface(box)))
    assert found.min(0).tolist() == [30, 29, 29]
    assert found.max(0).tolist() == [35, 35, 35]
    box.invert()
    assert len(np.argwhere(inside_at_corners(surface(box)))) == len(found)
