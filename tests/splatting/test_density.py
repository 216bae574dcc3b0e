from collections.abc import Callable

import pytest
import torch

from hi3d.cameras import orbit_cameras
from hi3d.splats import GaussianSplats
from hi3d.splatting import density
from hi3d.splatting.density import FitStep, change_density, density_control
from hi3d.splatting.fit import LEARNING_RATES
from hi3d.splatting.initialization import initial_splats
from hi3d.splatting.losses import loss_view
from hi3d.splatting.parameters import SplatParameters
from hi3d.splatting.rasterization.render import rasterize
from hi3d.views import Views


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
    generator = torch.Generator().manual_seed(0)

    changed, source, is_new = change_density(splats, gradients, 100, True, generator)
    assert source.tolist() == [2, 3, 4, 3, 2]
    assert is_new.tolist() == [False, True, False, True, True]
    expected = [0.005, 0.05 / 1.6, 0.05, 0.05 / 1.6, 0.005]
    assert changed.scales[:, 0].tolist() == pytest.approx(expected)
    moved = changed.means.norm(dim=-1) > 0
    assert moved.tolist() == [False, True, False, True, False]

    _, source, _ = change_density(splats, gradients, 4, True, generator)
    assert source.tolist() == [2, 3, 4, 3]  # room for one: the largest gradient
    _, source, _ = change_density(splats, gradients, 100, False, generator)
    assert source.tolist() == [2, 3, 4]


@pytest.mark.parametrize(
    ("strategy", "device"),
    [
        ("capped", "cpu"),
        ("gsplat", "cpu"),  # its class runs on the CPU too; fits use it on CUDA
        pytest.param(
            "mcmc",
            "cuda",
            marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"),
        ),
    ],
)
def test_policies_grow_up_to_the_limit(
    strategy: density.DensityStrategy,
    device: str,
    ball_views: Callable[..., Views],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(density, "EVERY", 5)
    monkeypatch.setattr(density, "STOP", 0.9)
    monkeypatch.setattr(density, "GROW_GRADIENT", 1e-6)
    views = ball_views(orbit_cameras(20, 24, 4), 4).to(device)
    results = []
    for _ in range(2):
        generator = torch.Generator(device).manual_seed(1)
        points = 0.2 * torch.randn(150, 3, generator=generator, device=device)
        splats = initial_splats(points, torch.full_like(points, 0.5), 0.1, 1)
        parameters = SplatParameters(splats, LEARNING_RATES)
        control = density_control(strategy, 30, 200, generator)
        for number in range(30):
            target = views[number % 4]
            rendered = rasterize(parameters.splats(), target.cameras)
            rendered.means2d.retain_grad()
            loss_view(rendered.rgb, rendered.alpha, target.rgb, target.alpha).backward()
            parameters.step()
            control.after_step(parameters, FitStep(number, rendered, (24, 24)))
        assert 150 < len(parameters) <= 200
        results.append(parameters.splats().means.detach())
    assert len(results[0]) == len(results[1])
    if device == "cpu":  # gradients on CUDA are sums in any order
        assert torch.equal(*results)
