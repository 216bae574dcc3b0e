"""Whole collections to orbits: what lies on disk, failures, going on, and parts."""

import contextlib
import io
import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
import webdataset
from PIL import Image

from hi3d.cameras import ORBIT_DISTANCE
from hi3d.errors import InputError
from hi3d.orbits import run as orbits
from hi3d.orbits.config import OrbitRenderConfig
from hi3d.orbits.run import render_orbits
from hi3d.orbits.run_state import FailureLog, locked
from hi3d.views import Views, load_depth

RESOLUTION = 32


def small(**changes):
    defaults = {"resolution": RESOLUTION, "num_views": 4, "num_workers": 0}
    return OrbitRenderConfig(**(defaults | changes))


@pytest.fixture
def boxes(tmp_path):
    """Three unit cubes, one of them in a subfolder, and nothing else."""
    folder = tmp_path / "objects"
    (folder / "kit 1.0").mkdir(parents=True)
    for name in ("a.glb", "b.obj", "kit 1.0/c.d.glb"):
        trimesh.creation.box().export(folder / name)
    return folder


def read_samples(output):
    """Samples by key, as plain webdataset reads them."""
    shards = [str(path) for path in sorted(output.glob("*.tar"))]
    return {s["__key__"]: s for s in webdataset.WebDataset(shards, shardshuffle=False)}


def failures(output, name="failures.jsonl"):
    return [json.loads(line) for line in (output / name).read_text().splitlines()]


def test_folder_format_is_views_and_depth(boxes, tmp_path):
    output = tmp_path / "orbits"
    summary = render_orbits(boxes / "a.glb", output, small(format="folder", elevation_deg=0))
    assert (summary.num_rendered, summary.num_failed, summary.num_views) == (1, 0, 4)
    assert summary.num_bytes == sum(path.stat().st_size for path in (output / "a").iterdir())
    views = Views.load(output / "a")
    assert len(views) == 4
    assert torch.allclose(views.cameras.azimuth_deg, torch.tensor([0.0, 90, 180, 270]), atol=1e-3)
    # A unit cube seen face on: the face is 1.0 away, so it spans 1 / (2 tan(fov / 2)) of the image,
    # with the face's true size being 1: 0.5 / (16 / 35) = 1.094 > 1, so it fills the image.
    assert views.alpha.min() == 1
    depth = load_depth(output / "a" / "000-depth.png")
    assert depth.shape == (RESOLUTION, RESOLUTION)
    assert (depth - (ORBIT_DISTANCE - 0.5)).abs().max() < 1e-3
    assert sorted(path.name for path in output.iterdir()) == [
        *("a", "failures.jsonl", "report.json", "settings.json")
    ]


def test_empty_pixels_are_white_and_without_depth(tmp_path):
    trimesh.creation.box(extents=(1, 0.1, 0.1)).export(tmp_path / "bar.ply")
    render_orbits(tmp_path / "bar.ply", tmp_path / "o", small(format="folder", elevation_deg=0))
    views = Views.load(tmp_path / "o" / "bar")
    assert (views.alpha[0, 0, 0] == 0).all()
    assert (views.rgb[0, :, 0] == 1).all()
    corner = load_depth(tmp_path / "o" / "bar" / "000-depth.png")[0, 0]
    assert corner.item() == 0


def test_a_stretched_orbit_shows_other_proportions(boxes, tmp_path):
    config = small(format="folder", orbits_per_object=2, stretch=1.0, seed=1)
    for name, changed in (("stretched", config), ("plain", replace(config, stretch=0.0))):
        render_orbits(boxes / "a.glb", tmp_path / name, changed)
    for i in range(4):  # the first half is as it was
        files = [tmp_path / name / f"a-orbit00/{i:03d}.png" for name in ("stretched", "plain")]
        assert files[0].read_bytes() == files[1].read_bytes()
    cube, box = (Views.load(tmp_path / name / "a-orbit01") for name in ("plain", "stretched"))
    assert torch.equal(box.cameras.positions, cube.cameras.positions)
    assert box.alpha.mean() < 0.9 * cube.alpha.mean()  # its other sides are shorter
    with pytest.raises(InputError, match=r"stretch=1\.0, not 0\.0"):
        render_orbits(boxes / "a.glb", tmp_path / "stretched", replace(config, stretch=0.0))


def test_a_stretched_object_fits_the_frame(tmp_path):
    trimesh.creation.icosphere(subdivisions=2).export(tmp_path / "ball.ply")
    config = small(format="folder", orbits_per_object=8, stretch=0.4)
    render_orbits(tmp_path / "ball.ply", tmp_path / "o", config)
    alpha = [Views.load(tmp_path / "o" / f"ball-orbit{k:02d}").alpha[:, 0] for k in range(8)]
    for views in alpha:
        assert (views[:, [0, -1]] == 0).all()
        assert (views[..., [0, -1]] == 0).all()
        assert views.any()
    plain = torch.stack(alpha[:4]).mean(dim=(2, 3))  # [4, V]: a ball looks alike from everywhere
    assert (plain - plain.mean()).abs().max() < 0.01
    for views in alpha[4:]:
        assert (views.mean(dim=(1, 2)) - plain.mean()).abs().max() > 0.02


def test_a_folder_without_a_note_of_the_stretch_has_none(boxes, tmp_path):
    config = small(format="folder", orbits_per_object=2)
    render_orbits(boxes / "a.glb", tmp_path / "o", config)
    path = tmp_path / "o" / "settings.json"
    noted = json.loads(path.read_text())
    assert noted.pop("stretch") == 0
    path.write_text(json.dumps(noted))
    assert render_orbits(boxes / "a.glb", tmp_path / "o", config).num_skipped == 1
    with pytest.raises(InputError, match=r"stretch=0\.0, not 0\.4"):
        render_orbits(boxes / "a.glb", tmp_path / "o", replace(config, stretch=0.4))


def test_shards_are_readable_with_plain_webdataset(boxes, tmp_path):
    output = tmp_path / "orbits"
    render_orbits(boxes, output, small(objects_per_shard=2))
    samples = read_samples(output)
    assert set(samples) == {"a", "b", "kit_1_0__c_d"}
    for sample in samples.values():
        content = json.loads(sample["json"])
        assert len(content["frames"]) == 4
        assert -10 <= content["elevation_deg"] <= 40
        assert content["frames"][2]["elevation_deg"] == pytest.approx(content["elevation_deg"])
        assert content["source"] in {"a.glb", "b.obj", "c.d.glb"}
        for i in range(4):
            image = Image.open(io.BytesIO(sample[f"{i:03d}.png"]))
            assert (image.mode, image.size) == ("RGBA", (RESOLUTION, RESOLUTION))
            assert Image.open(io.BytesIO(sample[f"{i:03d}.depth.png"])).mode == "I;16"
    report = json.loads((output / "report.json").read_text())
    assert report["steps"]["render"]["num_rendered"] == 3
    assert report["steps"]["render"]["views_per_second"] > 0


def test_webp_normals_and_eight_bit_depth(boxes, tmp_path):
    """The same orbit in both image formats; a cube's normals are its axes."""
    look = {"elevation_deg": 0, "save_normals": True}
    render_orbits(boxes / "a.glb", tmp_path / "png", small(**look))
    config = small(image_format="webp", depth_bits=8, **look)
    render_orbits(boxes / "a.glb", tmp_path / "webp", config)
    (png,) = read_samples(tmp_path / "png").values()
    (webp,) = read_samples(tmp_path / "webp").values()
    assert json.loads(webp["json"])["frames"][3]["file"] == "003.webp"
    for i in range(4):
        theirs = np.asarray(Image.open(io.BytesIO(png[f"{i:03d}.png"])))
        ours = Image.open(io.BytesIO(webp[f"{i:03d}.webp"]))
        assert np.array_equal(np.asarray(ours.convert("RGBA")), theirs)
    deep = np.asarray(Image.open(io.BytesIO(png["000.depth.png"])))
    flat = np.asarray(Image.open(io.BytesIO(webp["000.depth.png"])))
    # The front face is 1.5 - 0.5 away: (1.0 - 0.6) / 1.8 of the range.
    assert (deep[16, 16], flat[16, 16]) == (round(0.4 / 1.8 * 65535), round(0.4 / 1.8 * 255))
    normals = np.asarray(Image.open(io.BytesIO(webp["000.normal.png"]))).astype(int)
    assert abs(normals[16, 16] - [255, 128, 128]).max() <= 1  # towards the camera at +x
    render_orbits(boxes / "a.glb", tmp_path / "far", replace(config, distance=4.0, depth_bits=0))
    (far,) = read_samples(tmp_path / "far").values()
    assert "000.depth.png" not in far
    corner = np.asarray(Image.open(io.BytesIO(far["000.normal.png"])))[0, 0]
    assert corner.tolist() == [128, 128, 128]


def test_official_format(boxes, tmp_path):
    elevations = [-10, 0, 30]
    config = small(format="official", elevation_deg=elevations, depth_bits=0)
    assert render_orbits(boxes, tmp_path / "o", config).num_rendered == 3
    assert len(list((tmp_path / "o" / "a").iterdir())) == 12
    render_orbits(boxes / "a.glb", tmp_path / "one", small(format="folder", elevation_deg=30))
    ours = np.asarray(Image.open(tmp_path / "one" / "a" / "001.png"), np.float32)
    theirs = np.asarray(Image.open(tmp_path / "o" / "a" / "009.png"), np.float32)  # 2 * 4 + 1
    assert np.array_equal(ours[..., 3], theirs[..., 3])
    soft = (ours[..., 3] > 0) & (ours[..., 3] < 255)
    assert soft.sum() > 5
    # Theirs is the box's grey alone, also at the edge, and becomes ours over white.
    assert theirs[soft][:, :3].std(axis=0).max() < 6 < ours[soft][:, :3].std(axis=0).min()
    alpha = theirs[..., 3:] / 255
    assert np.abs(theirs[..., :3] * alpha + 255 * (1 - alpha) - ours[..., :3]).max() <= 1
    assert render_orbits(boxes, tmp_path / "o", config).num_skipped == 3


def test_failures_are_recorded_and_tried_again(boxes, tmp_path):
    output = tmp_path / "o"
    (boxes / "broken.glb").write_bytes(b"not a mesh")
    (boxes / "empty.obj").write_text("v 0 0 0\n")
    summary = render_orbits(boxes, output, small())
    assert (summary.num_objects, summary.num_rendered, summary.num_failed) == (5, 3, 2)
    assert summary.failures == {"bad input": 2}
    entries = {entry["uid"]: entry for entry in failures(output)}
    assert set(entries) == {"broken", "empty"}
    assert entries["broken"]["object"] == str(boxes / "broken.glb")
    assert entries["broken"]["reason"]
    assert entries["broken"]["seconds"] >= 0
    summary = render_orbits(boxes, output, small(retry_failures=False))
    assert (summary.num_skipped, summary.num_rendered, summary.num_failed) == (3, 0, 2)
    trimesh.creation.box().export(boxes / "broken.glb")
    summary = render_orbits(boxes, output, small())
    assert (summary.num_skipped, summary.num_rendered, summary.num_failed) == (3, 1, 1)
    assert [entry["uid"] for entry in failures(output)] == ["empty"]


def test_failure_log_survives_a_kill(tmp_path):
    path = tmp_path / "failures.jsonl"
    log = FailureLog(path)
    log.add("a", "a.glb", "too slow", "time limit", 3.0)
    log.add("b", "b.glb", "broken", "bad input", 0.1)
    path.write_text(path.read_text() + '{"object": "c.glb", "uid": "c", "rea')
    log = FailureLog(path)
    assert list(log.entries) == ["a", "b"]
    log.add("a", "a.glb", "too large", "memory limit", 2.0)
    log.remove("b")
    log.add("c", "c.glb", "broken", "bad input", 0.1)
    assert [(e["uid"], e["reason"]) for e in failures(tmp_path)] == [
        ("a", "too large"),
        ("c", "broken"),
    ]


def test_nothing_rendered_is_an_error(tmp_path):
    (tmp_path / "broken.glb").write_bytes(b"not a mesh")
    with pytest.raises(InputError, match=r"none of 1 objects .*failures\.jsonl"):
        render_orbits(tmp_path / "broken.glb", tmp_path / "o", small())


@pytest.mark.parametrize("form", ["folder", "shards"])
def test_an_interrupted_run_is_finished_by_the_same_call(boxes, tmp_path, monkeypatch, form):
    output, config = tmp_path / "o", small(format=form)
    real, done = orbits.render_object, []

    def interrupted(job):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(job)
        return real(job)

    monkeypatch.setattr(orbits, "render_object", interrupted)
    with pytest.raises(KeyboardInterrupt):
        render_orbits(boxes, output, config)
    assert not list(output.glob(".*"))
    monkeypatch.setattr(orbits, "render_object", real)
    with pytest.raises(InputError, match="num_views=4, not 5"):
        render_orbits(boxes, output, small(format=form, num_views=5))
    with pytest.raises(InputError, match="num_parts=1, not 2"):
        render_orbits(boxes, output, small(format=form, shard="0/2"))
    summary = render_orbits(boxes, output, config)
    assert (summary.num_skipped, summary.num_rendered) == (2, 1)
    if form == "shards":
        assert set(read_samples(output)) == {"a", "b", "kit_1_0__c_d"}
        assert len(list(output.glob("*.tar"))) == 2
    again = render_orbits(boxes, output, config)
    assert (again.num_skipped, again.num_rendered) == (3, 0)


def test_a_folder_in_use_or_of_something_else_is_refused(boxes, tmp_path):
    output = tmp_path / "o"
    output.mkdir()
    with locked(output / ".run.lock"), pytest.raises(InputError, match="another run writes to"):
        render_orbits(boxes, output, small())
    assert not list(output.iterdir())
    (output / "mine.tar").write_text("precious")
    with pytest.raises(InputError, match="holds data of something else"):
        render_orbits(boxes, output, small())
    assert [path.name for path in output.iterdir()] == ["mine.tar"]


def test_a_full_disk_is_one_line(boxes, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hi3d.orbits.shard_writer.os.pwrite", full)
    with pytest.raises(InputError, match=r"no space left for .*run the same command again"):
        render_orbits(boxes, tmp_path / "o", small())
    monkeypatch.undo()
    assert render_orbits(boxes, tmp_path / "o", small()).num_rendered == 3


def test_parts_make_one_whole(boxes, tmp_path):
    for i in range(6):
        trimesh.creation.box().export(boxes / f"more{i}.glb")
    counts = []
    for part in range(3):
        config = small(shard=f"{part}/3")
        counts.append(render_orbits(boxes, tmp_path / "o", config).num_rendered)
    assert sum(counts) == 9
    render_orbits(boxes, tmp_path / "whole", small())
    parts, whole = read_samples(tmp_path / "o"), read_samples(tmp_path / "whole")
    assert set(parts) == set(whole)
    for uid, sample in whole.items():
        for name in set(sample) - {"__url__", "__local_path__"}:
            assert parts[uid][name] == sample[name]
    index = json.loads((tmp_path / "o" / "index.json").read_text())
    assert (index["num_orbits"], index["complete"]) == (9, True)


@pytest.mark.parametrize("form", ["folder", "shards"])
def test_failures_of_all_parts_lie_in_one_file_after_the_last(tmp_path, form):
    objects, output = tmp_path / "objects", tmp_path / "o"
    objects.mkdir()
    trimesh.creation.box().export(objects / "good.glb")
    for i in range(7):  # every part gets some of them
        (objects / f"broken{i}.glb").write_bytes(b"not a mesh")
    for part in (2, 0, 1):
        assert not (output / "failures.jsonl").exists()
        with contextlib.suppress(InputError):  # "none of 2 objects could be rendered"
            render_orbits(objects, output, small(format=form, shard=f"{part}/3"))
    assert sorted(e["uid"] for e in failures(output)) == [f"broken{i}" for i in range(7)]
    trimesh.creation.box().export(objects / "broken0.glb")
    for part in range(3):
        with contextlib.suppress(InputError):
            render_orbits(objects, output, small(format=form, shard=f"{part}/3"))
    assert sorted(e["uid"] for e in failures(output)) == [f"broken{i}" for i in range(1, 7)]
    assert (output / "index.json").exists() == (form == "shards")


def test_orbits_do_not_depend_on_the_collection(boxes, tmp_path):
    config = small(format="folder", orbits_per_object=2)
    render_orbits(boxes, tmp_path / "all", config)
    render_orbits(boxes / "a.glb", tmp_path / "one", config)
    assert sorted(p.name for p in (tmp_path / "one").iterdir() if p.is_dir()) == [
        "a-orbit00",
        "a-orbit01",
    ]
    for path in (tmp_path / "one" / "a-orbit01").iterdir():
        assert path.read_bytes() == (tmp_path / "all" / "a-orbit01" / path.name).read_bytes()


def test_worker_processes_give_the_same_orbits(boxes, tmp_path):
    here = render_orbits(boxes, tmp_path / "here", small(format="folder"))
    there = render_orbits(boxes, tmp_path / "there", small(format="folder", num_workers=1))
    assert here.backends == there.backends
    for path in sorted((tmp_path / "here").glob("*/*.png")):
        expected, got = (
            np.asarray(Image.open(file)).astype(int)
            for file in (path, tmp_path / "there" / path.relative_to(tmp_path / "here"))
        )
        assert abs(expected - got).max() == 0, f"{path}: {(expected != got).sum()} values differ"
    for path in (tmp_path / "here").glob("*/*"):
        there_path = tmp_path / "there" / path.relative_to(tmp_path / "here")
        assert path.read_bytes() == there_path.read_bytes(), path


def test_ray_is_optional(boxes, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not installed
    with pytest.raises(InputError, match=r"pip install 'hi3d\[ray\]'"):
        render_orbits(boxes, tmp_path / "o", small(executor="ray", num_workers=None))


def test_no_objects(tmp_path):
    with pytest.raises(InputError, match="no object"):
        render_orbits(tmp_path / "absent.glb", tmp_path / "o", small())
