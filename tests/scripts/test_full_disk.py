"""Disks that are full and files that may not grow: one line for every script, and nothing lost."""

import contextlib
import os
import resource
import subprocess
from pathlib import Path

import pytest

from tests.scripts.jobs import JOBS, clear, contents, left_over

SCRIPTS = sorted(path.name for path in (Path(__file__).parents[2] / "scripts").glob("*.py"))
ELSEWHERE = {
    "demo.py",  # serves until it is stopped
    "train_small_model.py",  # the work of render_orbits.py and train.py, one after the other
}
SIZES = [0, 400, 3_000, 12_000, 50_000]
"""Of the disk or the largest file, in bytes; a step that is through is kept for the next."""


def test_no_script_is_left_out():
    assert {name.partition(" ")[0] for name in JOBS} == {*SCRIPTS} - ELSEWHERE


@pytest.fixture
def words(tmp_path, tiny_models, request):
    for name in ("inputs", "output"):
        (tmp_path / name).mkdir()
    return JOBS[request.param](tmp_path / "inputs", tmp_path / "output", tiny_models)


@contextlib.contextmanager
def files_of_at_most(size: int):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def check_refusal(finished, output: Path, before: dict[str, bytes], causes: tuple[str, ...]):
    """Checks that a run told its end, and cleaned up; gives the results that are there."""
    lines = [line for line in finished.err.splitlines() if line.startswith("error: ")]
    assert finished.code == 2, finished.err
    assert len(lines) == 1, finished.err
    assert "Traceback" not in finished.err
    assert any(cause in lines[0] for cause in causes), lines[0]
    elsewhere = ("run" in str(list(output.iterdir())), "/truth/" in lines[0])
    assert str(output) in lines[0] or any(elsewhere), lines[0]
    assert not left_over(output)
    now = contents(output)
    assert {name: now.get(name) for name in before} == before
    return now


@pytest.mark.parametrize("words", JOBS, indirect=True)
def test_files_that_may_not_grow(words, request, tmp_path, run_script):
    name = request.node.callspec.params["words"].partition(" ")[0]
    output = tmp_path / "output"
    there: dict[str, bytes] = {}
    refused = 0
    for size in SIZES:
        with files_of_at_most(size):
            finished = run_script(name, *words, "--quiet")
        if finished.code == 0:
            break
        if refused and name == "train.py":  # its earlier checkpoints are in the way
            break
        refused += 1
        there = check_refusal(finished, output, there, ("File too large",))
    assert refused


@pytest.fixture
def small_disk(tmp_path):
    """Mounts a disk of so many bytes as the output folder."""
    output = tmp_path / "output"
    mounted = []

    def mount(size: int) -> None:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(output)]
        if mounted:
            command = ["mount", "-o", f"remount,size={size}", str(output)]
        if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("only root mounts a disk")
        mounted.append(size)

    yield mount
    if mounted:
        subprocess.run(["umount", "-l", str(output)], check=False)


@pytest.mark.parametrize("words", JOBS, indirect=True)
def test_a_full_disk(words, request, tmp_path, run_script, small_disk):
    name = request.node.callspec.params["words"].partition(" ")[0]
    output = tmp_path / "output"
    there: dict[str, bytes] = {}
    for pages in (1, 3, 8, 24):
        small_disk(pages * 4096)
        (output / ".DS_Store").write_bytes(bytes(4096))
        there[".DS_Store"] = bytes(4096)
        finished = run_script(name, *words, "--quiet")
        if finished.code == 0 or (pages > 1 and name == "train.py"):
            break
        causes = ("No space left on device", "no space left", "is too small")
        there = check_refusal(finished, output, there, causes)
    clear(output)
