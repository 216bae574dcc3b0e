"""Views without the empty samples are the views with them."""

import pytest
import torch

from hi3d.nano.grid.occupied_rendering import occupied_cells, render_occupied
from hi3d.nano.grid.rendering import cell_centers, render_field, sample_grid

AZIMUTH_DEG = torch.tensor([0.0, 70.0, 200.0])
ELEVATION_DEG = torch.tensor(25.0)
SIZE, SIDE = 24, 32


def blob(radius: float, steepness: float) -> torch.Tensor:
    """Logits of a ball with random colors, some of its surface rough."""
    generator = torch.Generator().manual_seed(0)
    distance = (cell_centers(SIDE) - torch.tensor([0.1, 0.0, 0.05])).norm(dim=-1)
    rough = torch.randn(SIDE, SIDE, SIDE, generator=generator)
    density = steepness * (radius - distance) + rough
    return torch.cat([density[None], torch.randn(3, SIDE, SIDE, SIDE, generator=generator)])


@pytest.mark.parametrize(("radius", "steepness"), [(0.3, 100), (0.3, 20), (0.9, 20)])
def test_no_pixel_tells_that_samples_were_left_out(radius, steepness):
    grid = blob(radius, steepness)
    rgb, alpha = render_occupied(grid, AZIMUTH_DEG, ELEVATION_DEG, SIZE)
    whole = render_field(
        lambda points: sample_grid(grid[None], points),
        AZIMUTH_DEG[None],
        ELEVATION_DEG[None],
        SIZE,
    )
    torch.testing.assert_close(rgb, whole[0][0], atol=1e-3, rtol=0)
    torch.testing.assert_close(alpha, whole[1][0], atol=1e-3, rtol=0)
    assert alpha.max() > 0.9


def test_most_of_a_grid_is_left_out_and_a_clear_one_is_white():
    grid = blob(0.2, 100)
    assert 0.01 < occupied_cells(grid[0]).float().mean() < 0.2
    grid[0] = -20
    rgb, alpha = render_occupied(grid, AZIMUTH_DEG, ELEVATION_DEG, SIZE)
    assert bool((rgb == 1).all())
    assert bool((alpha == 0).all())
