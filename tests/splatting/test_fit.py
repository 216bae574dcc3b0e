import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from hi3d.cameras import between_views, orbit_cameras
from hi3d.errors import InputError
from hi3d.splats import GaussianSplats
from hi3d.splatting import density
from hi3d.splatting.fit import (
    LEARNING_RATES,
    FitTargets,
    SplatConfig,
    crop_to_object,
    fit_splats,
    render_between_views,
)
from hi3d.splatting.initialization import InitialPoints, initial_splats, rotations_to
from hi3d.splatting.rasterization.projection import rotation_matrices
from hi3d.splatting.rasterization.render import rasterize
from hi3d.surface.initial_points import SURFACE_SHARE, initial_points
from hi3d.views import Views

BallViews = Callable[..., Views]


def fit(
    views: Views,
    config: SplatConfig,
    seed: int = 0,
    hull_resolution: int = 12,
    surface_share: float = SURFACE_SHARE,
) -> GaussianSplats:
    """A fit from the hull on."""
    generator = torch.Generator().manual_seed(seed)
    points = initial_points(views, config.num_initial, generator, hull_resolution, surface_share)
    return fit_splats(views, points, config, generator)


def psnr(predicted: Tensor, target: Tensor) -> float:
    return -10 * math.log10((predicted.clamp(0, 1) - target).square().mean().item())


def test_rotations_to_all_directions() -> None:
    axes = torch.cat([torch.eye(3), -torch.eye(3), torch.zeros(1, 3)])
    turned = rotation_matrices(rotations_to(axes))[:, :, 2]
    expected = torch.cat([axes[:6], torch.tensor([[0.0, 0, 1]])])
    torch.testing.assert_close(turned, expected, rtol=0, atol=1e-6)


def test_crop_shows_the_same_pixels(ball_views: BallViews) -> None:
    view = ball_views(orbit_cameras(20, 96, 4), 4)[1]
    crop = crop_to_object(view, 8)
    assert crop.cameras.width % 16 == 0
    assert crop.cameras.width < 96
    assert crop.alpha.sum().item() == pytest.approx(view.alpha.sum().item())
    left = round((view.cameras.Ks - crop.cameras.Ks)[0, 0, 2].item())
    top = round((view.cameras.Ks - crop.cameras.Ks)[0, 1, 2].item())
    generator = torch.Generator().manual_seed(0)
    points = 0.1 * torch.randn(50, 3, generator=generator)
    splats = initial_splats(points, torch.rand(50, 3, generator=generator), 0.5, 0)
    whole, part = (rasterize(splats, c).rgb for c in (view.cameras, crop.cameras))
    expected = whole[..., top : top + crop.cameras.height, left : left + crop.cameras.width]
    torch.testing.assert_close(part, expected, rtol=0, atol=1e-4)
    empty = Views(view.rgb, torch.zeros_like(view.alpha), view.cameras)
    assert crop_to_object(empty, 8) is empty


def test_fit_of_a_sphere_shows_unseen_views(ball_views: BallViews) -> None:
    cameras = orbit_cameras(20, 32, 8)
    views = ball_views(cameras, 4)
    truth = ball_views(between_views(cameras, 8), 4)
    before = fit(views, SplatConfig(steps=0, num_initial=600), 0, 24, surface_share=0.0)
    splats = fit(views, SplatConfig(steps=120, num_initial=600, max_splats=900), 0, 24)
    rendered = render_between_views(splats, cameras, 8)
    assert torch.equal(rendered.cameras.viewmats, truth.cameras.viewmats)
    initial = psnr(render_between_views(before, cameras, 8).rgb, truth.rgb)
    assert psnr(rendered.rgb, truth.rgb) > max(25, initial + 8)
    assert (rendered.alpha - truth.alpha).abs().mean() < 0.05
    assert not splats.means.requires_grad
    assert len(splats) <= 900


def test_fit_repeats_with_its_seed(ball_views: BallViews, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(density, "EVERY", 2)
    monkeypatch.setattr(density, "GROW_GRADIENT", 0.0)
    views = ball_views(orbit_cameras(20, 16, 4), 4)
    config = SplatConfig(steps=6, num_initial=50, sh_degree=1)
    first, second = (fit(views, config, seed=3) for _ in range(2))
    assert torch.equal(first.means, second.means)
    assert len(first) > 50
    assert first.sh.shape[1] == 4


def test_fit_starts_from_given_points(ball_views: BallViews) -> None:
    views = ball_views(orbit_cameras(20, 16, 4), 4)
    points = InitialPoints(0.3 * torch.eye(3), colors=torch.eye(3))
    splats = fit_splats(views, points, SplatConfig(steps=2), torch.Generator().manual_seed(0))
    # A step of Adam moves a coordinate by no more than the learning rate at the start.
    assert (splats.means - points.means).abs().max() <= 2.1 * LEARNING_RATES["means"]
    assert (splats.sh[:, 0] * 0.28209479 + 0.5 - torch.eye(3)).abs().max() < 0.02
    with pytest.raises(ValueError, match="normals must be"):
        InitialPoints(torch.eye(3), normals=torch.zeros(2, 3))
    with pytest.raises(ValueError, match="means must be"):
        InitialPoints(torch.zeros(0, 3))


@pytest.mark.parametrize("strategy", ["gsplat", "mcmc"])
def test_strategies_of_gsplat_need_cuda(strategy: str, ball_views: BallViews) -> None:
    views = ball_views(orbit_cameras(20, 16, 4), 4)
    with pytest.raises(InputError, match=f"splats.density is {strategy}: without CUDA"):
        fit(views, SplatConfig(steps=1, num_initial=10, density=strategy))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("steps", -1),
        ("steps", math.nan),
        ("num_initial", 0),
        ("max_splats", math.inf),
        ("sh_degree", 4),
        ("density", "adc"),
        ("backend", "opengl"),
    ],
)
def test_settings_out_of_their_range_are_one_line(key: str, value: object) -> None:
    with pytest.raises(InputError, match=rf"^splats\.{key} is {value}: give "):
        SplatConfig(**{key: value})


def test_no_interpolated_views() -> None:
    views = render_between_views(
        initial_splats(torch.eye(3), torch.eye(3), 0.5, 0), orbit_cameras(20, 8, 4), 0
    )
    assert views.rgb.shape == (0, 3, 8, 8)


def test_torch_and_native_fits_agree(ball_views: BallViews) -> None:
    views = ball_views(orbit_cameras(20, 16, 4), 4)
    auto = fit(views, SplatConfig(steps=4, num_initial=60))
    twin = fit(views, SplatConfig(steps=4, num_initial=60, backend="torch"))
    # Not the parameters: round Gaussians have no gradient by rotation, so theirs is rounding noise.
    images = [rasterize(splats, views.cameras).rgb for splats in (auto, twin)]
    torch.testing.assert_close(*images, rtol=0, atol=0.01)


def test_targets_are_crops_that_count_as_parts_of_the_whole(ball_views):
    views = ball_views(orbit_cameras(20, 64, 4))
    targets = FitTargets(views, 2)
    whole, crop = targets.of(1, whole=True), targets.of(1, whole=False)
    assert whole.rgb.shape[-2:] == (64, 64)
    assert crop.rgb.shape[-1] < 64
    assert targets.share_of(whole) == 1
    # The sum of alpha is the same, so the mean times the share is.
    expected = whole.alpha.mean().item()
    assert crop.alpha.mean().item() * targets.share_of(crop) == pytest.approx(expected, rel=1e-5)
    assert targets.of(1, whole=False) is crop
