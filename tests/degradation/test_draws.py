"""The drawn parameters follow their laws, and are shared or not as the config says."""

import dataclasses
import math

import pytest
import torch
from scipy import stats

from hi3d.degradation.draws import (
    DegradationConfig,
    DegradationPass,
    VideoDraws,
    draw_video,
)
from hi3d.degradation.kernels import KERNEL_KINDS, KernelConfig
from hi3d.degradation.random_draws import SharedDraws

COUNT = 10_000
NONE_SHARED = SharedDraws(**dict.fromkeys([f.name for f in dataclasses.fields(SharedDraws)], False))
ALL_SHARED = SharedDraws(**dict.fromkeys([f.name for f in dataclasses.fields(SharedDraws)], True))
LIKELY = 1e-3
"""Smallest p-value: the seed is fixed, so a test passes always or never."""


@pytest.fixture(scope="module")
def many() -> VideoDraws:
    """10,000 independent draws of every parameter."""
    config = DegradationConfig(shared=NONE_SHARED)
    return draw_video(config, COUNT, 1024, torch.Generator().manual_seed(0))


def assert_uniform(values: torch.Tensor, low: float, high: float) -> None:
    assert stats.kstest(values.numpy(), "uniform", (low, high - low)).pvalue > LIKELY


def assert_shares(values: torch.Tensor, shares: list[float]) -> None:
    """Chi-square of integers 0, 1, ... against their shares."""
    observed = torch.bincount(values.long(), minlength=len(shares)).numpy()
    expected = [share * len(values) / sum(shares) for share in shares]
    assert stats.chisquare(observed, expected).pvalue > LIKELY


def test_kernels_of_the_first_pass(many):
    kernels = many.first.kernels
    assert_shares((kernels.sizes - 7) // 2, [1] * 8)  # 7, 9, ..., 21
    assert_shares(kernels.kinds, [0.45, 0.25, 0.12, 0.03, 0.12, 0.03])
    assert_shares(kernels.are_sinc, [0.9, 0.1])
    assert_uniform(kernels.angles, -math.pi, math.pi)
    assert_uniform(kernels.sigmas[:, 0], 0.2, 3.0)
    is_iso = kernels.kinds % 2 == 0
    assert torch.equal(kernels.sigmas[is_iso, 0], kernels.sigmas[is_iso, 1])
    assert_uniform(kernels.sigmas[~is_iso, 1], 0.2, 3.0)
    assert stats.pearsonr(*kernels.sigmas[~is_iso].T.numpy()).pvalue > LIKELY
    is_small = kernels.sizes < 13
    assert_uniform(kernels.cutoffs[is_small], math.pi / 3, math.pi)
    assert_uniform(kernels.cutoffs[~is_small], math.pi / 5, math.pi)


def test_shapes_of_the_kernels(many):
    kernels = many.first.kernels
    generalised = kernels.betas[(kernels.kinds == 2) | (kernels.kinds == 3)]
    below = generalised < 1
    assert_shares(below, [0.5, 0.5])
    assert_uniform(generalised[below], 0.5, 1)
    assert_uniform(generalised[~below], 1, 4)
    plateau = kernels.betas[kernels.kinds >= KERNEL_KINDS.index("plateau_iso")]
    assert_shares(plateau == 1, [0.5, 0.5])
    assert_uniform(plateau[plateau > 1], 1, 2)
    assert (kernels.betas[kernels.kinds < 2] == 1).all()


def test_shapes_stay_in_a_range_on_one_side_of_the_gaussian():
    """Regression: a range above 1 gave values between 1 and its lower end."""
    config = DegradationConfig(
        shared=NONE_SHARED, first=DegradationPass(kernels=KernelConfig(generalised_beta=(2.0, 4.0)))
    )
    kernels = draw_video(config, COUNT, 1024, torch.Generator().manual_seed(0)).first.kernels
    kind = KERNEL_KINDS.index("generalised_iso")
    assert_uniform(kernels.betas[kernels.kinds == kind], 2, 4)


@pytest.mark.parametrize(
    ("which", "up", "up_to", "down", "down_from"),
    [("first", 0.2, 1.5, 0.7, 0.15), ("second", 0.3, 1.2, 0.4, 0.3)],
)
def test_resizes(many, which, up, up_to, down, down_from):
    draws = getattr(many, which)
    factors = draws.resize_factors
    direction = (factors > 1).long() + 2 * (factors < 1).long()
    assert_shares(direction, [1 - up - down, up, down])
    assert_uniform(factors[factors > 1], 1, up_to)
    assert_uniform(factors[factors < 1], down_from, 1)
    assert_shares(draws.resize_modes, [1, 1, 1])


@pytest.mark.parametrize(
    ("which", "blur", "sigma", "scale"), [("first", 1.0, 30, 3.0), ("second", 0.8, 25, 2.5)]
)
def test_blur_noise_and_jpeg(many, which, blur, sigma, scale):
    draws = getattr(many, which)
    if blur == 1:
        assert draws.blurs.all()
    else:
        assert_shares(draws.blurs, [1 - blur, blur])
    assert draws.adds_noise.all()
    assert draws.compresses.all()
    assert_shares(draws.is_gaussian, [0.5, 0.5])
    assert_uniform(draws.gaussian_sigmas, 1, sigma)
    assert_uniform(draws.poisson_scales, 0.05, scale)
    assert_shares(draws.is_grey, [0.6, 0.4])
    assert_uniform(draws.jpeg_qualities, 30, 95)


def test_last_steps_and_second_kernels(many):
    assert_shares(many.jpeg_last, [0.5, 0.5])
    assert_shares(many.bottleneck_modes, [1, 1, 1])
    assert_shares(many.final_modes, [1, 1, 1])
    assert_shares(many.final_sinc.are_sinc, [0.2, 0.8])
    assert_uniform(many.final_sinc.cutoffs, math.pi / 3, math.pi)
    assert_shares((many.final_sinc.sizes - 7) // 2, [1] * 8)
    assert_uniform(many.second.kernels.sigmas[:, 0], 0.2, 1.5)


def test_masks(many):
    present = torch.stack([region.are_there for region in many.regions], dim=1)
    assert_shares(present.sum(dim=1), [0.5, 1 / 6, 1 / 6, 1 / 6])
    region = many.regions[0]
    assert_shares(region.kinds, [0.4, 0.4, 0.2])
    assert_uniform(region.places, 0, 1)
    assert_uniform(region.diameters, 0.05, 0.3)
    assert_uniform(region.displacements.norm(dim=1), 0.03, 0.15)
    assert_shares(region.frame_offsets.abs() - 1, [0.5, 0.5])
    assert_shares(region.frame_offsets > 0, [0.5, 0.5])
    waves = region.amplitudes[0]
    assert abs(float((waves.square().sum() / 2).sqrt()) - 0.2) < 1e-6


def test_share_of_degraded_videos():
    config = DegradationConfig(probability=0.3)
    generator = torch.Generator().manual_seed(0)
    happened = [draw_video(config, 1, 64, generator).is_degraded for _ in range(200)]
    assert_shares(torch.tensor(happened), [0.7, 0.3])


def is_constant(values: torch.Tensor) -> bool:
    return bool((values == values[:1]).all())


def parameters(draws: VideoDraws) -> dict[str, list[torch.Tensor]]:
    """Tensors by the kind of draw that `SharedDraws` names."""
    passes = [draws.first, draws.second]
    kernels = [p.kernels for p in passes]
    region = draws.regions[0]
    return {
        "masks": [region.are_there, region.places, region.diameters, region.phases],
        "steps": [draws.second.blurs],
        "kernels": [getattr(k, f.name) for k in kernels for f in dataclasses.fields(k)],
        "resize_factor": [p.resize_factors for p in passes],
        "resize_mode": [p.resize_modes for p in passes]
        + [draws.bottleneck_modes, draws.final_modes],
        "noise_kind": [p.is_gaussian for p in passes],
        "noise_strength": [x for p in passes for x in (p.gaussian_sigmas, p.poisson_scales)],
        "grey_noise": [p.is_grey for p in passes],
        "jpeg_quality": [p.jpeg_qualities for p in passes],
        "order": [draws.jpeg_last],
        "final_sinc": [
            draws.final_sinc.sizes,
            draws.final_sinc.are_sinc,
            draws.final_sinc.cutoffs,
        ],
    }


@pytest.mark.parametrize("kind", [f.name for f in dataclasses.fields(SharedDraws)])
def test_each_kind_is_shared_on_its_own(kind):
    """One kind shared and all others not; then the reverse."""
    for shared, others in ((True, NONE_SHARED), (False, ALL_SHARED)):
        config = DegradationConfig(shared=dataclasses.replace(others, **{kind: shared}))
        config.first.resize_up_probability, config.first.resize_down_probability = 0.0, 1.0
        config.second.resize_up_probability, config.second.resize_down_probability = 0.0, 1.0
        for name, tensors in parameters(
            draw_video(config, 64, 1024, torch.Generator().manual_seed(1))
        ).items():
            expected = shared if name == kind else not shared
            assert all(is_constant(values) == expected for values in tensors), name


def test_defaults_share_what_the_released_code_shares():
    """Kernels, noise strength and JPEG quality per frame; resize and noise kind per video."""
    config = DegradationConfig()
    draws = draw_video(config, 64, 1024, torch.Generator().manual_seed(0))
    per_video = {"steps", "resize_factor", "resize_mode", "noise_kind", "order"}
    for name, tensors in parameters(draws).items():
        assert all(is_constant(values) for values in tensors) == (name in per_video), name
