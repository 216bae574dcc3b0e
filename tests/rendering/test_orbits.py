"""Whole collections to orbits: naming, determinism, failures, resume, and what lies on disk."""

import io
import json
import tarfile

import numpy as np
import pytest
import torch
import trimesh
import webdataset
from PIL import Image

from hi3d.cameras import FOV_DEG, ORBIT_DISTANCE
from hi3d.config import load_config
from hi3d.errors import InputError
from hi3d.rendering import orbits
from hi3d.rendering.orbit_files import ShardWriter
from hi3d.rendering.orbits import (
    OrbitRenderConfig,
    find_objects,
    orbit_elevation_deg,
    render_orbits,
)
from hi3d.rendering.worker_pool import run_jobs
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


def uids_in(shard):
    with tarfile.open(shard) as tar:
        return {name.partition(".")[0] for name in tar.getnames()}


def test_uids_are_paths_without_dots_and_stay_distinct(boxes):
    assert sorted(find_objects(boxes)) == ["a", "b", "kit_1_0__c_d"]
    (boxes / "a.obj").write_text("")
    uids = find_objects(boxes)
    assert len(uids) == 4
    assert "a" not in uids
    assert sum(uid.startswith("a-") for uid in uids) == 2
    assert not any("." in uid for uid in uids)


def test_long_uids_are_shortened_but_stay_distinct(tmp_path):
    for ending in "xy":
        (tmp_path / f"{'n' * 120}{ending}.glb").touch()
    uids = list(find_objects(tmp_path))
    assert len(set(uids)) == 2
    assert all(len(uid) == 80 for uid in uids)


def test_random_elevations_are_stable_and_uniform():
    config = small(seed=3)
    drawn = np.array([orbit_elevation_deg(config, f"object{i}", 0) for i in range(2000)])
    assert drawn.min() >= -10
    assert drawn.max() < 40
    # U[-10, 40]: mean 15, standard deviation 50 / sqrt(12) = 14.43
    assert abs(drawn.mean() - 15) < 1
    assert abs(drawn.std() - 14.43) < 0.5
    assert drawn[7] == orbit_elevation_deg(small(seed=3), "object7", 0)
    assert drawn[7] != orbit_elevation_deg(config, "object7", 1)
    assert drawn[7] != orbit_elevation_deg(small(seed=4), "object7", 0)
    assert orbit_elevation_deg(small(elevation_deg=20), "object7", 0) == 20


def test_folder_format_is_views_and_depth(boxes, tmp_path):
    output = tmp_path / "orbits"
    summary = render_orbits(boxes / "a.glb", output, small(format="folder", elevation_deg=0))
    assert (summary.num_rendered, summary.num_failed) == (1, 0)
    views = Views.load(output / "a")
    assert len(views) == 4
    assert torch.allclose(views.cameras.azimuth_deg, torch.tensor([0.0, 90, 180, 270]), atol=1e-3)
    # A unit cube seen face on: the face is 1.0 away, so it spans 1 / (2 tan(fov / 2)) of the image,
    # with the face's true size being 1: 0.5 / (16 / 35) = 1.094 > 1, so it fills the image.
    assert views.alpha.min() == 1
    depth = load_depth(output / "a" / "000-depth.png")
    assert depth.shape == (RESOLUTION, RESOLUTION)
    assert (depth - (ORBIT_DISTANCE - 0.5)).abs().max() < 1e-3


def test_empty_pixels_are_white_and_without_depth(tmp_path):
    trimesh.creation.box(extents=(1, 0.1, 0.1)).export(tmp_path / "bar.ply")
    render_orbits(tmp_path / "bar.ply", tmp_path / "o", small(format="folder", elevation_deg=0))
    views = Views.load(tmp_path / "o" / "bar")
    assert (views.alpha[0, 0, 0] == 0).all()
    assert (views.rgb[0, :, 0] == 1).all()
    corner = load_depth(tmp_path / "o" / "bar" / "000-depth.png")[0, 0]
    assert corner.item() == pytest.approx(0.6)


def test_shards_are_readable_with_plain_webdataset(boxes, tmp_path):
    output = tmp_path / "orbits"
    render_orbits(boxes, output, small(objects_per_shard=2))
    shards = sorted(output.glob("*.tar"))
    assert [shard.name for shard in shards] == ["orbits-000000.tar", "orbits-000001.tar"]
    samples = list(webdataset.WebDataset([str(s) for s in shards], shardshuffle=False))
    assert {sample["__key__"] for sample in samples} == {"a", "b", "kit_1_0__c_d"}
    for sample in samples:
        content = json.loads(sample["json"])
        assert len(content["frames"]) == 4
        assert -10 <= content["elevation_deg"] <= 40
        assert content["frames"][2]["elevation_deg"] == pytest.approx(content["elevation_deg"])
        assert content["source"] in {"a.glb", "b.obj", "c.d.glb"}
        for i in range(4):
            image = Image.open(io.BytesIO(sample[f"{i:03d}.png"]))
            assert (image.mode, image.size) == ("RGBA", (RESOLUTION, RESOLUTION))
            assert Image.open(io.BytesIO(sample[f"{i:03d}.depth.png"])).mode == "I;16"
    index = json.loads((output / "index.json").read_text())
    assert index["num_orbits"] == 3
    assert [shard["num_orbits"] for shard in index["shards"]] == [2, 1]
    assert index["num_bytes"] == sum(shard.stat().st_size for shard in shards)
    report = json.loads((output / "report.json").read_text())
    assert report["steps"]["render"]["num_rendered"] == 3


def test_shard_size_is_bounded(boxes, tmp_path):
    render_orbits(boxes, tmp_path / "o", small(max_shard_bytes=1))
    assert len(list((tmp_path / "o").glob("*.tar"))) == 3


def test_a_bad_object_is_recorded_and_the_rest_is_rendered(boxes, tmp_path):
    (boxes / "broken.glb").write_bytes(b"not a mesh")
    summary = render_orbits(boxes, tmp_path / "o", small())
    assert (summary.num_objects, summary.num_rendered, summary.num_failed) == (4, 3, 1)
    lines = (tmp_path / "o" / "failures.jsonl").read_text().splitlines()
    assert [json.loads(line)["object"] for line in lines] == [str(boxes / "broken.glb")]
    assert json.loads(lines[0])["reason"]


def test_nothing_rendered_is_an_error(tmp_path):
    (tmp_path / "broken.glb").write_bytes(b"not a mesh")
    with pytest.raises(InputError, match=r"none of 1 objects .*failures\.jsonl"):
        render_orbits(tmp_path / "broken.glb", tmp_path / "o", small())


@pytest.mark.parametrize("form", ["folder", "shards"])
def test_an_interrupted_run_keeps_what_was_finished_and_resumes(boxes, tmp_path, monkeypatch, form):
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
    with pytest.raises(InputError, match="resume=true"):
        render_orbits(boxes, output, config)
    with pytest.raises(InputError, match="num_views=4"):
        render_orbits(boxes, output, small(format=form, resume=True, num_views=5))
    summary = render_orbits(boxes, output, small(format=form, resume=True))
    assert (summary.num_skipped, summary.num_rendered) == (2, 1)
    if form == "shards":
        stored = [uids_in(shard) for shard in sorted(output.glob("*.tar"))]
        assert [len(uids) for uids in stored] == [2, 1]
        assert set.union(*stored) == set(find_objects(boxes))
    again = render_orbits(boxes, output, small(format=form, resume=True))
    assert (again.num_skipped, again.num_rendered) == (3, 0)


def test_a_killed_run_loses_the_open_shard_only(boxes, tmp_path):
    output = tmp_path / "o"
    render_orbits(boxes, output, small(objects_per_shard=1))
    kept = sorted(output.glob("*.tar"))[:2]
    for shard in sorted(output.glob("*.tar"))[2:]:  # as a kill leaves it: half a tar, stale index
        shard.rename(output / f".{shard.name}.part")
    (output / "index.json").unlink()
    writer = ShardWriter(output, 1, 10**9)
    assert writer.finished == set.union(*map(uids_in, kept))
    summary = render_orbits(boxes, output, small(objects_per_shard=1, resume=True))
    assert (summary.num_skipped, summary.num_rendered) == (2, 1)
    assert not list(output.glob(".*"))


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
    render_orbits(boxes, tmp_path / "here", small(format="folder"))
    render_orbits(boxes, tmp_path / "there", small(format="folder", num_workers=1))
    for path in (tmp_path / "here").glob("*/*"):
        assert (
            path.read_bytes()
            == (tmp_path / "there" / path.relative_to(tmp_path / "here")).read_bytes()
        )


def test_a_dead_worker_and_a_slow_one_cost_only_their_jobs():
    # exec is a builtin, so the spawned process has little to import.
    jobs = ["1 + 1", "import os; os._exit(3)", "import time; time.sleep(60)", "1 / 0", "2"]
    outcomes = {outcome.job: outcome.failure for outcome in run_jobs(exec, jobs, 1, timeout_s=1.5)}
    assert outcomes == {
        jobs[0]: None,
        jobs[1]: "its process ended with exit code 3",
        jobs[2]: "took longer than 1.5 s",
        jobs[3]: "ZeroDivisionError: division by zero",
        jobs[4]: None,
    }


def test_config_checks(tmp_path):
    for changes in (
        {"format": "zip"},
        {"elevation_deg": "high"},
        {"elevation_deg": 90},
        {"elevation_deg": 20, "orbits_per_object": 2},
        {"num_views": 0},
        {"distance": 3.0},
    ):
        with pytest.raises(InputError):
            OrbitRenderConfig(**changes)
    with pytest.raises(InputError, match="no object"):
        render_orbits(tmp_path / "absent.glb", tmp_path / "o", small())
    with pytest.raises(InputError, match="holds no object"):
        find_objects(tmp_path)


def test_config_from_the_command_line(request):
    yaml = request.config.rootpath / "configs" / "render_orbits.yaml"
    config = load_config(OrbitRenderConfig, yaml, ["elevation_deg=20", "distance=1.5"])
    assert (config.elevation_deg, config.resolution, config.fov_deg) == (20, 512, FOV_DEG)
    assert load_config(OrbitRenderConfig, yaml).elevation_deg == "random"
    assert load_config(OrbitRenderConfig, yaml, ["elevation_deg=-7.5"]).elevation_deg == -7.5
    with pytest.raises(InputError, match="elevation_deg=high"):
        load_config(OrbitRenderConfig, yaml, ["elevation_deg=high"])
