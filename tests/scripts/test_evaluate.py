import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from hi3d.cameras import orbit_cameras
from hi3d.views import Views

SCRIPT = Path(__file__).parents[2] / "scripts" / "evaluate.py"


def evaluate(*words: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, words)], capture_output=True, text=True
    )


def test_views_are_scored(tmp_path):
    cameras = orbit_cameras(10, 16, num_views=2)
    alpha = torch.ones(2, 1, 16, 16)
    Views(torch.full((2, 3, 16, 16), 0.2), alpha, cameras).save(tmp_path / "gt")
    Views(torch.full((2, 3, 16, 16), 0.4), alpha, cameras).save(tmp_path / "pred")
    result = evaluate(
        "views", "--pred", tmp_path / "pred", "--gt", tmp_path / "gt",
        "--json", tmp_path / "s.json", "data_range=1.0",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    scores = json.loads((tmp_path / "s.json").read_text())["objects"]["pred"]
    # Both greys are whole 8-bit values, 51 and 102: error 0.2, -20 log10 0.2 = 13.979 dB.
    assert scores["psnr"] == pytest.approx(13.9794, abs=1e-3)
    assert "| pred | 13.9794 |" in result.stdout


def test_meshes_are_scored(tmp_path):
    trimesh.creation.box((0.5, 0.5, 0.5)).export(tmp_path / "gt.ply")
    trimesh.creation.box((0.5, 0.5, 0.25)).export(tmp_path / "pred.ply")
    result = evaluate(
        "mesh", "--pred", tmp_path / "pred.ply", "--gt", tmp_path / "gt.ply",
        "--json", tmp_path / "s.json", "num_samples=2000",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    scores = json.loads((tmp_path / "s.json").read_text())["mean"]
    assert scores["volume_iou"] == pytest.approx(0.5)
    assert set(scores) == {"chamfer_distance", "volume_iou", "f_score"}


def test_the_true_mesh_is_turned_back_by_the_azimuth_of_the_photo(tmp_path):
    rod = trimesh.creation.box(
        (0.6, 0.1, 0.1), trimesh.transformations.translation_matrix((0.2, 0, 0))
    )
    rod.export(tmp_path / "pred.ply")
    # What a photo from azimuth 50 calls the front lies at azimuth 50 of the true mesh.
    angle = np.deg2rad(50)
    rod.apply_transform(trimesh.transformations.rotation_matrix(angle, (0, 0, 1)))
    rod.export(tmp_path / "gt.ply")
    result = evaluate(
        "mesh", "--pred", tmp_path / "pred.ply", "--gt", tmp_path / "gt.ply",
        "--rotate-gt-deg", 50, "--json", tmp_path / "s.json", "num_samples=2000",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    scores = json.loads((tmp_path / "s.json").read_text())["mean"]
    assert scores["volume_iou"] > 0.95
    assert scores["chamfer_distance"] < 0.02


def test_bad_input_is_one_line_and_exit_code_2(tmp_path):
    result = evaluate("mesh", "--pred", tmp_path / "absent.glb", "--gt", "also_absent.glb")
    assert result.returncode == 2
    assert result.stderr.startswith("error: no mesh file at")
    assert result.stderr.count("\n") == 1
