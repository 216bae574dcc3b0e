from dataclasses import replace

import pytest
import torch

from hi3d.surface.grid import ActiveGrid, GridField, surface_cells, trilinear_corners
from hi3d.surface.visual_hull import grid_points

RADIUS = 0.4


def ball_field(resolution: int = 16, half_extent: float = 0.55) -> GridField:
    points = grid_points(resolution, half_extent, "cpu").reshape(*(resolution,) * 3, 3)
    return GridField(points.norm(dim=-1) - RADIUS, 4 * points, half_extent)


def test_trilinear_interpolation_is_exact_for_linear_functions():
    points = torch.rand(50, 3, generator=torch.Generator().manual_seed(0)) * 1.1 - 0.55
    slope = torch.tensor([1.0, -2.0, 3.0])
    values = grid_points(9, 0.55, "cpu") @ slope
    corners, weights = trilinear_corners(points, 9, 0.55)
    assert torch.allclose((values[corners] * weights).sum(-1), points @ slope, atol=1e-5)


def test_resampling_keeps_linear_functions_and_the_extent():
    field = ball_field(9)
    linear = replace(field, sdf=field.rgb_logits[..., 1])
    fine = linear.resampled(17)
    assert torch.allclose(fine.sdf[:, :, 3], fine.rgb_logits[:, :, 3, 1], atol=1e-5)
    assert fine.sdf[0, -1, 0].item() == pytest.approx(4 * 0.55, rel=1e-5)


def test_surface_cells_surround_the_surface():
    field = ball_field(17)
    thin, wide = surface_cells(field.sdf, 0), surface_cells(field.sdf, 2)
    assert not thin[8, 8, 8]
    assert (wide | ~thin).all()
    corner_min = -torch.nn.functional.max_pool3d(-field.sdf[None, None], 2, stride=1)[0, 0]
    corner_max = torch.nn.functional.max_pool3d(field.sdf[None, None], 2, stride=1)[0, 0]
    assert torch.equal(thin, (corner_min < 0) & (corner_max >= 0))


def test_active_grid_agrees_with_the_field():
    field = ball_field(17)
    grid = ActiveGrid(field, surface_cells(field.sdf, 2))
    points = torch.nn.functional.normalize(torch.randn(40, 3), dim=-1) * RADIUS
    assert grid.contains(points).all()
    assert not grid.contains(torch.zeros(1, 3)).any()
    assert not grid.contains(torch.full((1, 3), 0.7)).any()
    for active, dense in zip(grid.query(points), field.query(points), strict=True):
        assert torch.allclose(active, dense, atol=1e-5)
    with torch.no_grad():
        grid.sdf += 1
    changed = grid.to_field().sdf - field.sdf
    assert torch.equal(changed > 0.5, grid.active)


def test_stencil_by_hand():
    R, voxel = 9, 1.1 / 8
    x, y, z = grid_points(R, 0.55, "cpu").reshape(R, R, R, 3).unbind(-1)
    field = GridField(2 * x + y - z + x**2, torch.zeros(R, R, R, 3), 0.55)
    grid = ActiveGrid(field, torch.ones(R - 1, R - 1, R - 1, dtype=torch.bool))
    assert len(grid.interior) == (R - 2) ** 3
    center = torch.tensor([(4 * R + 4) * R + 4])  # x = 0
    gradients, laplacians, _ = grid.stencil(center)
    assert torch.allclose(gradients, torch.tensor([[2.0, 1.0, -1.0]]), atol=1e-4)
    # Mean of the six neighbours minus the centre: 2 voxel^2 / 6, in voxels.
    assert laplacians.item() == pytest.approx(voxel / 3, rel=1e-3)


def test_wide_stencil_by_hand():
    R, voxel = 9, 1.1 / 8
    x, y, z = grid_points(R, 0.55, "cpu").reshape(R, R, R, 3).unbind(-1)
    field = GridField(2 * x + y - z + x**2, torch.zeros(R, R, R, 3), 0.55)
    cells = torch.ones(R - 1, R - 1, R - 1, dtype=torch.bool)
    vertices = torch.tensor([[4, 4, 4], [4, 4, 1], [2, 4, 4], [3, 3, 5]]) @ torch.tensor(
        [R * R, R, 1]
    )
    wide = ActiveGrid(field, cells).wide_laplacians(vertices, reach=3)
    # Mean of the six vertices 3 voxels away minus the vertex: 9 times 2 voxel^2 / 6, in voxels;
    # the second and the third reach out of the grid.
    expected = torch.tensor([3 * voxel, 0, 0, 3 * voxel])
    assert torch.allclose(wide, expected, atol=1e-4)
    cells[0] = False  # takes vertices 0 along x, which the last one needs
    assert ActiveGrid(field, cells).wide_laplacians(vertices, reach=3)[3] == 0
    assert ActiveGrid(field, cells).wide_laplacians(vertices, reach=3)[0] != 0
