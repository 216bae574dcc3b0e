"""Folders of views as users have them: of other methods, without alpha, exported to any format."""

import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from hi3d.assets.surface_mesh import load_mesh
from hi3d.cameras import Cameras, cameras_at
from hi3d.config import load_config
from hi3d.errors import InputError
from hi3d.pipelines.pictures import preview_cameras
from hi3d.pipelines.usable_views import usable_views
from hi3d.pipelines.views_to_mesh import ReconstructConfig, reconstruct
from hi3d.views import Views, cameras_from_json

DOCUMENT = Path(__file__).parents[2] / "docs" / "views-of-other-methods.md"
RADIUS = 0.4
TINY = [
    "interpolated_views=0",
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


def documented_cameras(folder: Path) -> tuple[list[str], Cameras]:
    """The example in the documentation, read as a user's file is."""
    (example,) = re.findall(r"```json\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    (folder / "example.json").write_text(example)
    return cameras_from_json(folder / "example.json")


def test_documented_example_is_the_orbit_it_says(tmp_path):
    files, cameras = documented_cameras(tmp_path)
    assert files == [f"{view:03d}.png" for view in range(21)]
    azimuth_deg = torch.arange(21) * 360 / 21
    elevation_deg = 10 + 15 * torch.sin(2 * torch.deg2rad(azimuth_deg))
    expected = cameras_at(azimuth_deg, elevation_deg, 576, distance=2.0, fov_deg=33.8)
    assert torch.allclose(cameras.viewmats, expected.viewmats, atol=2e-6)
    assert torch.allclose(cameras.Ks, expected.Ks, atol=1e-4)
    assert (cameras.width, cameras.height) == (576, 576)


def test_documented_example_gives_a_mesh_in_every_format(tmp_path, sphere_views):
    _, cameras = documented_cameras(tmp_path)
    sphere_views(cameras.resized(40, 40))[0].save(tmp_path / "views")
    config = load_config(ReconstructConfig, None, [*TINY, "export=[obj,ply]"])
    reconstruct(tmp_path / "views", config, tmp_path / "out")
    path = tmp_path / "out" / "mesh.glb"
    sides = {}
    for suffix in ("glb", "obj", "ply"):
        vertices = load_mesh(path.with_suffix(f".{suffix}")).vertices
        sides[suffix] = vertices.amax(0) - vertices.amin(0)
        # So few steps on so coarse a grid leave the size rough.
        assert ((sides[suffix] - 2 * RADIUS).abs() < 0.15).all()
        assert torch.allclose(sides[suffix], sides["glb"], atol=1e-4)
    assert (tmp_path / "out" / "mesh.mtl").is_file()
    for step in ("splats", "surface", "mesh"):
        with Image.open(tmp_path / "out" / f"preview_{step}.png") as preview:
            assert preview.size == (4 * 192, 192)
            colours = preview.convert("RGB").getextrema()
        assert all(low < 200 and high == 255 for low, high in colours)  # something, on white


def test_unknown_format_is_one_line():
    with pytest.raises(InputError, match="export holds stl: use glb, obj, ply"):
        load_config(ReconstructConfig, None, ["export=[stl]"])


def test_images_without_a_background_are_refused(sphere_views):
    views = sphere_views(cameras_at(torch.arange(8) * 45.0, torch.zeros(8), 32))[0]
    opaque = Views(views.rgb, torch.ones_like(views.alpha), views.cameras)
    with pytest.raises(InputError, match="alpha is 1 everywhere"):
        usable_views(opaque)
    one = torch.where(torch.arange(8)[:, None, None, None] == 3, 1.0, views.alpha)
    kept, faults = usable_views(Views(views.rgb, one, views.cameras))
    assert list(faults) == ["3"]
    assert len(kept) == 7


@pytest.mark.parametrize("turn_deg", [3.0, -8.0])
def test_a_camera_that_is_a_little_off_is_kept(turn_deg, sphere_views):
    azimuth_deg = torch.arange(16) * 22.5
    views = sphere_views(cameras_at(azimuth_deg, torch.full((16,), 20.0), 64))[0]
    azimuth_deg[5] += turn_deg
    off = Views(views.rgb, views.alpha, cameras_at(azimuth_deg, torch.full((16,), 20.0), 64))
    assert usable_views(off)[1] == {}


def test_previews_keep_the_shape_of_the_views():
    cameras = cameras_at(torch.arange(2) * 180.0, torch.zeros(2), 64).resized(128, 64)
    shown = preview_cameras(cameras)
    assert (len(shown), shown.width, shown.height) == (4, 192, 96)
