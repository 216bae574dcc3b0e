"""Camera files of other tools, written as those tools write them, give the cameras they mean."""

import json
import math
import os
import pickle
import struct

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from hi3d.cameras import orbit_cameras
from hi3d.errors import InputError
from hi3d.pipelines.given_views import load_views
from hi3d.views import Views, save_rgba

SIDE = 24
CAMERAS = orbit_cameras(20, SIDE, 5)
OPENGL = np.diag([1.0, -1, -1, 1])


@pytest.fixture
def views(sphere_views) -> Views:
    return sphere_views(CAMERAS)[0]


def write_images(views: Views, folder, name="{:03d}.png") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for view in range(len(views)):
        save_rgba(folder / name.format(view), views.rgb[view], views.alpha[view])


def assert_same(loaded: Views, views: Views) -> None:
    torch.testing.assert_close(loaded.cameras.viewmats, views.cameras.viewmats, atol=1e-5, rtol=0)
    torch.testing.assert_close(loaded.cameras.Ks, views.cameras.Ks, atol=1e-4, rtol=0)
    torch.testing.assert_close(loaded.rgb, views.rgb, atol=2 / 255, rtol=0)
    torch.testing.assert_close(loaded.alpha, views.alpha, atol=2 / 255, rtol=0)


def transforms(shared: bool, suffix: str = ".png") -> dict:
    focal = CAMERAS.Ks[0, 0, 0].item()
    intrinsics = {
        "fl_x": focal,
        "fl_y": focal,
        "cx": SIDE / 2,
        "cy": SIDE / 2,
        "w": SIDE,
        "h": SIDE,
    }
    frames = [
        {
            "file_path": f"./images/{view:03d}{suffix}",
            "transform_matrix": (np.linalg.inv(viewmat.double().numpy()) @ OPENGL).tolist(),
            **({} if shared else intrinsics),
        }
        for view, viewmat in enumerate(CAMERAS.viewmats)
    ]
    return {"frames": frames[::-1], **(intrinsics if shared else {})}


@pytest.mark.parametrize("shared", [True, False])
def test_transforms_with_shared_or_own_intrinsics(views, tmp_path, shared):
    write_images(views, tmp_path / "images")
    (tmp_path / "transforms.json").write_text(json.dumps(transforms(shared)))
    assert_same(load_views(tmp_path), views)


def test_transforms_of_synthetic_scenes_have_an_angle_and_no_suffix(views, tmp_path):
    write_images(views, tmp_path / "images")
    content = {"frames": transforms(True, "")["frames"]}
    angle = 2 * math.atan(SIDE / 2 / CAMERAS.Ks[0, 0, 0].item())
    (tmp_path / "transforms.json").write_text(json.dumps({**content, "camera_angle_x": angle}))
    assert_same(load_views(tmp_path), views)


def test_transforms_with_masks_and_reduced_images(views, tmp_path):
    opaque = Views(views.rgb, torch.ones_like(views.alpha), views.cameras)
    write_images(opaque, tmp_path / "images")
    masks = Views(views.alpha.expand_as(views.rgb), torch.ones_like(views.alpha), views.cameras)
    write_images(masks, tmp_path / "masks")
    content = transforms(True)
    for key in ("fl_x", "fl_y", "cx", "cy", "w", "h"):
        content[key] *= 4  # the intrinsics are those of the images before they were reduced
    for frame in content["frames"]:
        frame["mask_path"] = frame["file_path"].replace("images", "masks")
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    assert_same(load_views(tmp_path), views)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k1": 0.2}, "undistort"),
        ({"camera_model": "OPENCV_FISHEYE"}, "undistort"),
        ({"frames": []}, "lists no images"),
        ({"frames": 3}, "not a readable camera file"),
        ({"cx": 400}, "outside"),
        ({"fl_x": float("nan")}, "no finite number"),
    ],
)
def test_transforms_that_cannot_be_used_are_one_line(views, tmp_path, change, message):
    write_images(views, tmp_path / "images")
    (tmp_path / "transforms.json").write_text(json.dumps({**transforms(True), **change}))
    with pytest.raises(InputError, match=message) as error:
        load_views(tmp_path)
    assert "\n" not in str(error.value)


def poses() -> list[tuple]:
    rotations = Rotation.from_matrix(CAMERAS.viewmats[:, :3, :3].double().numpy()).as_quat()
    return [
        ((w, x, y, z), tuple(viewmat[:3, 3].tolist()))
        for (x, y, z, w), viewmat in zip(rotations, CAMERAS.viewmats, strict=True)
    ]


def test_colmap_text_model(views, tmp_path):
    write_images(views, tmp_path / "images", "frame {}.png")
    model = tmp_path / "sparse" / "0"
    model.mkdir(parents=True)
    focal = CAMERAS.Ks[0, 0, 0].item()
    (model / "cameras.txt").write_text(
        f"# Camera list\n7 SIMPLE_RADIAL {SIDE} {SIDE} {focal!r} {SIDE / 2} {SIDE / 2} 0.0\n"
    )
    lines = ["# Image list", "# two lines each"]
    for view, (quaternion, place) in enumerate(poses()):
        numbers = " ".join(repr(float(value)) for value in (*quaternion, *place))
        lines += [f"{view + 1} {numbers} 7 frame {view}.png", "" if view % 2 else "1.5 2.5 -1"]
    (model / "images.txt").write_text("\n".join(lines) + "\n")
    assert_same(load_views(tmp_path), views)
    (model / "cameras.txt").write_text(f"7 OPENCV_FISHEYE {SIDE} {SIDE} 1 1 1 1 0 0 0 0\n")
    with pytest.raises(InputError, match="undistort"):
        load_views(tmp_path)


def test_colmap_binary_model(views, tmp_path):
    write_images(views, tmp_path / "images")
    focal = CAMERAS.Ks[0, 0, 0].item()
    lens = struct.pack("<QiiQQ4d", 1, 3, 1, SIDE, SIDE, focal, focal, SIDE / 2, SIDE / 2)
    (tmp_path / "cameras.bin").write_bytes(lens)
    data = struct.pack("<Q", len(CAMERAS))
    for view, (quaternion, place) in enumerate(poses()):
        data += struct.pack("<i7di", view + 1, *quaternion, *place, 3)
        data += f"{view:03d}.png".encode() + b"\0"
        data += struct.pack("<Q", view) + struct.pack("<ddq", 1.0, 2.0, -1) * view
    (tmp_path / "images.bin").write_bytes(data)
    assert_same(load_views(tmp_path), views)
    (tmp_path / "images.bin").write_bytes(data[:200])
    with pytest.raises(InputError, match="not a readable camera file"):
        load_views(tmp_path)


def syncdreamer(folder, cameras=CAMERAS, protocol: int = 4) -> None:
    K = cameras.resized(256, 256).Ks[0].numpy()
    angles = cameras.azimuth_deg.deg2rad().numpy(), cameras.elevation_deg.deg2rad().numpy()
    content = (K, *angles, np.full(len(cameras), 1.5), cameras.viewmats[:, :3].numpy())
    (folder / "camera-16.pkl").write_bytes(pickle.dumps(content, protocol))


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_syncdreamers_pickle(views, tmp_path, protocol):
    write_images(views, tmp_path)
    syncdreamer(tmp_path, protocol=protocol)
    assert_same(load_views(tmp_path), views)
    (tmp_path / "004.png").unlink()
    with pytest.raises(InputError, match="5 cameras and its folder 4 views"):
        load_views(tmp_path)


class Runs:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_runs_something_runs_nothing(views, tmp_path):
    write_images(views, tmp_path)
    content = pickle.dumps((Runs(tmp_path / "ran"), 0, 0, 0, 0))
    (tmp_path / "camera-16.pkl").write_bytes(content)
    with pytest.raises(InputError, match="only arrays are read"):
        load_views(tmp_path)
    assert not (tmp_path / "ran").exists()
    for broken in (b"", b"\x80\x04.", content[:20], pickle.dumps(3)):
        (tmp_path / "camera-16.pkl").write_bytes(broken)
        with pytest.raises(InputError, match="not a readable camera file"):
            load_views(tmp_path)


def test_views_on_white_are_keyed_and_straight_alpha_is_composited(views, tmp_path, capsys):
    dark = Views(0.8 * views.rgb, torch.ones_like(views.alpha), views.cameras)
    on_white = torch.where(views.alpha > 0, dark.rgb, 1.0)
    Views(on_white, dark.alpha, views.cameras).save(tmp_path / "white")
    keyed = load_views(tmp_path / "white")
    assert (keyed.alpha - views.alpha).abs().mean() < 0.03
    assert "white is taken as background" in " ".join(capsys.readouterr().err.split())
    assert (load_views(tmp_path / "white", key=False).alpha == 1).all()
    black = torch.where(views.alpha > 0, views.rgb, 0.0)
    Views(black, views.alpha, views.cameras).save(tmp_path / "straight")
    assert_same(load_views(tmp_path / "straight"), views)
    assert "composited over white" in " ".join(capsys.readouterr().err.split())
