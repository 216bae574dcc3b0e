"""Runs that are killed and finished by the same call, and jobs on a Ray cluster."""

import hashlib
import json
import os
import random
import signal
import tarfile
import time

import pytest

from hi3d.orbits import run as orbits
from hi3d.orbits.config import OrbitRenderConfig
from hi3d.orbits.encoded_orbit import EncodedOrbit
from hi3d.orbits.run import RenderedObject, render_orbits
from hi3d.orbits.run_state import remove_partial_notes
from hi3d.progress import set_quiet
from hi3d.workers.pool import WorkerLimits
from hi3d.workers.ray_executor import run_jobs_on_ray

NUM_OBJECTS = 12


def fake_render(job):
    """Bytes that follow from the uid, at about the speed of the disk."""
    time.sleep(0.002)
    (orbit,) = job.orbits
    seed = hashlib.sha256(orbit.uid.encode()).digest()
    images = [seed * (50 + 16 * seed[i]) for i in range(4)]
    cameras = json.dumps({"uid": orbit.uid}).encode()
    return RenderedObject([EncodedOrbit(orbit.uid, images, [], [], cameras)], "fake")


def shard_members(output):
    """Every member of the shards, which must be whole, with none twice."""
    members = {}
    for path in sorted(output.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                assert member.name not in members
                members[member.name] = tar.extractfile(member).read()
                assert len(members[member.name]) == member.size
    return members


def folder_members(output):
    return {str(p.relative_to(output)): p.read_bytes() for p in output.glob("[!.]*/*")}


def written(output):
    return sum(p.stat().st_size for p in output.rglob("*") if p.is_file())


@pytest.mark.parametrize(
    ("form", "members"), [("shards", shard_members), ("folder", folder_members)]
)
def test_killed_at_any_moment(tmp_path, monkeypatch, form, members):
    """SIGKILL after a random number of bytes, again and again, until a run comes to its end."""
    monkeypatch.setattr(orbits, "render_object", fake_render)
    objects = [tmp_path / f"o{i}.obj" for i in range(NUM_OBJECTS)]
    for path in objects:
        path.touch()
    config = OrbitRenderConfig(format=form, num_workers=0, objects_per_shard=5, backend="embreex")
    draw, kills = random.Random(form), 0
    output = tmp_path / "killed"
    render_orbits(objects, tmp_path / "whole", config)
    whole = members(tmp_path / "whole")
    while True:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                set_quiet(True)
                render_orbits(objects, output, config)
                code = 0
            finally:
                os._exit(code)
        start = written(output) if output.exists() else 0
        limit = start + draw.randrange(800_000)
        while True:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                break
            time.sleep(0.001)
            try:
                over = written(output) > limit
            except FileNotFoundError:  # renamed in between
                over = True
            if over:
                os.kill(child, signal.SIGKILL)
                _, status = os.waitpid(child, 0)
                kills += 1
                break
        if not os.WIFSIGNALED(status):
            assert os.WEXITSTATUS(status) == 0
            break
        for name, data in members(output).items():  # what can be read is right at any moment
            assert data == whole[name]
    assert kills >= 3
    assert members(output) == whole
    assert not list(output.glob(".*"))
    if form == "shards":
        index = json.loads((output / "index.json").read_text())
        assert index["num_orbits"] == NUM_OBJECTS


def test_on_a_ray_cluster():
    """A cluster on this machine; one job fails and one ends its process."""
    ray = pytest.importorskip("ray")
    jobs = ["1 + 1", "1 / 0", "__import__('os')._exit(3)", "'a' * 3"]
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        outcomes = {o.job: o for o in run_jobs_on_ray(eval, jobs, None, WorkerLimits())}
    finally:
        ray.shutdown()
    assert [outcomes[job].result for job in jobs] == [2, None, None, "aaa"]
    assert [outcomes[job].cause for job in jobs] == ["", "ZeroDivisionError", "crash", ""]


def test_notes_that_a_kill_left_are_removed(tmp_path):
    for name in (".index.77.part.json", ".settings.8.part.json", ".index-0001.9.part.json"):
        (tmp_path / name).touch()
    remove_partial_notes(tmp_path, "")
    assert [path.name for path in tmp_path.iterdir()] == [".index-0001.9.part.json"]
    remove_partial_notes(tmp_path, "-0001")
    assert not list(tmp_path.iterdir())
