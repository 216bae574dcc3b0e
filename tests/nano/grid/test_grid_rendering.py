"""Rays, projection and compositing of a field, against cameras and shapes that are known."""

import pytest
import torch

from hi3d.cameras import cameras_at
from hi3d.nano.grid.rendering import (
    CUBE_HALF,
    GRID_SIDE,
    HALF_TAN,
    RaySampling,
    camera_axes,
    cell_centers,
    project,
    render_field,
    sample_grid,
)

AZIMUTH_DEG, ELEVATION_DEG = torch.tensor([0.0, 70.0, 200.0]), torch.tensor([-10.0, 20.0, 40.0])


def ball(radius: float, center: tuple[float, float, float] = (0.0, 0.0, 0.0)):
    """A field: a red ball in nothing."""

    def field(points: torch.Tensor) -> torch.Tensor:
        distance = (points - torch.tensor(center)).norm(dim=-1)
        density = (radius - distance) * 400
        color = torch.tensor([4.0, -4.0, -4.0])[:, None].expand(len(points), 3, points.shape[1])
        return torch.cat([density[:, None], color], 1)

    return field


def test_axes_are_those_of_the_orbit_cameras():
    cameras = cameras_at(AZIMUTH_DEG, ELEVATION_DEG, 32)
    origins, axes = camera_axes(AZIMUTH_DEG, ELEVATION_DEG)
    torch.testing.assert_close(origins, cameras.positions, atol=1e-5, rtol=0)
    torch.testing.assert_close(axes, cameras.viewmats[:, :3, :3], atol=1e-5, rtol=0)


def test_projection_is_that_of_the_cameras():
    points = torch.rand(3, 50, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    cameras = cameras_at(AZIMUTH_DEG, ELEVATION_DEG, 32)
    xy, depths = project(points, AZIMUTH_DEG, ELEVATION_DEG)
    for i in range(3):
        pixels, expected, _ = cameras.project(points[i], i)
        torch.testing.assert_close((xy[i] + 1) * 16, pixels, atol=1e-3, rtol=0)
        torch.testing.assert_close(depths[i], expected, atol=1e-5, rtol=0)
    several, _ = project(points, AZIMUTH_DEG.expand(3, 3), ELEVATION_DEG[:, None])
    torch.testing.assert_close(several[torch.arange(3), torch.arange(3)], xy)


def test_a_grid_gives_its_cells_at_their_centers():
    grid = torch.rand(1, 2, GRID_SIDE, GRID_SIDE, GRID_SIDE)
    centers = cell_centers()
    values = sample_grid(grid, centers[10:12, 20, :].reshape(1, -1, 3))
    torch.testing.assert_close(values[0], grid[0, :, 10:12, 20].flatten(1), atol=1e-4, rtol=0)
    assert centers[0, 0, 1, 0] > centers[0, 0, 0, 0]
    assert centers[-1, 0, 0, 2] > 0
    assert centers.abs().max() < CUBE_HALF


def test_a_ball_is_seen_as_a_disc_of_its_size_and_color():
    radius, resolution = 0.3, 64
    rgb, alpha = render_field(ball(radius), AZIMUTH_DEG[None], torch.tensor([20.0]), resolution)
    tangent = radius / (1.5**2 - radius**2) ** 0.5 / HALF_TAN
    expected = torch.pi * (tangent * resolution / 2) ** 2
    assert alpha.sum((2, 3, 4))[0].tolist() == pytest.approx([expected] * 3, rel=0.03)
    assert (alpha[..., 0, 0] < 1e-3).all()
    torch.testing.assert_close(rgb[..., 0, 0], torch.ones(1, 3, 3), atol=1e-3, rtol=0)
    middle = torch.sigmoid(torch.tensor([4.0, -4.0, -4.0]))
    torch.testing.assert_close(rgb[0, 1, :, 32, 32], middle, atol=1e-2, rtol=0)


def test_what_stands_to_the_right_of_the_photo_comes_to_the_front():
    azimuths = torch.tensor([[0.0, 90.0, 270.0]])
    _, alpha = render_field(ball(0.1, (0.0, 0.35, 0.0)), azimuths, torch.tensor([0.0]), 32)
    columns = (alpha[0, :, 0].sum(1) * (torch.arange(32) + 0.5)).sum(1) / alpha.sum((0, 2, 3, 4))
    assert columns[0] > 22  # the camera at azimuth 0 looks along -x and has +y to its right
    assert columns[1].item() == pytest.approx(16, abs=0.3)
    assert alpha[0, 1].sum() > 1.3 * alpha[0, 2].sum()  # near, then far


def test_a_quarter_of_the_pixels_is_that_quarter():
    field, azimuths, elevation = ball(0.3), torch.tensor([[30.0]]), torch.tensor([10.0])
    whole, _ = render_field(field, azimuths, elevation, 32)
    part, _ = render_field(
        field, azimuths, elevation, 32, RaySampling(pixel_stride=2, pixel_offset=(1, 0))
    )
    torch.testing.assert_close(part, whole[..., 1::2, 0::2])


def test_rays_and_projections_keep_float32_under_autocast():
    points = torch.rand(3, 50, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    grid = torch.randn(1, 4, 8, 8, 8, generator=torch.Generator().manual_seed(1))

    def views():
        rendered = render_field(
            lambda places: sample_grid(grid, places), AZIMUTH_DEG[None], torch.tensor([20.0]), 16
        )
        return *project(points, AZIMUTH_DEG, ELEVATION_DEG), *rendered

    expected = views()
    with torch.autocast("cpu", torch.bfloat16):
        found = views()
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=0, rtol=0)
