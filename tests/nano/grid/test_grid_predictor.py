"""The network that guesses the whole object, its measures and its augmentation."""

import pytest
import torch

from hi3d.nano.grid.augmentation import random_gamma, reframed, with_gamma
from hi3d.nano.grid.measures import orbit_measures, own_azimuth, psnr
from hi3d.nano.grid.predictor import GridPredictor, predict_grid, render_grid
from hi3d.nano.grid.rendering import GRID_SIDE


@pytest.fixture
def predictor() -> GridPredictor:
    torch.manual_seed(0)
    network = GridPredictor(16, 8, (8, 8, 32), 1).eval()
    torch.nn.init.constant_(network.head.bias[:8], 2.0)
    return network


def photo(side: int = 16) -> torch.Tensor:
    line = (torch.arange(side) + 0.5) / side * 2 - 1
    alpha = ((line[:, None].abs() < 0.4) & (line.abs() < 0.4)).float()
    color = torch.tensor([0.1, 0.8, 0.2])[:, None, None]
    return torch.cat([color * alpha + 1 - alpha, alpha[None]])[None]


def test_nothing_is_outside_the_silhouette_of_the_photo(predictor):
    elevation_deg = torch.tensor([20.0])
    grid = predict_grid(predictor, photo(), elevation_deg)
    assert grid.shape == (1, 4, GRID_SIDE, GRID_SIDE, GRID_SIDE)
    rgb, alpha = render_grid(grid, elevation_deg, 16, 4)
    assert alpha[0, 0, 0, 5:11, 5:11].min() > 0.9
    assert alpha[0, 0, 0, :2].max() < 0.1
    inside = rgb[0, 0, :, 6:10, 6:10].mean((1, 2))
    assert inside[1] > inside[0] + 0.3
    assert inside[1] > inside[2] + 0.3


def test_an_elevation_that_is_not_given_is_estimated(predictor):
    estimate = predictor(photo()).elevation_deg
    given = predictor(photo(), estimate)
    torch.testing.assert_close(predictor(photo()).frustum, given.frustum)
    other = predictor(photo(), estimate + 20)
    assert (other.frustum - given.frustum).abs().max() > 1e-4
    torch.testing.assert_close(other.elevation_deg, estimate)


def test_saved_and_loaded_it_says_the_same(predictor, tmp_path):
    predictor.save_pretrained(tmp_path)
    loaded = GridPredictor.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(loaded(photo()).frustum, predictor(photo()).frustum)


def orbits() -> torch.Tensor:
    return torch.rand(2, 16, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def test_true_views_are_their_own_and_the_repeated_photo_is_not():
    true = orbits()
    assert own_azimuth(true, true).tolist() == [1.0, 1.0]
    assert own_azimuth(true.roll(1, 1), true).tolist() == [0.0, 0.0]
    assert own_azimuth(true[:, :1].expand_as(true), true).tolist() == [0.0, 0.0]


def test_gain_is_over_repeating_the_photo():
    true = orbits()
    repeated = orbit_measures(true[:, :1].expand_as(true), true)
    assert repeated["psnr_gain"].item() == pytest.approx(0, abs=1e-5)
    perfect = orbit_measures(true, true)
    assert perfect["psnr"].item() == pytest.approx(50, abs=1e-3)
    assert perfect["psnr_gain"] > 30
    assert psnr(true + 0.1, true).mean().item() == pytest.approx(20, abs=1e-3)


def test_recoloring_leaves_white_white_and_others_not():
    generator = torch.Generator().manual_seed(0)
    gamma = random_gamma(200, 0.7, generator)
    changed = (gamma != 1).any(1).float().mean().item()
    assert 0.6 < changed < 0.8
    rgb = with_gamma(torch.full((200, 3, 2, 2), 0.5), gamma)
    assert rgb.std() > 0.02
    torch.testing.assert_close(with_gamma(torch.ones(200, 3, 2), gamma), torch.ones(200, 3, 2))


def test_reframing_moves_some_photos_a_little():
    photos = photo(64).expand(50, -1, -1, -1)
    moved = reframed(photos, 0.5, torch.Generator().manual_seed(0))
    changed = (moved - photos).abs().amax((1, 2, 3)) > 1e-4
    assert 0.3 < changed.float().mean() < 0.7
    area = moved[:, 3].sum((1, 2)) / photos[:, 3].sum((1, 2))
    assert area.min() > 0.85
    assert area.max() < 1.16
    torch.testing.assert_close(moved[:, :3, 0, 0], torch.ones(50, 3), atol=1e-5, rtol=0)
