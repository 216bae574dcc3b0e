"""The Cycles backend: its process, its files, and its pictures where there is a Blender."""

import os
import struct
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from omegaconf import OmegaConf

from hi3d.assets.parts import ObjectPart, RenderObject
from hi3d.cameras import Cameras, orbit_cameras
from hi3d.errors import InputError
from hi3d.rendering.blender import process as blender_process
from hi3d.rendering.blender.backend import SYNCDREAMER, BlenderSettings
from hi3d.rendering.blender.open_exr import read_exr
from hi3d.rendering.blender.process import BLENDER_VARIABLE, BlenderProcess
from hi3d.rendering.rasterizer import render_views

needs_blender = pytest.mark.skipif(
    not os.environ.get(BLENDER_VARIABLE), reason=f"{BLENDER_VARIABLE} names no Python with bpy"
)


def object_with_two_materials():
    sphere = trimesh.creation.icosphere(subdivisions=3, radius=0.35)
    colored = ObjectPart(
        sphere.vertices.astype(np.float32), sphere.faces, np.array([0.8, 0.4, 0.2, 1], np.float32)
    )
    texture = np.full((8, 8, 4), 255, np.uint8)
    texture[:4, :, :3] = 40, 160, 90
    texture[:, :4, 3] = 0  # the left half is cut away
    corners = [[0.1, -0.5, -0.5], [0.1, 0.5, -0.5], [0.1, 0.5, 0.5], [0.1, -0.5, 0.5]]
    plate = ObjectPart(
        np.array(corners, np.float32),
        np.array([[0, 1, 2], [0, 2, 3]]),
        np.ones(4, np.float32),
        np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32),
        texture,
        alpha_mode="MASK",
    )
    return RenderObject((colored, plate))


@needs_blender
def test_cycles_draws_what_the_rasteriser_draws():
    cameras = orbit_cameras(20.0, 96, num_views=2)
    Ks = cameras.Ks.clone()
    Ks[1, :2, 2] += torch.tensor([9.0, -5.0])  # an off-centre principal point
    cameras = Cameras(cameras.viewmats, Ks, 96, 80)
    settings = BlenderSettings(samples=64, device="cpu")
    drawn = object_with_two_materials()
    cycles = render_views(drawn, cameras, "cycles", normals=True, cycles=settings)
    rays = render_views(drawn, cameras, "embreex", 6, normals=True)
    a, b = cycles.alpha > 0.5, rays.alpha > 0.5
    assert (a & b).sum() / (a | b).sum() > 0.995
    both = (cycles.depth > 0) & (rays.depth > 0)
    assert both.sum() > 3000
    difference = (cycles.depth - rays.depth)[both].abs()
    assert difference.quantile(0.99) < 1e-4
    cosines = (cycles.normals * rays.normals).sum(dim=1)[both]
    assert cosines.quantile(0.03) > 1 - 1e-4
    # Pixels that show one material only are not touched by how samples are averaged.
    flat = torch.nn.functional.max_pool2d(rays.rgb, 5, 1, 2) + torch.nn.functional.max_pool2d(
        -rays.rgb, 5, 1, 2
    )
    inside = (flat == 0).all(dim=1) & (rays.alpha[:, 0] == 1)
    assert inside.sum() > 1000
    assert (cycles.rgb - rays.rgb).abs().amax(dim=1)[inside].max() < 1.5 / 255


@needs_blender
def test_lights_of_cycles_on_a_convex_object():
    drawn = RenderObject(object_with_two_materials().parts[:1])
    cameras = orbit_cameras(20.0, 48, num_views=1)
    for shading in ("uniform", "key"):
        settings = BlenderSettings(samples=64, device="cpu")
        cycles = render_views(drawn, cameras, "cycles", shading=shading, cycles=settings)
        rays = render_views(drawn, cameras, "embreex", 4, shading=shading)
        inside = (cycles.alpha == 1) & (rays.alpha == 1)
        assert (cycles.rgb - rays.rgb).abs()[inside.expand(-1, 3, -1, -1)].mean() < 0.01


def test_no_blender_says_how_to_get_it(monkeypatch):
    monkeypatch.delenv(BLENDER_VARIABLE, raising=False)
    cameras = orbit_cameras(0.0, 8, num_views=1)
    with pytest.raises(InputError, match="pip install bpy"):
        render_views(object_with_two_materials(), cameras, "cycles")
    with pytest.raises(InputError, match="no Blender Python at /nowhere/python"):
        BlenderProcess("/nowhere/python").start()
    with pytest.raises(InputError, match=r"does not start as Blender .*No module named 'bpy'"):
        BlenderProcess(sys.executable).start()


FAKE_SESSION = """
import json, os, sys, time
answers = os.fdopen(int(sys.argv[-1]), "w")
print(json.dumps({"ready": True}), file=answers, flush=True)
for line in sys.stdin:
    name = os.path.basename(line.rstrip())
    if name == "crash":
        print("Segmentation fault", flush=True)
        os._exit(11)
    if name == "hang":
        time.sleep(60)
    answer = {"error": "ValueError: no"} if name == "error" else {"pid": os.getpid()}
    print(json.dumps(answer), file=answers, flush=True)
"""


def test_crashes_and_hangs_cost_one_object(tmp_path, monkeypatch):
    script = tmp_path / "session.py"
    script.write_text(FAKE_SESSION)
    monkeypatch.setattr(blender_process, "SESSION_SCRIPT", script)
    process = BlenderProcess(sys.executable)

    def ask(name, timeout_s=30.0):
        return process.ask(process.start() / name, timeout_s)

    first = ask("good")["pid"]
    assert ask("good")["pid"] == first
    with pytest.raises(RuntimeError, match="Blender failed: ValueError: no"):
        ask("error")
    assert ask("good")["pid"] == first
    with pytest.raises(RuntimeError, match="Blender ended: exit code 11, Segmentation fault"):
        ask("crash")
    second = ask("good")["pid"]
    assert second != first
    with pytest.raises(RuntimeError, match=r"longer than 0\.2 s"):
        ask("hang", 0.2)
    assert ask("good")["pid"] not in (first, second)
    folder = process.start()
    process.stop()
    assert not folder.exists()


def test_folders_of_killed_processes_are_deleted_at_the_next_start(tmp_path, monkeypatch):
    script = tmp_path / "session.py"
    script.write_text(FAKE_SESSION)
    monkeypatch.setattr(blender_process, "SESSION_SCRIPT", script)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    abandoned, foreign = tmp_path / "hi3d-blender-killed", tmp_path / "other"
    for folder in (abandoned, foreign):
        folder.mkdir()
        (folder / "log.txt").write_text("")
    first, second = BlenderProcess(sys.executable), BlenderProcess(sys.executable)
    in_use = first.start()
    assert not abandoned.exists()
    second.start()
    assert in_use.exists()
    assert foreign.exists()
    first.stop()
    second.stop()
    assert not list(tmp_path.glob("hi3d-blender-*"))


def test_read_exr_of_hand_packed_bytes(tmp_path):
    def attribute(name, kind, value):
        return name + b"\0" + kind + b"\0" + struct.pack("<i", len(value)) + value

    channels = b"".join(
        name + b"\0" + struct.pack("<iiii", pixel_type, 0, 1, 1)
        for name, pixel_type in ((b"A", 1), (b"Depth.Z", 2))
    )
    head = struct.pack("<ii", 20000630, 2) + attribute(b"channels", b"chlist", channels + b"\0")
    head += attribute(b"compression", b"compression", b"\0")
    head += attribute(b"dataWindow", b"box2i", struct.pack("<4i", 0, 0, 1, 2)) + b"\0"
    rows = [
        struct.pack("<ii2e2f", y, 12, 0.5 * y, 1.0, 1e10, y + 0.25) for y in (1, 0, 2)
    ]  # 2 halves and 2 floats a row, rows in any order
    path = tmp_path / "image.exr"
    path.write_bytes(head + b"\0" * 24 + b"".join(rows))
    image = read_exr(path)
    np.testing.assert_array_equal(image["A"], [[0, 1], [0.5, 1], [1, 1]])
    np.testing.assert_array_equal(image["Depth.Z"][:, 1], [0.25, 1.25, 2.25])
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="cut off"):
        read_exr(path)
    path.write_bytes(b"no image")
    with pytest.raises(ValueError, match="no OpenEXR"):
        read_exr(path)


def test_settings_are_checked():
    with pytest.raises(InputError, match="filter=TENT"):
        BlenderSettings(filter="TENT")


def test_the_configuration_for_evaluation_renders_as_the_syncdreamer_sets():
    path = Path(__file__).parents[2] / "configs" / "render_orbits" / "evaluation.yaml"
    cycles = OmegaConf.to_container(OmegaConf.load(path))["cycles"]
    assert BlenderSettings(**cycles) == SYNCDREAMER
