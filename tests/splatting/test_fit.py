import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hi3d.cameras import Cameras, between_views, orbit_cameras
from hi3d.errors import InputError
from hi3d.evaluation.lpips import Lpips, LpipsConfig, LpipsNetwork
from hi3d.splatting.densification import DensifyConfig
from hi3d.splatting.fit import (
    FitTargets,
    SplatConfig,
    between_cameras,
    crop_to_object,
    fit_splats,
    render_between_views,
)
from hi3d.splatting.initialization import (
    fog_points,
    hull_points,
    initial_hull,
    initial_splats,
    mean_colors,
    rotations_to,
)
from hi3d.splatting.losses import SplatLossConfig, loss_color
from hi3d.splatting.rasterization.projection import rotation_matrices
from hi3d.splatting.rasterization.render import rasterize
from hi3d.views import Views

BallViews = Callable[..., Views]
RADIUS = 0.4  # of the ball


def psnr(predicted: Tensor, target: Tensor) -> float:
    return -10 * math.log10((predicted.clamp(0, 1) - target).square().mean().item())


def test_hull_points_fill_the_sphere_and_take_its_colors(ball_views: BallViews) -> None:
    views = ball_views(orbit_cameras(20, 32, 8), 4)
    hull = initial_hull(views, 0.55, 32)
    points, normals = hull_points(hull, 2000, 0.0, 0.55, torch.Generator().manual_seed(0))
    assert normals.abs().max() == 0
    distance = points.norm(dim=-1)
    inside = (distance < RADIUS).float().mean()
    assert inside > 0.85  # the hull of 8 views bulges a little
    # Through the volume: half of a ball's points lie beyond 0.794 of its radius.
    assert 0.35 < (distance[distance < RADIUS] < 0.794 * RADIUS).float().mean() < 0.65
    colors = mean_colors(views, points)
    assert colors.min() >= 0
    assert colors.max() <= 1
    # Red grows with x, but each point is coloured by views from all sides: the trend remains.
    assert torch.corrcoef(torch.stack([colors[:, 2], points[:, 2]]))[0, 1] > 0.5


def test_discs_lie_on_the_hull(ball_views: BallViews) -> None:
    hull = initial_hull(ball_views(orbit_cameras(20, 48, 16), 4), 0.55, 32)
    points, normals = hull_points(hull, 1000, 0.7, 0.55, torch.Generator().manual_seed(0))
    discs = normals.norm(dim=-1) > 0
    assert discs.sum() == 700
    assert discs[:700].all()
    # Around the equator the hull of a ball is the ball.
    low = discs & (points[:, 2].abs() < 0.2)
    assert low.sum() > 100
    assert (points[low].norm(dim=-1) - RADIUS).abs().max() < 0.05
    outward = points[low] / points[low].norm(dim=-1, keepdim=True)
    assert ((normals[low] * outward).sum(-1) > 0.7).float().mean() > 0.95
    splats = initial_splats(points, torch.rand(1000, 3), 0.1, 0, normals)
    thin = rotation_matrices(splats.quats)[:, :, 2]
    torch.testing.assert_close(thin[discs], normals[discs], rtol=0, atol=1e-4)
    assert (splats.scales[discs, 2] < 0.11 * splats.scales[discs, 0]).all()
    assert (splats.scales[~discs, 2] == splats.scales[~discs, 0]).all()


def test_rotations_to_all_directions() -> None:
    axes = torch.cat([torch.eye(3), -torch.eye(3), torch.zeros(1, 3)])
    turned = rotation_matrices(rotations_to(axes))[:, :, 2]
    expected = torch.cat([axes[:6], torch.tensor([[0.0, 0, 1]])])
    torch.testing.assert_close(turned, expected, rtol=0, atol=1e-6)


def test_points_outside_the_image_are_unknown_not_empty(ball_views: BallViews) -> None:
    cameras = orbit_cameras(20, 32, 4)
    # A field of view so narrow that the sphere covers the whole of every image.
    narrow = Cameras(cameras.viewmats, cameras.Ks * torch.tensor([6.0, 6.0, 1.0])[:, None], 32, 32)
    shifted = narrow.Ks.clone()
    shifted[:, :2, 2] = 16
    views = ball_views(Cameras(narrow.viewmats, shifted, 32, 32), 4)
    assert views.alpha.min() == 1
    points = fog_points(initial_hull(views, 0.55, 16), 500, 0.55, torch.Generator().manual_seed(0))
    assert points.norm(dim=-1).max() > 0.3


def test_no_object_is_an_input_error() -> None:
    cameras = orbit_cameras(20, 16, 3)
    views = Views(torch.ones(3, 3, 16, 16), torch.zeros(3, 1, 16, 16), cameras)
    with pytest.raises(InputError, match="no view shows an object"):
        fit_splats(views, SplatConfig(steps=1, hull_resolution=16))


@pytest.mark.parametrize("strategy", ["gsplat", "mcmc"])
def test_other_strategies_fit_too(strategy: str, ball_views: BallViews) -> None:
    cameras = orbit_cameras(20, 24, 4)
    views = ball_views(cameras, 4)
    densify = DensifyConfig(strategy=strategy, start=0.1, stop=0.9, every=5, grow_gradient=1e-6)
    config = SplatConfig(
        steps=30, num_initial=150, max_splats=200, hull_resolution=12, sh_degree=1, densify=densify
    )
    splats = fit_splats(views, config, seed=1)
    assert 150 < len(splats) <= 200
    shown = rasterize(splats, cameras).rgb
    assert psnr(shown, views.rgb) > 15
    assert torch.equal(fit_splats(views, config, seed=1).means, splats.means)


def test_a_black_view_of_weight_zero_is_not_looked_at(ball_views: BallViews) -> None:
    views = ball_views(orbit_cameras(20, 16, 4), 4)
    rgb, alpha = views.rgb.clone(), views.alpha.clone()
    rgb[2], alpha[2] = 0, 0  # would leave no visual hull
    config = SplatConfig(steps=6, num_initial=50, hull_resolution=12)
    weights = torch.tensor([1.0, 1, 0, 1])
    broken = fit_splats(Views(rgb, alpha, views.cameras), config, view_weights=weights)
    whole = fit_splats(views, config, view_weights=weights)
    assert torch.equal(broken.means, whole.means)
    with pytest.raises(InputError, match="weight 0"):
        fit_splats(views, config, view_weights=torch.zeros(4))
    with pytest.raises(InputError, match="sh_degree=4"):
        fit_splats(views, SplatConfig(sh_degree=4))


def test_robust_options_run_together(ball_views: BallViews) -> None:
    views = ball_views(orbit_cameras(20, 16, 4), 4)
    loss = SplatLossConfig(pixel="trimmed", lambda_opacity=0.01, lambda_scale=0.01)
    config = SplatConfig(
        steps=8, num_initial=50, hull_resolution=12, antialiased=True, color_affine=True,
        adaptive_view_weights=True, loss=loss,
    )  # fmt: skip
    splats = fit_splats(views, config)
    assert all(torch.isfinite(tensor).all() for tensor in splats.tensors().values())


def test_lpips_is_added_to_the_loss(
    ball_views: BallViews, random_lpips_backbone: Callable[..., object], tmp_path: Path
) -> None:
    random_lpips_backbone(LpipsNetwork.alex, tmp_path / "alex.pth")
    network = LpipsConfig(LpipsNetwork.alex, str(tmp_path / "alex.pth"))
    with_lpips = SplatLossConfig(lambda_lpips=0.5, lpips=network)
    views, lpips = ball_views(orbit_cameras(20, 40, 4), 4), Lpips(network)
    other_rgb = views.rgb.flip(1)  # blue for red
    distance = lpips(views.rgb, other_rgb).mean()
    plain = loss_color(views.rgb, other_rgb, SplatLossConfig())
    total = loss_color(views.rgb, other_rgb, with_lpips, lpips)
    assert distance > 1e-3
    assert total.item() == pytest.approx(plain.item() + 0.5 * distance.item(), rel=1e-5)

    fits = [
        fit_splats(views, SplatConfig(steps=6, num_initial=50, hull_resolution=12, loss=loss))
        for loss in (SplatLossConfig(), with_lpips)
    ]
    assert torch.isfinite(fits[1].means).all()
    assert not torch.equal(fits[0].means, fits[1].means)


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


@pytest.mark.parametrize("num_views", [3, 16, 20])
def test_views_between_at_other_elevations(num_views: int) -> None:
    cameras = orbit_cameras(20, 8, 16)
    between = between_cameras(cameras, num_views, (-10.0, 50.0))
    assert len(between) == 3 * num_views
    elevation = between.elevation_deg.view(3, num_views)
    expected = torch.tensor([20.0, -10.0, 50.0])[:, None].expand(3, num_views)
    torch.testing.assert_close(elevation, expected, rtol=0, atol=1e-3)
    azimuth = between.azimuth_deg.view(3, num_views)
    torch.testing.assert_close(azimuth, azimuth[:1].expand(3, num_views), rtol=0, atol=1e-3)
    assert between.positions.norm(dim=-1).tolist() == pytest.approx([1.5] * 3 * num_views)
    with pytest.raises(InputError, match="elevation 90"):
        between_cameras(cameras, 4, (90.0,))


def test_fit_of_a_sphere_shows_unseen_views(ball_views: BallViews) -> None:
    cameras = orbit_cameras(20, 32, 8)
    views = ball_views(cameras, 4)
    truth = ball_views(between_views(cameras, 8), 4)
    config = SplatConfig(steps=120, num_initial=600, max_splats=900, hull_resolution=24)
    fog = SplatConfig(steps=0, num_initial=600, hull_resolution=24, surface_share=0)
    before = fit_splats(views, fog)
    splats = fit_splats(views, config, seed=0)
    rendered = render_between_views(splats, cameras, 8)
    assert torch.equal(rendered.cameras.viewmats, truth.cameras.viewmats)
    initial = psnr(render_between_views(before, cameras, 8).rgb, truth.rgb)
    assert psnr(rendered.rgb, truth.rgb) > max(25, initial + 8)
    assert (rendered.alpha - truth.alpha).abs().mean() < 0.05
    assert not splats.means.requires_grad
    assert len(splats) <= config.max_splats


def test_fit_repeats_with_its_seed(ball_views: BallViews) -> None:
    views = ball_views(orbit_cameras(20, 16, 4), 4)
    config = SplatConfig(
        steps=6,
        num_initial=50,
        hull_resolution=12,
        sh_degree=1,
        densify=DensifyConfig(start=0.2, every=2, grow_gradient=0.0),
    )
    first, second = (fit_splats(views, config, seed=3) for _ in range(2))
    assert torch.equal(first.means, second.means)
    assert len(first) > 50
    assert first.sh.shape[1] == 4


def test_fit_starts_from_given_points(ball_views: BallViews) -> None:
    views = ball_views(orbit_cameras(20, 16, 4), 4)
    config = SplatConfig(steps=2, lr_means=1e-3, densify=DensifyConfig(enabled=False))
    points = 0.3 * torch.eye(3)
    splats = fit_splats(views, config, init_points=points, init_colors=torch.eye(3))
    # A step of Adam moves a coordinate by no more than the learning rate at the start.
    assert (splats.means - points).abs().max() <= 2.1e-3
    assert (splats.sh[:, 0] * 0.28209479 + 0.5 - torch.eye(3)).abs().max() < 0.02


def test_no_interpolated_views() -> None:
    views = render_between_views(
        initial_splats(torch.eye(3), torch.eye(3), 0.5, 0), orbit_cameras(20, 8, 4), 0
    )
    assert views.rgb.shape == (0, 3, 8, 8)


def test_torch_and_native_fits_agree(ball_views: BallViews) -> None:
    views = ball_views(orbit_cameras(20, 16, 4), 4)
    config = SplatConfig(steps=4, num_initial=60, hull_resolution=12)
    auto = fit_splats(views, config)
    config.backend = "torch"
    twin = fit_splats(views, config)
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
