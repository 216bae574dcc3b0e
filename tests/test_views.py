"""Views on disk: a round trip, the orbit without cameras.json, and what is wrong is said."""

import json
import struct
import zlib

import pytest
import torch

from hi3d.cameras import check_cameras, orbit_cameras
from hi3d.errors import InputError
from hi3d.views import (
    ReferenceImage,
    Views,
    cameras_to_json,
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


@pytest.mark.parametrize("fault", ["no image", "a cut-off chunk", "a bomb of 10^10 pixels"])
def test_an_image_that_cannot_be_read_is_one_line(views, tmp_path, fault):
    views.save(tmp_path)
    pixels = (tmp_path / "000.png").read_bytes()
    broken = {
        "no image": b"PNG",
        "a cut-off chunk": pixels[: len(pixels) // 2],
        "a bomb of 10^10 pixels": pixels[:8]
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 10**5, 10**5, 8, 6, 0, 0, 0))
        + pixels[33:],
    }
    (tmp_path / "000.png").write_bytes(broken[fault])
    with pytest.raises(InputError, match=r"cannot read image .*000\.png .*replace the file"):
        Views.load(tmp_path)


def chunk(kind: bytes, content: bytes) -> bytes:
    """Of a PNG file."""
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


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


@pytest.fixture
def folder(tmp_path):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(6, 4, 12, 12, generator=generator)
    Views(pixels[:, :3], pixels[:, 3:], orbit_cameras(20, 12, 6)).save(tmp_path)
    return tmp_path


def with_cameras(folder, change) -> None:
    content = json.loads((folder / "cameras.json").read_text())
    changed = change(content)
    (folder / "cameras.json").write_text(json.dumps(content if changed is None else changed))


def transposed(content):
    for frame in content["frames"]:
        frame["viewmat"] = torch.tensor(frame["viewmat"]).T.tolist()


def of_viewmat(row, column, value):
    def change(content):
        content["frames"][2]["viewmat"][row][column] = value

    return change


def scaled(content):
    for frame in content["frames"]:
        for row in frame["viewmat"][:3]:
            row[:3] = [1.1 * entry for entry in row[:3]]


def mirrored(content):
    for frame in content["frames"]:
        frame["viewmat"][0] = [-entry for entry in frame["viewmat"][0]]


def of_other_resolution(content):
    for frame in content["frames"]:
        frame["K"] = [[560.0, 0, 256], [0, 560.0, 256], [0, 0, 1]]


def zero_focal(content):
    content["frames"][1]["K"][0][0] = 0.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (transposed, "last row of viewmat is not 0 0 0 1"),
        (scaled, "not orthonormal"),
        (mirrored, "mirrors"),
        (of_viewmat(0, 3, float("nan")), "no finite number"),
        (of_viewmat(0, 3, 1e6), "exceeds 100000"),
        (of_viewmat(0, 0, 1e6), "not orthonormal"),
        (of_other_resolution, r"principal point \(256, 256\) lies outside the 12x12 image"),
        (zero_focal, "focal"),
        (lambda content: [], "holds a list"),
        (lambda content: content["frames"].clear(), "no frames"),
        (lambda content: {**content, "frames": 3}, "not a camera file"),
    ],
)
def test_cameras_that_cannot_be_are_one_line(folder, change, message):
    with_cameras(folder, change)
    with pytest.raises(InputError, match=message) as error:
        Views.load(folder)
    assert "\n" not in str(error.value)
    assert "cameras.json" in str(error.value)


def test_rounded_rotations_pass():
    cameras = orbit_cameras(20, 12)
    content = cameras_to_json(cameras)
    rounded = torch.tensor([frame["viewmat"] for frame in content["frames"]]).mul(1e3).round() / 1e3
    check_cameras(type(cameras)(rounded, cameras.Ks, 12, 12), "rounded")


def test_a_gap_in_numbered_files_is_named(folder):
    (folder / "cameras.json").unlink()
    (folder / "003.png").unlink()
    with pytest.raises(InputError, match="from view 2 to 4"):
        Views.load(folder, 20.0)


def test_normals_and_depth_are_no_views_and_numbers_are_in_order(folder):
    (folder / "cameras.json").unlink()
    expected = Views.load(folder, 20.0)
    for name in ("000-normal", "000-depth", "001_mask"):
        save_rgba(folder / f"{name}.png", torch.zeros(3, 12, 12), torch.ones(1, 12, 12))
    for view in range(6):
        (folder / f"{view:03d}.png").rename(folder / f"view_{view + 8}.png")  # 8, 9, 10, ...
    loaded = Views.load(folder, 20.0)
    assert torch.equal(loaded.rgb, expected.rgb)


def test_views_of_mixed_sizes_have_the_largest_ones_intrinsics(folder):
    small = Views.load(folder)
    save_rgba(folder / "004.png", torch.full((3, 24, 24), 0.5), torch.ones(1, 24, 24))
    mixed = Views.load(folder)
    assert (mixed.cameras.width, mixed.cameras.height) == (24, 24)
    torch.testing.assert_close(mixed.cameras.Ks, small.cameras.resized(24, 24).Ks)
    assert (mixed.rgb[4] - 0.5).abs().max() < 0.01
    torch.testing.assert_close(mixed.rgb[0].mean(), small.rgb[0].mean(), atol=0.03, rtol=0)
