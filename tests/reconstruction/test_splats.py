import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from hi3d.cameras import Cameras, between_views, orbit_cameras
from hi3d.errors import InputError
from hi3d.reconstruction.densification import (
    DensifyConfig,
    change_density,
    mcmc_noise,
    relocate_splats,
    share_opacity,
)
from hi3d.reconstruction.rasterization.render import rasterize
from hi3d.reconstruction.splat_initialization import hull_points, initial_splats, mean_colors
from hi3d.reconstruction.splat_losses import (
    SplatLossConfig,
    ViewColors,
    ViewWeights,
    loss_pixels,
    loss_size,
)
from hi3d.reconstruction.splats import (
    GaussianSplats,
    SplatConfig,
    between_cameras,
    crop_to_object,
    fit_splats,
    render_between_views,
)
from hi3d.views import Views

RADIUS = 0.4


def sphere_views(cameras: Cameras) -> Views:
    """Views of a sphere of radius 0.4 whose colour is 0.5 + position, with 4x4 rays a pixel."""
    fine = cameras.resized(4 * cameras.width, 4 * cameras.height)
    rgb, alpha = [], []
    for view in range(len(cameras)):
        origins, directions = fine.rays(view)
        along = -(origins * directions).sum(-1)
        nearest_squared = (origins * origins).sum(-1) - along * along
        hit = nearest_squared < RADIUS**2
        distance = along - (RADIUS**2 - nearest_squared).clamp(min=0).sqrt()
        position = origins + distance[..., None] * directions
        color = torch.where(hit[..., None], 0.5 + position, torch.ones_like(position))
        rgb.append(color.permute(2, 0, 1))
        alpha.append(hit[None].float())
    pixels = [torch.nn.functional.avg_pool2d(torch.stack(t), 4) for t in (rgb, alpha)]
    return Views(pixels[0].clamp(0, 1), pixels[1], cameras)


def psnr(predicted: Tensor, target: Tensor) -> float:
    return -10 * math.log10((predicted.clamp(0, 1) - target).square().mean().item())


def some_splats(num: int, num_harmonics: int) -> GaussianSplats:
    generator = torch.Generator().manual_seed(0)
    return GaussianSplats(
        means=torch.randn(num, 3, generator=generator),
        quats=torch.nn.functional.normalize(torch.randn(num, 4, generator=generator), dim=-1),
        log_scales=torch.randn(num, 3, generator=generator),
        logit_opacities=torch.randn(num, generator=generator),
        sh=torch.randn(num, num_harmonics, 3, generator=generator),
    )


@pytest.mark.parametrize("num_harmonics", [1, 4, 16])
def test_ply_round_trip(tmp_path: Path, num_harmonics: int) -> None:
    splats = some_splats(7, num_harmonics)
    splats.save_ply(tmp_path / "splats.ply")
    loaded = GaussianSplats.load_ply(tmp_path / "splats.ply")
    for name, tensor in splats.tensors().items():
        torch.testing.assert_close(getattr(loaded, name), tensor)
    assert loaded.sh_degree == round(math.sqrt(num_harmonics)) - 1


def test_ply_layout(tmp_path: Path) -> None:
    splats = some_splats(2, 4)
    splats.save_ply(tmp_path / "splats.ply")
    header, body = (tmp_path / "splats.ply").read_bytes().split(b"end_header\n", 1)
    lines = header.decode().splitlines()
    assert lines[:3] == ["ply", "format binary_little_endian 1.0", "element vertex 2"]
    names = [line.removeprefix("property float ") for line in lines[3:]]
    assert names == [
        *("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"),
        *(f"f_rest_{i}" for i in range(9)),
        *("opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
    ]
    row = np.frombuffer(body, "<f4").reshape(2, len(names))[1]
    column = dict(zip(names, row, strict=True))
    # f_rest is channel-major: the first three are red of harmonics 1 to 3, then green.
    assert column["f_rest_1"] == splats.sh[1, 2, 0].item()
    assert column["f_rest_3"] == splats.sh[1, 1, 1].item()
    assert column["rot_0"] == pytest.approx(splats.quats[1, 0].item())
    assert column["opacity"] == splats.logit_opacities[1].item()


def test_ply_of_another_program_and_bad_files(tmp_path: Path) -> None:
    splats = some_splats(3, 1)
    path = tmp_path / "splats.ply"
    splats.save_ply(path)
    content = path.read_bytes()
    header, body = content.split(b"end_header\n", 1)
    rows = np.frombuffer(body, "<f4").reshape(3, -1)
    extra = np.concatenate([rows, np.ones((3, 1), "<f4")], axis=1).tobytes()
    path.write_bytes(header + b"property float filter_3D\nend_header\n" + extra)
    torch.testing.assert_close(GaussianSplats.load_ply(path).means, splats.means)

    path.write_bytes(content[:-5])
    with pytest.raises(InputError, match="cut off"):
        GaussianSplats.load_ply(path)
    path.write_bytes(content.replace(b"opacity", b"density"))
    with pytest.raises(InputError, match="no property 'opacity'"):
        GaussianSplats.load_ply(path)
    path.write_bytes(content.replace(b"vertex 3", b"vertex many"))
    with pytest.raises(InputError, match="how many vertices"):
        GaussianSplats.load_ply(path)
    path.write_bytes(content.replace(b"float nx", b"float f_rest_0"))
    with pytest.raises(InputError, match="degree 3"):
        GaussianSplats.load_ply(path)
    path.write_bytes(b"solid cube")
    with pytest.raises(InputError, match="PLY"):
        GaussianSplats.load_ply(path)
    with pytest.raises(InputError, match="cannot read"):
        GaussianSplats.load_ply(tmp_path / "absent.ply")


def test_hull_points_fill_the_sphere_and_take_its_colors() -> None:
    views = sphere_views(orbit_cameras(20, 32, 8))
    points = hull_points(views, 2000, 0.55, 32, torch.Generator().manual_seed(0))
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


def test_points_outside_the_image_are_unknown_not_empty() -> None:
    cameras = orbit_cameras(20, 32, 4)
    # A field of view so narrow that the sphere covers the whole of every image.
    narrow = Cameras(cameras.viewmats, cameras.Ks * torch.tensor([6.0, 6.0, 1.0])[:, None], 32, 32)
    shifted = narrow.Ks.clone()
    shifted[:, :2, 2] = 16
    views = sphere_views(Cameras(narrow.viewmats, shifted, 32, 32))
    assert views.alpha.min() == 1
    points = hull_points(views, 500, 0.55, 16, torch.Generator().manual_seed(0))
    assert points.norm(dim=-1).max() > 0.3


def test_no_object_is_an_input_error() -> None:
    cameras = orbit_cameras(20, 16, 3)
    views = Views(torch.ones(3, 3, 16, 16), torch.zeros(3, 1, 16, 16), cameras)
    with pytest.raises(InputError, match="no object"):
        fit_splats(views, SplatConfig(steps=1, hull_resolution=16))


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


@pytest.mark.parametrize("strategy", ["gsplat", "mcmc"])
def test_other_strategies_fit_too(strategy: str) -> None:
    cameras = orbit_cameras(20, 24, 4)
    views = sphere_views(cameras)
    densify = DensifyConfig(strategy=strategy, start=0.1, stop=0.9, every=5, grow_gradient=1e-6)
    config = SplatConfig(
        steps=30, num_initial=150, max_splats=200, hull_resolution=12, sh_degree=1, densify=densify
    )
    splats = fit_splats(views, config, seed=1)
    assert 150 < len(splats) <= 200
    shown = rasterize(splats, cameras).rgb
    assert psnr(shown, views.rgb) > 15
    assert torch.equal(fit_splats(views, config, seed=1).means, splats.means)


def test_pixel_losses_by_hand() -> None:
    difference = torch.tensor([0.0, 0.0, 0.04, 0.8]).view(1, 1, 2, 2)
    zero = torch.zeros_like(difference)

    def loss(**settings: object) -> float:
        return loss_pixels(difference, zero, SplatLossConfig(**settings)).item()

    assert loss() == pytest.approx(0.21)
    # sqrt(0.04^2 + 0.03^2) = 0.05.
    expected = (0.02 + math.hypot(0.8, 0.03) - 0.03) / 4
    assert loss(pixel="charbonnier", charbonnier_eps=0.03) == pytest.approx(expected)
    assert loss(pixel="trimmed", trim_share=0.25) == pytest.approx(0.01)
    splats = some_splats(4, 1)
    config = SplatLossConfig(lambda_opacity=2.0, lambda_scale=3.0)
    expected = 2 * splats.opacities.mean() + 3 * splats.scales.mean()
    assert loss_size(splats, config).item() == pytest.approx(expected.item())


def test_view_colors_find_a_tint_and_keep_the_mean() -> None:
    colors = ViewColors(2, 0.02, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    alpha = torch.ones(1, 1, 8, 8)
    alpha[..., 4:] = 0
    foreground = torch.rand(1, 3, 8, 8, generator=generator) * alpha
    rgb = foreground + (1 - alpha)
    assert torch.equal(colors.apply(0, rgb, alpha), rgb)
    tints = [rgb + 0.1 * foreground, rgb - 0.1 * foreground]
    for step in range(200):
        view = step % 2
        loss = (colors.apply(view, rgb, alpha) - tints[view]).square().mean()
        loss.backward()
        colors.step()
    for view in range(2):
        shown = colors.apply(view, rgb, alpha)
        assert (shown - tints[view]).abs().max() < 0.02
        assert torch.equal(shown[..., 4:], rgb[..., 4:])  # the background is no object
    both = [colors.apply(view, rgb, alpha) for view in range(2)]
    torch.testing.assert_close(sum(both) / 2, rgb, rtol=0, atol=1e-5)


def test_weights_of_views_by_hand() -> None:
    weights = ViewWeights(3)
    assert [weights.weight(0, 0.1), weights.weight(1, 0.1)] == [1.0, 1.0]
    assert weights.weight(2, 0.5) == pytest.approx(0.04)  # (0.1 / 0.5)^2
    assert weights.weight(0, 0.05) == 1.0


def test_a_black_view_of_weight_zero_is_not_looked_at() -> None:
    views = sphere_views(orbit_cameras(20, 16, 4))
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


def test_robust_options_run_together() -> None:
    views = sphere_views(orbit_cameras(20, 16, 4))
    loss = SplatLossConfig(pixel="trimmed", lambda_opacity=0.01, lambda_scale=0.01)
    config = SplatConfig(
        steps=8, num_initial=50, hull_resolution=12, antialiased=True, color_affine=True,
        adaptive_view_weights=True, loss=loss,
    )  # fmt: skip
    splats = fit_splats(views, config)
    assert all(torch.isfinite(tensor).all() for tensor in splats.tensors().values())


def test_crop_shows_the_same_pixels() -> None:
    view = sphere_views(orbit_cameras(20, 96, 4))[1]
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


def test_fit_of_a_sphere_shows_unseen_views() -> None:
    cameras = orbit_cameras(20, 32, 8)
    views = sphere_views(cameras)
    truth = sphere_views(between_views(cameras, 8))
    config = SplatConfig(steps=120, num_initial=600, max_splats=900, hull_resolution=24)
    generator = torch.Generator().manual_seed(0)
    points = hull_points(views, 600, 0.55, 24, generator)
    before = initial_splats(points, mean_colors(views, points), 0.1, 0)
    splats = fit_splats(views, config, seed=0)
    rendered = render_between_views(splats, cameras, 8)
    assert torch.equal(rendered.cameras.viewmats, truth.cameras.viewmats)
    initial = psnr(render_between_views(before, cameras, 8).rgb, truth.rgb)
    assert psnr(rendered.rgb, truth.rgb) > max(25, initial + 8)
    assert (rendered.alpha - truth.alpha).abs().mean() < 0.05
    assert not splats.means.requires_grad
    assert len(splats) <= config.max_splats


def test_fit_repeats_with_its_seed() -> None:
    views = sphere_views(orbit_cameras(20, 16, 4))
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


def test_fit_starts_from_given_points() -> None:
    views = sphere_views(orbit_cameras(20, 16, 4))
    config = SplatConfig(steps=2, lr_means=1e-3, densify=DensifyConfig(enabled=False))
    points = 0.3 * torch.eye(3)
    splats = fit_splats(views, config, init_points=points, init_colors=torch.eye(3))
    # A step of Adam moves a coordinate by no more than the learning rate at the start.
    assert (splats.means - points).abs().max() <= 2.1e-3
    assert (splats.sh[:, 0] * 0.28209479 + 0.5 - torch.eye(3)).abs().max() < 0.02


def test_no_interpolated_views() -> None:
    views = render_between_views(some_splats(3, 1), orbit_cameras(20, 8, 4), 0)
    assert views.rgb.shape == (0, 3, 8, 8)


def test_torch_and_native_fits_agree() -> None:
    views = sphere_views(orbit_cameras(20, 16, 4))
    config = SplatConfig(steps=4, num_initial=60, hull_resolution=12)
    auto = fit_splats(views, config)
    config.backend = "torch"
    twin = fit_splats(views, config)
    # Not the parameters: round Gaussians have no gradient by rotation, so theirs is rounding noise.
    images = [rasterize(splats, views.cameras).rgb for splats in (auto, twin)]
    torch.testing.assert_close(*images, rtol=0, atol=0.01)
