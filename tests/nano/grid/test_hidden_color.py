"""What the photo does not show takes the colors of the front at the same height."""

import pytest
import torch

from hi3d.nano.grid.hidden_color import blurred_colors, hidden_behind, with_mirrored_colors
from hi3d.nano.grid.rendering import cell_centers

SIDE = 32
POINTS = cell_centers(SIDE)
ELEVATION = torch.tensor([35.0])


def cylinder(top_color: float, radius: float = 0.3) -> torch.Tensor:
    """An upright cylinder whose colors lie along the rays of a camera that looks down."""
    x, y, z = POINTS.unbind(-1)
    density = torch.where((x**2 + y**2).sqrt() < radius, 8.0, -20.0)
    density = torch.where(z.abs() < 0.4, density, torch.full_like(z, -20.0))
    slope = torch.tan(torch.deg2rad(ELEVATION))
    top = (z - slope * (x - radius)) > 0.2  # the lid in front, and what lies on its rays
    color = torch.where(top, top_color, -3.0).expand(3, SIDE, SIDE, SIDE)
    return torch.cat([density[None], color])[None]


def mirrored(grid: torch.Tensor) -> torch.Tensor:
    return with_mirrored_colors(grid, POINTS.reshape(1, -1, 3), ELEVATION)


def test_a_lid_is_as_low_behind_as_in_front():
    grid = cylinder(3.0)
    x, y, z = POINTS.unbind(-1)
    back = (x < -0.2) & (y.abs() < 0.1) & (x > -0.28) & (z > -0.25) & (z < 0.05)
    assert grid[0, 1][back].mean() > 1  # the lid's color reaches down there
    assert torch.sigmoid(mirrored(grid)[0, 1][back]).mean() < 0.1


def test_shape_and_what_the_photo_shows_stay():
    grid = cylinder(3.0)
    found = mirrored(grid)
    assert torch.equal(found[:, 0], grid[:, 0])
    x, _, z = POINTS.unbind(-1)
    front = (x > 0.24) & (z > -0.1)
    before, after = (torch.sigmoid(g[0, 1:])[:, front] for g in (grid, found))
    torch.testing.assert_close(after, before, atol=0.03, rtol=0)


def test_only_cells_behind_something_are_hidden():
    grid = cylinder(0.0)
    hidden = hidden_behind(grid[:, :1], POINTS.reshape(1, -1, 3), ELEVATION)[0, 0]
    x, y, z = POINTS.unbind(-1)
    assert hidden[(x < -0.2) & (y.abs() < 0.1) & (z.abs() < 0.1)].min() > 0.9
    assert hidden[x > 0.3].max() < 0.1
    assert hidden[(y.abs() > 0.53) & (x < -0.2)].max() < 0.01
    clear = hidden_behind(torch.full_like(grid[:, :1], -20.0), POINTS.reshape(1, -1, 3), ELEVATION)
    assert clear.max() == pytest.approx(0, abs=1e-3)


def test_blurred_colors_are_of_solid_cells():
    grid = torch.full((1, 4, SIDE, SIDE, SIDE), -20.0)
    grid[0, 0, 10, 10, 10] = 20.0
    grid[0, 1, 10, 10, 10] = 20.0  # red
    colors, solid = blurred_colors(grid)
    assert colors[0, :, 10, 10, 12].tolist() == pytest.approx([1, 0, 0], abs=1e-3)
    assert solid[0, 0, 10, 10, 10] > solid[0, 0, 10, 10, 12] > solid[0, 0, 10, 10, 15] >= 0
    assert solid.sum() == pytest.approx(1, abs=1e-2)


def test_a_batch_is_as_one_by_one():
    grids = torch.cat([cylinder(3.0), cylinder(-1.0, 0.2)])
    points = POINTS.reshape(1, -1, 3).expand(2, -1, -1)
    both = with_mirrored_colors(grids, points, torch.tensor([35.0, -5.0]))
    for i, angle in enumerate((35.0, -5.0)):
        one = with_mirrored_colors(grids[i : i + 1], points[:1], torch.tensor([angle]))
        torch.testing.assert_close(both[i : i + 1], one, atol=1e-4, rtol=0)
