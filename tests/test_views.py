"""Views on disk: a round trip, the orbit without cameras.json, and what is wrong is said."""

import json

import pytest
import torch

from hi3d.cameras import orbit_cameras
from hi3d.errors import InputError
from hi3d.views import (
    ReferenceImage,
    Views,
    concatenate_views,
    load_depth,
    save_depth,
    save_rgba,
)


@pytest.fixture
def views() -> Views:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (16, 4, 8, 8), generator=generator) / 255
    return Views(pixels[:, :3], pixels[:, 3:], orbit_cameras(20, 8))


def test_round_trip_keeps_every_pixel_and_camera(views, tmp_path):
    views.save(tmp_path)
    loaded = Views.load(tmp_path)
    torch.testing.assert_close(loaded.rgb, views.rgb)
    torch.testing.assert_close(loaded.alpha, views.alpha)
    torch.testing.assert_close(loaded.cameras.viewmats, views.cameras.viewmats)
    content = json.loads((tmp_path / "cameras.json").read_text())
    assert content["convention"] == "opencv"
    assert content["frames"][2]["azimuth_deg"] == pytest.approx(45, abs=1e-3)


def test_shrunk_views_have_the_mean_of_their_pixels_and_the_same_field_of_view(views):
    small = views.shrunk(4)
    torch.testing.assert_close(small.rgb[0, 0, 0, 0], views.rgb[0, 0, :2, :2].mean())
    torch.testing.assert_close(small.alpha[3, 0, 1, 3], views.alpha[3, 0, 2:4, 6:8].mean())
    torch.testing.assert_close(small.cameras.Ks[:, :2], views.cameras.Ks[:, :2] / 2)
    assert small.shrunk(4) is small
    assert views.shrunk(8) is views


def test_folder_without_cameras_is_the_standard_orbit(views, tmp_path):
    views.save(tmp_path)
    (tmp_path / "cameras.json").unlink()
    with pytest.raises(InputError, match="elevation_deg=NUMBER"):
        Views.load(tmp_path)
    loaded = Views.load(tmp_path, elevation_deg=20)
    torch.testing.assert_close(loaded.cameras.viewmats, views.cameras.viewmats)


@pytest.mark.parametrize("damage", ["missing", "no json", "wrong size", "empty"])
def test_damaged_folder_is_one_line(views, tmp_path, damage):
    folder = tmp_path / "views"
    if damage != "empty":
        views.save(folder)
    if damage == "missing":
        (folder / "003.png").unlink()
    if damage == "no json":
        (folder / "cameras.json").write_text("{")
    if damage == "wrong size":
        save_rgba(folder / "003.png", torch.ones(3, 4, 8), torch.ones(1, 4, 8))
    with pytest.raises(InputError) as error:
        Views.load(folder)
    assert "\n" not in str(error.value)


def test_selection_and_concatenation(views):
    both = concatenate_views(views[[0, 1]], views[5])
    assert len(both) == 3
    torch.testing.assert_close(both.rgb[2], views.rgb[5])


def test_depth_round_trip_is_exact_to_half_a_step(tmp_path):
    depth = torch.linspace(0.7, 2.3, 64).reshape(8, 8)
    save_depth(tmp_path / "000-depth.png", depth)
    loaded = load_depth(tmp_path / "000-depth.png")
    assert (loaded - depth).abs().max() <= 0.5 * 1.8 / 65535 + 1e-6


def test_reference_image_round_trip_and_shape(tmp_path):
    image = ReferenceImage(torch.zeros(3, 4, 4), torch.ones(1, 4, 4))
    image.save(tmp_path / "reference.png")
    torch.testing.assert_close(ReferenceImage.load(tmp_path / "reference.png").rgb, image.rgb)
    with pytest.raises(ValueError, match="alpha must be"):
        ReferenceImage(torch.zeros(3, 4, 4), torch.ones(1, 4, 5))
