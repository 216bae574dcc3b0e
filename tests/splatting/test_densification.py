import math

import pytest
import torch

from hi3d.splats import GaussianSplats
from hi3d.splatting.densification import (
    DensifyConfig,
    change_density,
    mcmc_noise,
    relocate_splats,
    share_opacity,
)


def test_density_control_by_hand() -> None:
    # 0 faint, 1 huge, 2 small with a large gradient, 3 large with one, 4 content.
    scales = torch.tensor([0.005, 0.5, 0.005, 0.05, 0.05])
    splats = GaussianSplats(
        means=torch.zeros(5, 3),
        quats=torch.tensor([[1.0, 0, 0, 0]]).repeat(5, 1),
        log_scales=scales.log()[:, None].repeat(1, 3),
        logit_opacities=torch.logit(torch.tensor([0.001, 0.5, 0.5, 0.5, 0.5])),
        sh=torch.zeros(5, 1, 3),
    )
    gradients = torch.tensor([1.0, 1.0, 1.0, 2.0, 0.0])
    config = DensifyConfig(grow_gradient=0.5, split_scale=0.01, min_opacity=0.01, max_scale=0.2)
    generator = torch.Generator().manual_seed(0)

    changed, source, is_new = change_density(splats, gradients, config, 100, True, generator)
    assert source.tolist() == [2, 3, 4, 3, 2]
    assert is_new.tolist() == [False, True, False, True, True]
    expected = [0.005, 0.05 / 1.6, 0.05, 0.05 / 1.6, 0.005]
    assert changed.scales[:, 0].tolist() == pytest.approx(expected)
    moved = changed.means.norm(dim=-1) > 0
    assert moved.tolist() == [False, True, False, True, False]

    _, source, _ = change_density(splats, gradients, config, 4, True, generator)
    assert source.tolist() == [2, 3, 4, 3]  # room for one: the largest gradient
    _, source, _ = change_density(splats, gradients, config, 100, False, generator)
    assert source.tolist() == [2, 3, 4]


def test_copies_share_opacity() -> None:
    # Two layers of opacity 1 - sqrt(1 - 0.75) = 0.5 let through as much as one of 0.75. The light
    # that passes beside the centre is the same where 0.5 + 0.5 - 0.25 / sqrt(2) is 0.75 / factor.
    shared, factor = share_opacity(torch.tensor([0.75, 0.3]), torch.tensor([2, 1]))
    assert shared.tolist() == pytest.approx([0.5, 0.3])
    assert factor.tolist() == pytest.approx([0.75 / (1 - 0.25 / math.sqrt(2)), 1.0])


def test_relocation_by_hand() -> None:
    # 0 is dead, 1 strong, 2 nearly as faint as 0: all copies come from 1 and 2.
    splats = GaussianSplats(
        means=torch.eye(3),
        quats=torch.tensor([[1.0, 0, 0, 0]]).repeat(3, 1),
        log_scales=torch.full((3, 3), -3.0),
        logit_opacities=torch.logit(torch.tensor([0.001, 0.9, 0.0201])),
        sh=torch.zeros(3, 1, 3),
    )
    config = DensifyConfig(strategy="mcmc", min_opacity=0.02, mcmc_growth=0.5)
    generator = torch.Generator().manual_seed(0)
    moved, source, is_new = relocate_splats(splats, config, 4, generator)
    assert len(moved) == 4  # half of 3 is one more
    assert (source != 0).all()
    assert torch.equal(moved.means, splats.means[source])
    for old in (1, 2):
        copies = source == old
        through = (1 - moved.opacities[copies]).prod()
        if old == 1:
            assert through.item() == pytest.approx(1 - splats.opacities[old].item(), rel=1e-4)
        assert is_new[copies].all() == (copies.sum() > 1)
    none_left = relocate_splats(splats, config, 2, generator)[0]
    assert len(none_left) == 3  # the dead one still moves


def test_noise_moves_only_faint_gaussians_and_along_them() -> None:
    splats = GaussianSplats(
        means=torch.zeros(2, 3),
        quats=torch.tensor([[1.0, 0, 0, 0]]).repeat(2, 1),
        log_scales=torch.tensor([1.0, 1e-3, 1e-3]).log().repeat(2, 1),
        logit_opacities=torch.logit(torch.tensor([1e-6, 0.9])),
        sh=torch.zeros(2, 1, 3),
    )
    noise = mcmc_noise(splats, 1.0, torch.Generator().manual_seed(0)).abs()
    assert noise[0, 0] > 1e3 * noise[0, 1:].max()
    assert noise[1].max() < 1e-20
