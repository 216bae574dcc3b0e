"""Points that depth calls solid or empty, on spheres of known size."""

import pytest
import torch

from hi3d.data.dataset import OrbitDataset
from hi3d.nano.grid.point_targets import (
    BAND,
    DepthOrbit,
    near_points,
    occupancy_of,
    point_targets,
)
from hi3d.nano.grid.rendering import CELL

RADII = [0.3, 0.34, 0.38, 0.42]  # of the orbits of the fixture


@pytest.fixture
def orbit(orbits) -> DepthOrbit:
    items = [OrbitDataset(orbits, None, load_depth=True)[i] for i in range(4)]
    return DepthOrbit(
        *(
            torch.stack([torch.as_tensor(item[n]) for item in items])
            for n in ("rgb", "alpha", "depth")
        ),
        torch.tensor([item["elevation_deg"] for item in items]),
    )


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_points_in_the_ball_are_solid_and_those_outside_are_empty(orbit):
    points = (torch.rand(4, 4000, 3, generator=generator()) * 2 - 1) * 0.5
    occupancy, weight = occupancy_of(orbit, points)
    distance = points.norm(dim=-1) - torch.tensor(RADII)[:, None]
    margin = 3 * 2 * 0.457 * 1.5 / orbit.depth.shape[-1]  # pixels are large in this orbit
    assert (occupancy[distance < -margin] == 1).all()
    outside = (distance > margin) & (points[..., 2] > 0)  # below, no camera looks
    assert (occupancy[outside] == 0).float().mean() > 0.97
    deep = distance < -0.2
    assert (weight[deep] < 1).float().mean() > 0.9
    assert (weight[occupancy == 0] == 1).all()


def test_below_everything_that_is_seen_is_nothing(orbit):
    points = torch.tensor([[0.0, 0.0, -0.55]]).expand(4, 1, 3)
    occupancy, _ = occupancy_of(orbit, points)
    assert (occupancy == 0).all()


def test_near_points_lie_about_the_surface_with_its_color(orbit):
    points, rgb, weight = near_points(orbit, 500, generator())
    distance = points.norm(dim=-1) - torch.tensor(RADII)[:, None]
    pixel = 2 * 0.457 * 1.5 / orbit.depth.shape[-1]
    assert distance.abs().quantile(0.9) < BAND * CELL + pixel
    assert (distance < 0).float().mean() > 0.2
    assert (distance > 0).float().mean() > 0.2
    assert weight.max() > 0.5
    assert weight.min() >= 0
    assert not torch.equal(rgb[0], rgb[1])


def test_half_of_the_points_are_near_and_the_same_generator_draws_the_same(orbit):
    first, again = (point_targets(orbit, 64, generator()) for _ in range(2))
    torch.testing.assert_close(first.points, again.points)
    assert first.points.shape == (4, 64, 3)
    assert first.rgb.shape == (4, 3, 64)
    assert (first.rgb_weight[:, 32:] == 0).all()
    assert (first.rgb_weight[:, :32] > 0).any()


def test_points_keep_float32_under_autocast(orbit):
    expected = point_targets(orbit, 200, generator())
    with torch.autocast("cpu", torch.bfloat16):
        found = point_targets(orbit, 200, generator())
    for one, other in zip(vars(found).values(), vars(expected).values(), strict=True):
        torch.testing.assert_close(one, other, atol=0, rtol=0)
