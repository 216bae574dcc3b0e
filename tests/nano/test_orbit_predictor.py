"""The orbit predictor and the condition that is built on it."""

import pytest
import torch

from hi3d.diffusion.stage1_condition import stage1_condition
from hi3d.diffusion.weights import load_network
from hi3d.nano.orbit_predictor import OrbitPredictor, base_video, predict_orbit, repeat_around


@pytest.fixture
def vae(tiny_models):
    return load_network(str(tiny_models / "stage1"), "vae")


@pytest.fixture
def reference():
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def random_predictor() -> OrbitPredictor:
    torch.manual_seed(3)
    predictor = OrbitPredictor(4, 8, num_frames=8, hidden_size=8, num_blocks=1, rank=4).eval()
    torch.nn.init.normal_(predictor.output.weight)
    return predictor


def test_untrained_repeats_the_reference(vae, reference):
    predictor = OrbitPredictor(4, 8, num_frames=8, hidden_size=8, num_blocks=1, rank=4).eval()
    with torch.no_grad():
        orbit = predict_orbit(vae, predictor, reference, torch.tensor([0.0, 30.0]))
    expected = repeat_around(reference, 8)
    torch.testing.assert_close(orbit, expected)


def test_the_orbit_of_the_mirrored_image_is_mirrored(vae, reference):
    predictor, elevation_deg = random_predictor(), torch.tensor([0.0, 30.0])
    with torch.no_grad():
        orbit = predict_orbit(vae, predictor, reference, elevation_deg)
        mirrored = predict_orbit(vae, predictor, reference.flip(-1), elevation_deg)
    assert (orbit - repeat_around(reference, 8))[:, 1:].abs().mean() > 0.01
    expected = torch.cat([orbit[:, :1], orbit[:, 1:].flip(1)], dim=1).flip(-1)
    torch.testing.assert_close(mirrored, expected)


def test_elevation_matters(vae, reference):
    predictor = random_predictor()
    with torch.no_grad():
        low = predict_orbit(vae, predictor, reference, torch.tensor([0.0, 0.0]))
        high = predict_orbit(vae, predictor, reference, torch.tensor([0.0, 30.0]))
    torch.testing.assert_close(low[0], high[0])
    assert (low[1] - high[1]).abs().max() > 1e-3


def test_odd_orbits_are_refused():
    with pytest.raises(ValueError, match="even"):
        OrbitPredictor(num_frames=7)


def test_base_is_predicted_or_the_repeated_reference(vae, reference):
    elevation_deg, predictor = torch.tensor([0.0, 30.0]), random_predictor()
    with torch.no_grad():
        repeated = base_video(vae, None, reference, elevation_deg)
        predicted = base_video(vae, predictor, reference, elevation_deg)
        orbit = predict_orbit(vae, predictor, reference, elevation_deg)
    torch.testing.assert_close(repeated, repeat_around(reference, 16))
    torch.testing.assert_close(predicted, orbit)


def test_condition_with_and_without_a_base(tiny_models, vae, reference):
    encoder = load_network(str(tiny_models / "stage1"), "image_encoder")
    elevation_deg, no_noise = torch.tensor([0.0, 30.0]), torch.zeros(2)
    bases = [
        repeat_around(reference, 8),
        predict_orbit(vae, random_predictor(), reference, elevation_deg),
    ]
    with torch.no_grad():
        plain = stage1_condition(vae, encoder, reference, elevation_deg, no_noise, 8)
        repeated, predicted = (
            stage1_condition(vae, encoder, reference, elevation_deg, no_noise, 8, base)
            for base in bases
        )
    assert plain.base is None
    torch.testing.assert_close(plain.concat, plain.concat[:, :1].expand_as(plain.concat))
    assert repeated.base is bases[0]
    for condition in (repeated, predicted):
        assert condition.concat.shape == plain.concat.shape == (2, 8, 4, 8, 8)
        torch.testing.assert_close(condition.concat[:, 0], plain.concat[:, 0])
        torch.testing.assert_close(condition.added_time_ids, plain.added_time_ids)
    assert (predicted.concat - repeated.concat).abs().max() > 1e-3
