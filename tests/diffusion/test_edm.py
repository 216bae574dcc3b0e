"""EDM's identities and its loss and sampler in closed form."""

import math

import pytest
import torch

from hi3d.diffusion.edm import (
    c_in,
    c_noise,
    c_out,
    c_skip,
    denoise,
    karras_sigmas,
    loss_denoising,
    loss_weight,
    sample_euler,
    sample_sigma,
)

SIGMAS = torch.tensor([0.002, 0.1, 1.0, 7.0, 700.0], dtype=torch.float64)


def test_preconditioning_identities():
    # EDM's three requirements: unit input, unit target, and a weight that undoes c_out.
    torch.testing.assert_close(c_in(SIGMAS) ** 2 * (1 + SIGMAS**2), torch.ones_like(SIGMAS))
    # The target (x - c_skip (x + sigma n)) / c_out has unit variance for unit x and n.
    variance = ((1 - c_skip(SIGMAS)) ** 2 + (c_skip(SIGMAS) * SIGMAS) ** 2) / c_out(SIGMAS) ** 2
    torch.testing.assert_close(variance, torch.ones_like(SIGMAS))
    torch.testing.assert_close(loss_weight(SIGMAS) * c_out(SIGMAS) ** 2, torch.ones_like(SIGMAS))
    assert c_noise(torch.tensor(math.exp(4.0))).item() == pytest.approx(1.0)


def test_network_predicts_v():
    # With alpha = 1/sqrt(1+s^2) and sigma' = s/sqrt(1+s^2): v = alpha noise - sigma' x.
    x, noise = torch.randn(2, 3, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    sigma = torch.tensor([0.3, 5.0], dtype=torch.float64)
    alpha, s = c_in(sigma)[:, None], sigma[:, None]
    v = alpha * noise - alpha * s * x
    torch.testing.assert_close(denoise(lambda *_: v, x + s * noise, sigma), x)


def test_loss_of_a_zero_network_in_closed_form():
    # F = 0 gives D = c_skip (x + sigma n); with x = 0 the loss is weight c_skip^2 sigma^2 mean n^2.
    noise = torch.ones(2, 4)
    sigma = torch.tensor([1.0, 2.0])
    loss = loss_denoising(lambda x, _: torch.zeros_like(x), torch.zeros(2, 4), noise, sigma)
    # sigma 1: 2 * (1/2)^2 * 1 = 0.5; sigma 2: 5/4 * (1/5)^2 * 4 = 0.2.
    torch.testing.assert_close(loss, torch.tensor([0.5, 0.2]))


def test_sigma_distribution():
    log_sigma = sample_sigma(20_000, 1.0, 1.6, torch.Generator().manual_seed(0)).log()
    assert log_sigma.mean().item() == pytest.approx(1.0, abs=0.05)
    assert log_sigma.std().item() == pytest.approx(1.6, abs=0.05)


def test_karras_sigmas():
    sigmas = karras_sigmas(25)
    assert len(sigmas) == 26
    assert sigmas[0].item() == pytest.approx(700, rel=1e-4)
    assert sigmas[24].item() == pytest.approx(0.002, rel=1e-3)
    assert sigmas[25] == 0
    # Eq. 5 at i = 12, half way in sigma^(1/7).
    middle = ((700 ** (1 / 7) + 0.002 ** (1 / 7)) / 2) ** 7
    assert sigmas[12].item() == pytest.approx(middle, rel=1e-4)
    with pytest.raises(ValueError, match="sigma_min"):
        karras_sigmas(0)


def test_euler_is_exact_for_a_point():
    # If the data are one point, D is that point and every Euler step is exact.
    point = torch.tensor([[2.0, -1.0]])
    steps = []
    sampled = sample_euler(
        lambda x, sigma: point.expand_as(x),
        torch.randn(1, 2),
        karras_sigmas(5, sigma_max=80.0),
        lambda i, x, denoised: steps.append(i),
    )
    torch.testing.assert_close(sampled, point, atol=1e-4, rtol=0)
    assert steps == [0, 1, 2, 3, 4]


def test_euler_reaches_the_right_variance_for_a_gaussian():
    # Data N(0, 0.5^2): D(x; s) = x 0.25 / (0.25 + s^2).
    def denoiser(x, sigma):
        return x * 0.25 / (0.25 + sigma[:, None] ** 2)

    noise = torch.randn(4000, 1, generator=torch.Generator().manual_seed(0))
    sampled = sample_euler(denoiser, noise, karras_sigmas(200, sigma_max=80.0))
    assert sampled.std().item() == pytest.approx(0.5, abs=0.02)
