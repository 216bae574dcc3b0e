import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from hi3d.cameras import Cameras, between_views, orbit_cameras
from hi3d.errors import InputError
from hi3d.reconstruction.densification import DensifyConfig, change_density
from hi3d.reconstruction.rasterization.render import rasterize
from hi3d.reconstruction.splat_initialization import hull_points, initial_splats, mean_colors
from hi3d.reconstruction.splats import (
    GaussianSplats,
    SplatConfig,
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
