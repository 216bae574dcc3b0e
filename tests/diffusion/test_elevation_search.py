"""Elevation by denoising, with a network that knows the answer."""

from types import SimpleNamespace

import pytest
import torch

from hi3d.diffusion.edm import c_in, c_out, c_skip
from hi3d.diffusion.elevation_search import CANDIDATES_DEG, ElevationLosses, elevation_losses
from hi3d.diffusion.sampling import OrbitCondition

TRUE_DEG = 22.0


class Oracle(torch.nn.Module):
    """Denoises all views to 0.5 + (told - true)^2 / 1000, so that only the truth is right."""

    dtype = torch.float32

    def forward(self, sample, noise_level, encoder_hidden_states, added_time_ids):
        sigma = (4 * noise_level).exp()[:, None, None, None, None]
        noisy = sample[:, :, :4] / c_in(sigma)
        told = 0.5 + (added_time_ids[:, 0] - TRUE_DEG).square() / 1000
        target = told[:, None, None, None, None].expand_as(noisy)
        return SimpleNamespace(sample=(target - c_skip(sigma) * noisy) / c_out(sigma))


def condition_at(angle):
    zeros = torch.zeros(1, 16, 4, 2, 2)
    ids = torch.tensor([[angle, 0.0]])
    return OrbitCondition(zeros, torch.zeros(1, 1, 8), ids), torch.full((1, 4, 2, 2), 0.5)


def test_the_lowest_loss_is_at_the_true_elevation():
    losses = elevation_losses(Oracle(), condition_at, 80.0)
    assert losses.candidates_deg == CANDIDATES_DEG
    assert int(losses.front.argmin()) == CANDIDATES_DEG.index(20)
    assert losses.best_deg(losses.front) == pytest.approx(TRUE_DEG, abs=1.5)


def test_between_candidates_and_at_the_ends():
    angles = (0.0, 5.0, 10.0)
    parabola = torch.tensor([(angle - 6.0) ** 2 for angle in angles])
    losses = ElevationLosses(angles, parabola, parabola)
    assert losses.best_deg(parabola) == pytest.approx(6.0)
    assert losses.best_deg(torch.tensor([0.0, 1.0, 2.0])) == 0.0
    assert losses.best_deg(torch.tensor([2.0, 1.0, 0.0])) == 10.0
