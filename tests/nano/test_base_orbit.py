"""The video that stage 1 of the small model adds to."""

import pytest
import torch

from hi3d.diffusion.base_orbit import BaseOrbit
from hi3d.diffusion.weights import load_network
from hi3d.nano.base_orbit import base_orbit, repeat_around
from hi3d.nano.grid.certainty import DENSITY_SHIFT, SHARPNESS, drawn_noise
from hi3d.nano.grid.predictor import render_grid
from hi3d.pipelines.loading import load_pipeline
from hi3d.pipelines.orbit import OrbitPipeline
from hi3d.pipelines.sampler import SamplerConfig
from hi3d.views import ReferenceImage


def disc(side: int = 16) -> torch.Tensor:
    """A red disc over white, and its alpha. [4, side, side]"""
    line = (torch.arange(side) + 0.5) / side * 2 - 1
    alpha = ((line[:, None] ** 2 + line**2) < 0.36).float()
    color = torch.tensor([0.9, 0.1, 0.1])[:, None, None]
    return torch.cat([color * alpha + 1 - alpha, alpha[None]])


def test_without_a_predictor_the_photo_goes_around():
    reference = torch.rand(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    base = base_orbit(None, reference, torch.tensor([0.0, 30.0]), 8)
    torch.testing.assert_close(base.rgb, repeat_around(reference[:, :3], 8))
    assert base.alpha is None


def test_behind_the_object_the_photo_is_mirrored():
    reference = torch.rand(1, 3, 4, 4)
    around = repeat_around(reference, 8)[0]
    for frame in (0, 1, 7):
        torch.testing.assert_close(around[frame], reference[0])
    for frame in (2, 3, 4, 5, 6):
        torch.testing.assert_close(around[frame], reference[0].flip(-1))


def test_the_predicted_orbit_begins_with_the_photo_and_depends_on_the_elevation(tiny_models):
    predictor = load_network(str(tiny_models / "stage1"), "grid_predictor")
    reference = disc()[None]
    low = base_orbit(predictor, reference, torch.tensor([0.0]))
    high = base_orbit(predictor, reference, torch.tensor([35.0]))
    assert low.rgb.shape == (1, 16, 3, 16, 16)
    assert low.alpha.shape == (1, 16, 1, 16, 16)
    torch.testing.assert_close(low.rgb[:, 0], reference[:, :3])
    torch.testing.assert_close(low.alpha[:, 0], reference[:, 3:])
    assert (low.rgb - high.rgb)[:, 1:].abs().max() > 0.05
    assert (low.alpha[0].flatten(1).amax(1) > 0.5).all()


def test_a_difference_counts_where_the_base_is_free():
    base = base_orbit(None, disc()[None], torch.tensor([0.0]), 8)
    other = torch.rand(1, 8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert base.within(other) is other  # nothing says what may not change
    free = disc()[3:].expand(1, 8, 1, 16, 16)
    kept = BaseOrbit(base.rgb, free=free).within(other)
    inner = free.expand_as(other) == 1
    torch.testing.assert_close(kept[inner], other[inner])
    torch.testing.assert_close(kept[~inner], base.rgb[~inner])
    half = BaseOrbit(base.rgb, free=torch.full_like(free, 0.5)).within(other)
    torch.testing.assert_close(half, (base.rgb + other) / 2)


def test_what_the_photo_shows_is_not_free(tiny_models):
    predictor = load_network(str(tiny_models / "stage1"), "grid_predictor")
    base = base_orbit(predictor, disc()[None], torch.tensor([10.0]))
    assert base.free.shape == base.alpha.shape
    assert (base.free >= 0).all()
    assert (base.free <= base.alpha).all()
    share = (base.free.sum((2, 3, 4)) / base.alpha.sum((2, 3, 4)))[0]
    assert share[0] == 0
    assert share[8] > 0.5 > share[1]
    without = base_orbit(predictor, disc()[None], torch.tensor([10.0]), with_free=False)
    assert without.free is None
    torch.testing.assert_close(without.rgb, base.rgb)


@pytest.mark.parametrize("elevation_deg", [None, 12.0])
def test_the_pipeline_takes_alpha_and_elevation_from_the_predictor(tiny_models, elevation_deg):
    pipeline = load_pipeline(OrbitPipeline, str(tiny_models / "stage1"))
    rgba = disc(32)
    output = pipeline(
        ReferenceImage(rgba[:3], rgba[3:]),
        elevation_deg,
        SamplerConfig(1),
        torch.Generator().manual_seed(0),
    )
    small = torch.nn.functional.interpolate(rgba[None], (16, 16), mode="area")
    if elevation_deg is None:
        estimate = pipeline.grid_predictor(small).elevation_deg.item()
        assert output.elevation_deg == pytest.approx(min(max(estimate, -10), 40), abs=0.01)
    else:
        assert output.elevation_deg == elevation_deg
    noise = drawn_noise([torch.Generator().manual_seed(0)])
    elevation = torch.tensor([output.elevation_deg])
    base = base_orbit(pipeline.grid_predictor, small, elevation, noise=noise)
    torch.testing.assert_close(output.views.alpha, base.alpha[0])


def test_the_predicted_grid_is_the_object_of_the_orbit_with_its_surface_at_0(tiny_models):
    pipeline = load_pipeline(OrbitPipeline, str(tiny_models / "stage1"))
    rgba, seed = disc(32), torch.Generator().manual_seed
    image = ReferenceImage(rgba[:3], rgba[3:])
    output = pipeline(image, 12.0, SamplerConfig(1), seed(4))
    grid, half = pipeline.predicted_grid(image, 12.0, seed(4))
    assert half > 0.5
    assert (grid[0] > 0).any()
    assert (grid[0] < 0).any()
    grid[0] -= DENSITY_SHIFT / SHARPNESS
    alpha = render_grid(grid[None], torch.tensor([12.0]), 16)[1][0]
    torch.testing.assert_close(alpha[1:], output.views.alpha[1:])
    other, _ = pipeline.predicted_grid(image, 12.0, seed(5))
    assert not torch.equal(other[1:], grid[1:]) or not torch.equal(other[0], grid[0])


def test_without_a_predictor_there_is_no_grid(tiny_models):
    pipeline = load_pipeline(OrbitPipeline, str(tiny_models / "stage1"))
    pipeline.register_modules(grid_predictor=None)
    rgba = disc(32)
    image = ReferenceImage(rgba[:3], rgba[3:])
    assert pipeline.predicted_grid(image, 12.0, torch.Generator()) is None
