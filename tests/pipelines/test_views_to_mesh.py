"""Reconstruction of views that have something wrong: the object's mesh, or one clear line."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hi3d.assets.surface_mesh import load_mesh
from hi3d.cameras import Cameras, cameras_at, orbit_cameras
from hi3d.config import load_config
from hi3d.errors import InputError
from hi3d.mesh import is_closed
from hi3d.pipelines.usable_views import usable_views
from hi3d.pipelines.views_to_mesh import ReconstructConfig, reconstruct_folder
from hi3d.surface.meshing import mesh_to_trimesh
from hi3d.views import Views

TINY = [
    "interpolated_views=4",
    "splats.steps=10",
    "splats.num_initial=300",
    "neus.steps=24",
    "neus.rays_per_step=256",
    "neus.resolutions=[24]",
    "neus.resolution_starts=[0.0]",
    "neus.regularized_vertices=256",
    "tsdf.resolution=32",
    "meshing.target_faces=600",
    "meshing.smoothing_iterations=0",
    "texture.resolution=64",
]
SEMI_AXES = torch.tensor([0.45, 0.2, 0.3])


def ellipsoid(cameras: Cameras, semi_axes: torch.Tensor = SEMI_AXES) -> Views:
    """An ellipsoid coloured by position: no turn of a camera goes unnoticed."""
    rgb, alpha = [], []
    for view in range(len(cameras)):
        origins, directions = (ray / semi_axes for ray in cameras.rays(view))
        a, b = directions.square().sum(-1), (origins * directions).sum(-1)
        discriminant = b**2 - a * (origins.square().sum(-1) - 1)
        hit = discriminant > 0
        points = origins + ((-b - discriminant.clamp_min(0).sqrt()) / a)[..., None] * directions
        rgb.append(torch.where(hit[..., None], 0.5 + 0.4 * points, 1.0).permute(2, 0, 1))
        alpha.append(hit[None].float())
    return Views(torch.stack(rgb), torch.stack(alpha), cameras)


def orbit(num_views: int = 8, resolution: int = 32) -> Views:
    return ellipsoid(orbit_cameras(20, resolution, num_views))


def reconstructed(views: Views, tmp_path: Path, *more: str):
    """The volume of the textured mesh over the ellipsoid's, after checks that hold for any mesh."""
    views.save(tmp_path / "views")
    config = load_config(ReconstructConfig, None, [*TINY, *more])
    path = reconstruct_folder(str(tmp_path / "views"), str(tmp_path / "out"), config)
    mesh = load_mesh(path)
    assert torch.isfinite(mesh.vertices).all()
    assert torch.isfinite(mesh.texture).all()
    assert is_closed(mesh)
    return mesh_to_trimesh(mesh).volume / (4 / 3 * math.pi * SEMI_AXES.prod().item()), mesh


def with_view(views: Views, index: int, rgb=None, alpha=None) -> Views:
    """The views with one image replaced by constants."""
    changed_rgb, changed_alpha = views.rgb.clone(), views.alpha.clone()
    if rgb is not None:
        changed_rgb[index] = rgb
    if alpha is not None:
        changed_alpha[index] = alpha
    return Views(changed_rgb, changed_alpha, views.cameras)


def turned(views: Views, index: int) -> Views:
    """The views with one camera at another place of the orbit."""
    viewmats = views.cameras.viewmats.clone()
    viewmats[index] = viewmats[(index + len(views) // 4) % len(views)]
    return replace(views, cameras=replace(views.cameras, viewmats=viewmats))


@pytest.mark.parametrize(
    "case", ["as it is", "empty alpha", "black frame", "wrong camera", "tsdf", "4 views"]
)
def test_one_bad_view_leaves_the_object(case, tmp_path):
    views, more = orbit(), []
    if case == "empty alpha":
        views = with_view(views, 3, rgb=1.0, alpha=0.0)
    elif case == "black frame":
        views = with_view(views, 3, rgb=0.0, alpha=1.0)
    elif case == "wrong camera":
        views = turned(views, 2)
    elif case == "tsdf":
        more = ["surface=tsdf", "splats.steps=60"]
    elif case == "4 views":
        views = orbit(4)
    volume, mesh = reconstructed(views, tmp_path, *more)
    # So few steps on so coarse a grid leave the size rough.
    assert 0.3 < volume < 1.5
    sides = mesh.vertices.amax(0) - mesh.vertices.amin(0)
    assert sides[0] / sides[1] > 1.4  # of the ellipsoid 2.25, of a ball 1


def test_many_odd_and_cropped_views(tmp_path):
    cameras = orbit_cameras(10, 33, 64).resized(33, 47)
    volume, _ = reconstructed(ellipsoid(cameras), tmp_path / "many")
    assert 0.3 < volume < 1.5
    close = orbit_cameras(20, 31, 8)
    close = replace(close, Ks=close.Ks * torch.tensor([1.6, 1.6, 1.0])[:, None] + torch.zeros(3, 3))
    close.Ks[:, :2, 2] = 15.5
    views = ellipsoid(close)
    assert (views.alpha[..., 0] > 0).any()  # the object leaves the frame
    volume, _ = reconstructed(views, tmp_path / "cropped")
    assert 0.3 < volume < 1.5


def test_21_views_of_varying_elevation(tmp_path):
    # The orbit of video models like SV3D: 21 views, the elevation swings around the first one's.
    azimuth = torch.arange(1, 22) * 360 / 21
    elevation = 10 + 15 * torch.sin(2 * torch.deg2rad(azimuth))
    volume, _ = reconstructed(ellipsoid(cameras_at(azimuth, elevation, 32)), tmp_path)
    assert 0.3 < volume < 1.5


def test_nothing_to_reconstruct_is_one_line(tmp_path):
    views = orbit()
    empty = Views(torch.ones_like(views.rgb), torch.zeros_like(views.alpha), views.cameras)
    with pytest.raises(InputError, match="no view shows an object"):
        reconstructed(empty, tmp_path / "empty")
    assert not (tmp_path / "empty" / "out" / "mesh.glb").exists()
    with pytest.raises(InputError, match="give at least 2"):
        reconstructed(views[0], tmp_path / "single")
    broken = replace(views.cameras, Ks=views.cameras.Ks * torch.nan)
    with pytest.raises(InputError, match="not finite"):
        reconstructed(replace(views, cameras=broken), tmp_path / "nan")


def test_only_what_is_broken_is_left_out():
    views = orbit(16)
    assert usable_views(views)[1] == {}
    white = Views(torch.ones_like(views.rgb), views.alpha, views.cameras)
    assert usable_views(white)[1] == {}  # a white object on white
    rod = ellipsoid(orbit_cameras(20, 32, 16), torch.tensor([0.45, 0.08, 0.08]))
    assert usable_views(rod)[1] == {}
    kept, faults = usable_views(with_view(turned(rod, 5), 9, rgb=1.0, alpha=0.0))
    assert set(faults) == {"5", "9"}
    assert len(kept) == 14
    assert usable_views(orbit(4))[1] == {}
