import math

import pytest
import torch

from hi3d.surface.neus.weights import (
    MAX_ALPHA,
    alphas_from_sdf,
    alphas_from_slopes,
    transmittance,
    weights_from_alphas,
)


def logistic_cdf(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_one_section_by_hand():
    # inv_s * sdf = ln 3 and -ln 3, so the CDFs are 3/4 and 1/4 and alpha = (3/4 - 1/4) / (3/4).
    inv_s = 10.0
    start, end = torch.tensor([math.log(3) / inv_s]), torch.tensor([-math.log(3) / inv_s])
    assert alphas_from_sdf(start, end, inv_s).item() == pytest.approx(2 / 3, abs=1e-4)


def test_a_ray_that_leaves_the_solid_adds_nothing():
    assert alphas_from_sdf(torch.tensor([-0.1]), torch.tensor([0.1]), 50.0).item() == 0


def test_deep_inside_is_opaque():
    assert alphas_from_sdf(torch.tensor([-5.0]), torch.tensor([-5.1]), 100.0).item() == (
        pytest.approx(MAX_ALPHA)
    )


def test_weights_match_a_slow_loop():
    generator = torch.Generator().manual_seed(0)
    sdf = torch.rand(3, 9, generator=generator).double() - 0.5
    inv_s = 12.0
    weights = weights_from_alphas(alphas_from_sdf(sdf[:, :-1], sdf[:, 1:], inv_s))
    for ray in range(3):
        through = 1.0
        for i in range(8):
            before = logistic_cdf(inv_s * sdf[ray, i].item())
            after = logistic_cdf(inv_s * sdf[ray, i + 1].item())
            alpha = max((before - after) / before, 0)
            assert weights[ray, i].item() == pytest.approx(through * alpha, abs=1e-4)
            through *= 1 - alpha


def test_weights_sum_to_the_opacity():
    alphas = torch.rand(5, 7, generator=torch.Generator().manual_seed(1)).double() * 0.9
    opacity = 1 - (1 - alphas).prod(-1)
    assert torch.allclose(weights_from_alphas(alphas).sum(-1), opacity)
    assert torch.equal(transmittance(alphas)[:, 0], torch.ones(5).double())


def test_unbiased_the_weight_peaks_where_the_ray_meets_a_plane():
    # A plane met head on at t = 0.5: for a single plane the weight is the logistic density there.
    t = torch.linspace(0, 1, 201, dtype=torch.float64)
    sdf = 0.5 - t
    weights = weights_from_alphas(alphas_from_sdf(sdf[:-1], sdf[1:], 80.0))
    middles = 0.5 * (t[:-1] + t[1:])
    assert abs(middles[weights.argmax()].item() - 0.5) <= 0.005
    assert (weights * middles).sum().item() == pytest.approx(0.5, abs=0.002)


def test_slopes_agree_with_consecutive_values_on_a_plane():
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    cos = -0.6
    sdf = 0.3 + cos * t
    middle = 0.5 * (sdf[:-1] + sdf[1:])
    from_slopes = alphas_from_slopes(
        middle, torch.full_like(middle, cos), t[:-1], t[1:], 30.0, cos_anneal_ratio=1.0
    )
    assert torch.allclose(from_slopes, alphas_from_sdf(sdf[:-1], sdf[1:], 30.0))


def test_anneal_ratio_zero_keeps_alpha_where_the_surface_faces_away():
    # cos = 0.5: the soft slope is -(0.5 - 0.25) = -0.25, the true one 0.
    one = torch.ones(1, dtype=torch.float64)
    arguments = (0 * one, 0.5 * one, 0 * one, 0.2 * one, 10.0)
    before, after = logistic_cdf(10 * 0.025), logistic_cdf(-10 * 0.025)
    soft = alphas_from_slopes(*arguments, cos_anneal_ratio=0.0)
    assert soft.item() == pytest.approx((before - after) / before, abs=1e-4)
    assert alphas_from_slopes(*arguments, cos_anneal_ratio=1.0).item() == pytest.approx(0, abs=1e-4)


def test_gradients_are_right():
    sdf = torch.tensor([[0.2, 0.1, 0.03, -0.04]], dtype=torch.float64, requires_grad=True)
    inv_s = torch.tensor(20.0, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda f, s: weights_from_alphas(alphas_from_sdf(f[:, :-1], f[:, 1:], s)), (sdf, inv_s)
    )
