"""Reconstruction of views that have something wrong: the object's mesh, or one clear line."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hi3d.assets.surface_mesh import load_mesh
from hi3d.cameras import Cameras, cameras_at, orbit_cameras
from hi3d.config import load_config
from hi3d.errors import InputError
from hi3d.mesh import SurfaceMesh, is_closed
from hi3d.pipelines.pictures import render_mesh
from hi3d.pipelines.run_folder import RunFolder
from hi3d.pipelines.usable_views import usable_views
from hi3d.pipelines.views_to_mesh import (
    MeshReconstructionConfig,
    ReconstructConfig,
    into_unit_cube,
    reconstruct,
    reconstruct_mesh,
    trusted,
)
from hi3d.surface.grid import GridField
from hi3d.surface.visual_hull import grid_points
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


def reconstructed(views: Views, tmp_path: Path) -> SurfaceMesh:
    """The textured mesh, after checks that hold for any."""
    views.save(tmp_path / "views")
    config = load_config(ReconstructConfig, None, TINY)
    mesh = reconstruct(tmp_path / "views", config, tmp_path / "out")
    assert torch.isfinite(mesh.vertices).all()
    assert torch.isfinite(mesh.texture).all()
    assert is_closed(mesh)
    return mesh


def assert_shows(mesh: SurfaceMesh, views: Views, least_iou: float, color_error: float) -> None:
    """The mesh has the silhouettes and colours of the views; so few steps leave both rough.

    A ball of the ellipsoid's volume has an IoU of 0.69.
    """
    rendered = render_mesh(mesh, views.cameras)
    ours, true = rendered.alpha > 0.5, views.alpha > 0.5
    iou = (ours & true).sum((1, 2, 3)) / (ours | true).sum((1, 2, 3))
    assert iou.min() > least_iou
    assert (rendered.rgb - views.rgb).abs().mean() < color_error


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
    "case", ["as it is", "empty alpha", "black frame", "wrong camera", "4 views"]
)
def test_one_bad_view_leaves_the_object(case, tmp_path):
    views = orbit()
    if case == "empty alpha":
        views = with_view(views, 3, rgb=1.0, alpha=0.0)
    elif case == "black frame":
        views = with_view(views, 3, rgb=0.0, alpha=1.0)
    elif case == "wrong camera":
        views = turned(views, 2)
    elif case == "4 views":
        views = orbit(4)
    mesh = reconstructed(views, tmp_path)
    assert_shows(mesh, orbit(), 0.8, 0.025)
    sides = mesh.vertices.amax(0) - mesh.vertices.amin(0)
    torch.testing.assert_close(sides, 2 * SEMI_AXES, atol=0.22, rtol=0)
    assert sides[0] / sides[1] > 1.4  # of the ellipsoid 2.25, of a ball 1


def test_many_odd_views(tmp_path):
    views = ellipsoid(orbit_cameras(10, 33, 64).resized(33, 47))
    assert_shows(reconstructed(views, tmp_path), views, 0.8, 0.02)


def test_cropped_views(tmp_path):
    close = orbit_cameras(20, 31, 8)
    close = replace(close, Ks=close.Ks * torch.tensor([1.6, 1.6, 1.0])[:, None])
    close.Ks[:, :2, 2] = 15.5
    views = ellipsoid(close)
    assert (views.alpha[..., 0] > 0).any()  # the object leaves the frame
    assert_shows(reconstructed(views, tmp_path), views, 0.7, 0.06)


def test_21_views_of_varying_elevation(tmp_path):
    # The orbit of video models like SV3D: 21 views, the elevation swings around the first one's.
    azimuth = torch.arange(1, 22) * 360 / 21
    elevation = 10 + 15 * torch.sin(2 * torch.deg2rad(azimuth))
    views = ellipsoid(cameras_at(azimuth, elevation, 32))
    assert_shows(reconstructed(views, tmp_path), views, 0.8, 0.02)


def test_nothing_to_reconstruct_is_one_line(tmp_path):
    views = orbit()
    empty = Views(torch.ones_like(views.rgb), torch.zeros_like(views.alpha), views.cameras)
    with pytest.raises(InputError, match="no view shows an object"):
        reconstructed(empty, tmp_path / "empty")
    assert not (tmp_path / "empty" / "out" / "mesh.glb").exists()
    with pytest.raises(InputError, match="give at least 2"):
        reconstructed(views[0], tmp_path / "single")
    broken = replace(views.cameras, Ks=views.cameras.Ks * torch.nan)
    with pytest.raises(InputError, match="no finite number"):
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


def moved(views: Views, scale: float, shift: torch.Tensor) -> Views:
    """The same images in a world `scale` times larger, moved by `shift`."""
    viewmats = views.cameras.viewmats.clone()
    viewmats[:, :3, 3] = viewmats[:, :3, 3] * scale - viewmats[:, :3, :3] @ shift
    return replace(views, cameras=replace(views.cameras, viewmats=viewmats))


WORLDS = {
    "ten times larger": (10.0, (0.0, 0.0, 0.0)),
    "millimeters": (1000.0, (200.0, -300.0, 500.0)),
    "ten times smaller": (0.1, (0.0, 0.0, 0.0)),
    "moved": (1.0, (0.6, -0.4, -0.3)),
}


@pytest.mark.parametrize("world", WORLDS)
def test_the_box_of_other_worlds_is_the_objects(world):
    scale, shift = WORLDS[world][0], torch.tensor(WORLDS[world][1])
    views = orbit(8, 48)
    inside, box = into_unit_cube(moved(views, scale, shift))
    assert box is not None
    assert box.side == pytest.approx(scale, rel=0.15)  # the longest side is 0.9
    assert ((box.center - shift) / scale).abs().max() < 0.05
    points = torch.tensor([[0.1, 0.2, 0.3]])
    given = moved(views, scale, shift).cameras.project(points * scale + shift, 3)[0]
    again = inside.cameras.project((points * scale + shift - box.center) / box.side, 3)[0]
    assert torch.allclose(given, again, atol=0.02)
    assert (given - views.cameras.project(points, 3)[0]).abs().max() < 0.02


@pytest.mark.parametrize("num_views", [2, 3, 4, 16])
@pytest.mark.parametrize("elevation_deg", [-10.0, 0.0, 45.0])
def test_standard_worlds_are_left_alone(num_views, elevation_deg):
    assert into_unit_cube(ellipsoid(orbit_cameras(elevation_deg, 48, num_views)))[1] is None


def test_the_mesh_of_a_larger_world_is_in_its_coordinates(tmp_path, capsys):
    views = moved(orbit(), 10.0, torch.tensor([3.0, 0.0, 0.0]))
    mesh = reconstructed(views, tmp_path)
    assert "the object fills the cube of side" in " ".join(capsys.readouterr().err.split())
    assert_shows(mesh, views, 0.75, 0.03)
    middle = (mesh.vertices.amax(0) + mesh.vertices.amin(0)) / 2
    assert (middle - torch.tensor([3.0, 0.0, 0.0])).abs().max() < 1
    stored = load_mesh(tmp_path / "out" / "mesh.glb")
    assert torch.allclose(stored.vertices.amax(0), mesh.vertices.amax(0), atol=1e-4)


def test_cameras_that_bound_no_object_are_one_line():
    views = orbit()
    flipped = views.cameras.viewmats.clone()
    flipped[:, 1:3] *= -1  # OpenGL axes
    with pytest.raises(InputError, match="z forward"):
        into_unit_cube(replace(views, cameras=replace(views.cameras, viewmats=flipped)))


def test_views_between_cameras_on_the_axis_are_one_line():
    viewmats = torch.eye(4).repeat(2, 1, 1)
    viewmats[:, 1:3, 1:3] *= -1
    viewmats[:, 2, 3] = 1.5
    viewmats[1, :2, :2] = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    views = ellipsoid(replace(orbit_cameras(20, 32, 2), viewmats=viewmats))
    with pytest.raises(InputError, match="set interpolated_views=0"):
        trusted(views, load_config(ReconstructConfig, None, ["interpolated_views=8"]), 0)
    assert trusted(views, load_config(ReconstructConfig, None, []), 0).left_out == {}


def test_the_surface_starts_from_a_prediction_where_it_is_asked_to(tmp_path):
    views, calls = orbit(), []

    def start() -> GridField:
        calls.append(1)
        points = grid_points(24, 0.55, "cpu").reshape(24, 24, 24, 3)
        return GridField(points.norm(dim=-1) - 0.1, 0 * points, 0.55)

    def made(field: str) -> tuple[bytes, dict]:
        words = [*TINY, "neus.steps=1", f"neus.field={field}"]
        config = load_config(MeshReconstructionConfig, None, words)
        run = RunFolder(tmp_path, {}, {}, 0, resume=True)
        reconstruct_mesh(views, run, config, 0, start=start)
        return (tmp_path / "surface.ply").read_bytes(), run.report.content["steps"]

    small, steps = made("predicted")
    assert steps["neus"]["from_prediction"]
    (tmp_path / "surface.ply").unlink()
    assert made("predicted")[0] == small
    assert len(calls) == 2
    hull, again = made("grid")
    assert len(calls) == 2
    assert again["splats"] == steps["splats"]
    assert not again["neus"]["from_prediction"]
    sizes = []
    for content in (small, hull):
        (tmp_path / "one.ply").write_bytes(content)
        sizes.append(load_mesh(tmp_path / "one.ply").vertices.norm(dim=-1).max())
    assert sizes[0] < 0.5 * sizes[1]


def test_views_alone_predict_nothing_and_start_from_their_hull(tmp_path):
    surfaces = []
    for field in ("predicted", "grid"):
        words = [*TINY, "neus.steps=1", f"neus.field={field}"]
        reconstruct(orbit(), load_config(ReconstructConfig, None, words), tmp_path / field)
        surfaces.append((tmp_path / field / "surface.ply").read_bytes())
    assert surfaces[0] == surfaces[1]


def test_a_translucent_object_is_told_as_that():
    views = orbit()
    with pytest.raises(InputError, match=r"alpha is at most 0\.45, below 0\.5"):
        usable_views(replace(views, alpha=views.alpha * 0.45))
