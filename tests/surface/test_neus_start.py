"""What NeuS starts from: the hull, or a predicted grid of what is solid and of colors."""

from dataclasses import replace

import pytest
import torch

from hi3d.cameras import orbit_cameras
from hi3d.surface.neus.config import NeusConfig
from hi3d.surface.neus.fit import fit_neus
from hi3d.surface.neus.networks import FieldKind
from hi3d.surface.neus.start import MAX_COLOR_LOGIT, predicted_field, starting_field

HALF = 0.6
CONFIG = NeusConfig(
    field=FieldKind.predicted,
    steps=1,
    rays_per_step=64,
    resolutions=[16],
    resolution_starts=[0.0],
    regularized_vertices=64,
)


def predicted_ball(radius: float, side: int = 24) -> torch.Tensor:
    """Logits [4, side, side, side] (z, y, x) of a ball around x = 0.1, redder towards +x."""
    line = ((torch.arange(side) + 0.5) / side * 2 - 1) * HALF
    z, y, x = torch.meshgrid(line, line, line, indexing="ij")
    solid = radius - torch.stack([x - 0.1, y, z]).norm(dim=0)
    return torch.stack([solid, 100 * x, 0 * x, 0 * x])


@pytest.fixture(scope="module")
def views(sphere_views):
    return sphere_views(orbit_cameras(20.0, 48))[0]


def test_a_ball_is_where_it_was_predicted_in_its_colors():
    field = predicted_field(predicted_ball(0.3), HALF)
    places = torch.tensor([[0.4, 0.0, 0.0], [-0.2, 0, 0], [0.1, 0.3, 0], [0.1, 0, 0]])
    sdf, rgb = field.query(places)
    torch.testing.assert_close(sdf, torch.tensor([0.0, 0, 0, -0.3]), atol=0.03, rtol=0)
    assert rgb[0, 0] > 0.9 > 0.1 > rgb[1, 0]
    assert float(field.rgb_logits.abs().max()) <= MAX_COLOR_LOGIT


@pytest.mark.parametrize("radius", [-1.0, 9.0])
def test_nothing_and_everything_give_no_field(radius):
    assert predicted_field(predicted_ball(radius), HALF) is None


def inside(field) -> int:
    return int((field.sdf < 0).sum())


def test_a_fit_starts_from_the_prediction_where_it_is_asked_to(views):
    small = predicted_field(predicted_ball(0.2), HALF)
    hull, hull_config = fit_neus(views, CONFIG), replace(CONFIG, field=FieldKind.grid)
    assert inside(fit_neus(views, CONFIG, start=small)) < 0.5 * inside(hull)
    torch.testing.assert_close(fit_neus(views, hull_config, start=small).sdf, hull.sdf)


def test_a_prediction_that_the_first_resolution_loses_gives_way_to_the_hull(views):
    speck = predicted_field(predicted_ball(0.05), HALF)
    assert inside(speck) > 0
    hull = starting_field(views, CONFIG, None)
    torch.testing.assert_close(starting_field(views, CONFIG, speck).sdf, hull.sdf)
