"""Heun and DPM-Solver++ on analytic denoisers, against Euler and the exact answer."""

import pytest
import torch

from hi3d.diffusion.edm import karras_sigmas
from hi3d.diffusion.solvers import SOLVERS

STD = 0.5


def gaussian(x, sigma):
    """Data N(0, 0.5^2): D(x; s) = x 0.25 / (0.25 + s^2)."""
    return x * STD**2 / (STD**2 + sigma[:, None] ** 2)


def two_points(x, sigma):
    """Data at -1 and 1: D(x; s) = tanh(x / s^2)."""
    return torch.tanh(x / sigma[:, None] ** 2)


def error(name: str, num_steps: int) -> float:
    """Of the exact x(0) = x(s) 0.5 / sqrt(0.25 + s^2)."""
    noise = torch.tensor([[1.0], [-0.3]], dtype=torch.float64)
    sigmas = karras_sigmas(num_steps, sigma_max=80.0).double()
    exact = noise * (80.0**2 + 1) ** 0.5 * STD / (STD**2 + 80.0**2) ** 0.5
    return float((SOLVERS[name](gaussian, noise, sigmas, None, None) - exact).abs().max())


@pytest.mark.parametrize("name", ["heun", "dpmpp_2m"])
def test_second_order_beats_euler_and_converges_faster(name):
    assert error(name, 20) < error("euler", 20) / 2
    assert error("euler", 40) / error("euler", 80) == pytest.approx(2, abs=0.3)
    assert error(name, 40) / error(name, 80) > 3


@pytest.mark.parametrize("name", ["heun", "dpmpp_2m"])
def test_all_reach_the_same_sample(name):
    noise = torch.randn(64, 1, generator=torch.Generator().manual_seed(0))
    sigmas = karras_sigmas(400, sigma_max=80.0)
    sampled = [SOLVERS[each](two_points, noise, sigmas, None, None) for each in ("euler", name)]
    torch.testing.assert_close(*sampled, atol=0.02, rtol=0)


@pytest.mark.parametrize("name", ["euler", "dpmpp_2m"])
def test_noise_of_700_leaves_no_rounding(name):
    """float32 against float64; with differences of numbers of size 700 it was up to 1e-4."""
    noise = torch.randn(64, 1, generator=torch.Generator().manual_seed(0))
    for num_steps in (2, 25):
        sigmas = karras_sigmas(num_steps)
        exact = SOLVERS[name](gaussian, noise.double(), sigmas.double(), None, None)
        found = SOLVERS[name](gaussian, noise, sigmas, None, None)
        assert (found - exact).abs().max() < 2e-6


@pytest.mark.parametrize("name", SOLVERS)
def test_steps_are_counted_once_and_may_be_changed(name):
    steps = []

    def after_step(step, x, denoised):
        steps.append(step)
        return torch.zeros_like(x) if step == 3 else None

    noise = torch.ones(1, 1)
    found = SOLVERS[name](gaussian, noise, karras_sigmas(4, sigma_max=80.0), after_step, None)
    assert steps == [0, 1, 2, 3]
    assert found.item() == 0
    before = []
    SOLVERS[name](
        gaussian,
        noise,
        karras_sigmas(4, sigma_max=80.0),
        None,
        lambda step, x, first: before.append(step) or x,
    )
    assert before == [0, 1, 2, 3]
