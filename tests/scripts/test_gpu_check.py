"""The check of a GPU, with tiny sizes on the CPU."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from hi3d.errors import InputError

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "benchmarks"


@pytest.fixture
def gpu_check(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module("gpu_check")
    for name in [name for name in sys.modules if name.startswith("gpu_")]:
        del sys.modules[name]


def test_a_part_runs_and_is_written(tmp_path):
    words = ["--tiny", "--only", "half_precision", "--output", tmp_path]
    done = subprocess.run([sys.executable, FOLDER / "gpu_check.py", *words], check=False)
    assert done.returncode == 0
    (part,) = json.loads((tmp_path / "gpu_check.json").read_text())["parts"]
    errors = {row["what"]: row["value"] for row in part["rows"]}
    assert 0 < errors["float16 against float32"] < errors["bfloat16 against float32"] < 0.1
    assert "| half_precision | float16 against float32 |" in (tmp_path / "gpu_check.md").read_text()


@pytest.mark.parametrize(
    "name", ["rasterization", "marching", "torch_neus", "vae", "stage1", "stage2", "training"]
)
def test_every_part_measures(name, gpu_check):
    rows = gpu_check.part_of(name)(gpu_check.Size(True))
    assert all(row.value > 0 for row in rows if row.unit in ("s", "ms", "x", "TFLOP"))
    assert any(row.unit in ("s", "ms") for row in rows)
    assert all(row.value > 0 for row in rows if "planned without" in row.what)


def test_a_part_that_fails_is_a_row(gpu_check, monkeypatch):
    sent = []

    def fail(size):
        raise RuntimeError("CUDA out of memory | 80 GB\nmore")

    monkeypatch.setattr(gpu_check, "part_of", lambda name: fail)
    gpu_check.measure(
        "stage2", True, type("Pipe", (), {"send": lambda _, item: sent.append(item)})()
    )
    assert sent == [{"fault": "RuntimeError: CUDA out of memory | 80 GB"}]
    good = {"what": "one step", "value": 2.0, "unit": "s", "goal": "<= 3 s"}
    unknown = {"what": "MFU", "value": float("nan"), "unit": "%", "goal": ""}
    parts = [{"part": "a", "rows": [], **sent[0]}, {"part": "b", "rows": [good, unknown]}]
    lines = gpu_check.table(parts, "title").splitlines()[4:]
    assert lines == [
        "| a | **failed**: RuntimeError: CUDA out of memory / 80 GB | | |",
        "| b | one step | 2 s | <= 3 s |",
        "| b | MFU | - |  |",
    ]
    assert "| b | one step | 2 s |  |" in gpu_check.table(parts, "title", tiny=True)


def test_without_a_gpu_only_tiny_sizes_run(gpu_check, monkeypatch, tmp_path):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--output", str(tmp_path / "out")])
    with pytest.raises(InputError, match="add --tiny"):
        gpu_check.main()
    assert not (tmp_path / "out").exists()


def test_a_part_has_its_time(gpu_check):
    assert gpu_check.measured("half_precision", True, 0.01)["fault"] == "not done after 0.01 s"
    assert sum(gpu_check.BUDGETS_S.values()) < 600
    assert {part for parts in gpu_check.MODULES.values() for part in parts} == set(
        gpu_check.BUDGETS_S
    )


def test_the_tests_that_it_runs_are_there(gpu_check):
    parts = importlib.import_module("gpu_parts.cuda_tests")
    assert parts.DESELECTED.split("::")[1] in (ROOT / parts.DESELECTED.split("::")[0]).read_text()
    for file in parts.FILES:
        assert "cuda" in (ROOT / file).read_text()
