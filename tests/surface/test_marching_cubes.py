import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from hi3d.errors import InputError
from hi3d.surface.grid import GridField
from hi3d.surface.marching_cubes import crossing_blocks, marching_cubes
from hi3d.surface.visual_hull import grid_points


def field_of(sdf_of_points, resolution: int = 21, half_extent: float = 0.55) -> GridField:
    points = grid_points(resolution, half_extent, "cpu").reshape(*(resolution,) * 3, 3)
    return GridField(sdf_of_points(points), torch.zeros(*points.shape), half_extent)


def ball(points):
    return points.norm(dim=-1) - 0.4


def two_balls(points):
    first, second = torch.tensor([0.3, 0.0, 0.0]), torch.tensor([-0.3, 0.1, 0.0])
    return torch.minimum((points - first).norm(dim=-1) - 0.2, (points - second).norm(dim=-1) - 0.15)


def random_values(points):  # every marching cubes case, and surface at the boundary
    return torch.randn(points.shape[:-1], generator=torch.Generator().manual_seed(0))


def triangles(mesh):
    """The triangles as sorted rows of coordinates, whatever the order of vertices and faces."""
    corners = np.round(mesh.vertices, 5)[mesh.faces]  # [F, 3, 3]
    rolled = []
    for corner in corners:  # a triangle starts at its smallest corner and keeps its orientation
        start = min(range(3), key=lambda i: tuple(corner[i]))
        rolled.append(tuple(np.roll(corner, -start, axis=0).ravel()))
    return np.array(sorted(rolled))


@pytest.mark.parametrize("shape", [ball, two_balls, random_values])
@pytest.mark.parametrize("block_cells", [4, 7])
def test_blocks_give_what_one_block_gives(shape, block_cells):
    field = field_of(shape, 15)
    whole, blocks = marching_cubes(field), marching_cubes(field, block_cells=block_cells)
    assert len(blocks.vertices) == len(whole.vertices)
    assert np.allclose(triangles(blocks), triangles(whole), atol=2e-5)


def test_a_ball_in_blocks_is_closed_and_has_its_volume():
    mesh = marching_cubes(field_of(ball, 60), block_cells=16)
    assert mesh.is_watertight
    assert mesh.body_count == 1
    assert mesh.volume == pytest.approx(4 / 3 * math.pi * 0.4**3, rel=0.01)
    assert np.abs(np.linalg.norm(mesh.vertices, axis=1) - 0.4).max() < 0.002


def test_components_that_lie_in_different_blocks_stay_apart():
    mesh = marching_cubes(field_of(two_balls, 41), block_cells=10)
    volumes = sorted(piece.volume for piece in mesh.split())
    assert volumes == pytest.approx([4 / 3 * math.pi * r**3 for r in (0.15, 0.2)], rel=0.05)


def test_what_leaves_the_cube_is_closed_there():
    mesh = marching_cubes(field_of(lambda p: p[..., 2]), block_cells=8)
    assert mesh.is_watertight
    assert mesh.vertices[:, 2].max() == pytest.approx(0, abs=2e-3)  # 0.02 voxels


def test_empty_blocks_are_skipped_and_full_ones_are_not():
    field = field_of(ball, 33)
    firsts = np.array([[-1, 7, 7], [7, 7, 7], [14, 14, 14], [22, 14, 14]])
    # At the boundary; from -0.3 to -0.1 in each axis; the middle; across the ball's side.
    assert crossing_blocks(field, firsts, 4).tolist() == [True, True, False, True]


def test_wrong_fields_are_clear_errors():
    with pytest.raises(InputError, match="no inside"):
        marching_cubes(field_of(lambda p: torch.ones(p.shape[:-1])))
    broken = field_of(ball)
    broken = replace(broken, sdf=broken.sdf.index_fill(0, torch.tensor([3]), torch.nan))
    with pytest.raises(InputError, match="not finite"):
        marching_cubes(broken)
