"""Scores by `scripts/evaluate.py`, against values worked out by hand."""

import json

import numpy as np
import pytest
import torch
import trimesh

from hi3d.cameras import orbit_cameras
from hi3d.views import Views


def test_views_are_scored(tmp_path, run_script):
    cameras = orbit_cameras(10, 16, num_views=2)
    alpha = torch.ones(2, 1, 16, 16)
    Views(torch.full((2, 3, 16, 16), 0.2), alpha, cameras).save(tmp_path / "gt")
    Views(torch.full((2, 3, 16, 16), 0.4), alpha, cameras).save(tmp_path / "pred")
    result = run_script(
        "evaluate.py", "views", "--pred", tmp_path / "pred", "--gt", tmp_path / "gt",
        "--json", tmp_path / "s.json", "data_range=1.0",
    )  # fmt: skip
    assert result.code == 0, result.err
    scores = json.loads((tmp_path / "s.json").read_text())["objects"]["pred"]
    # Both greys are whole 8-bit values, 51 and 102: error 0.2, -20 log10 0.2 = 13.979 dB.
    assert scores["psnr"] == pytest.approx(13.9794, abs=1e-3)
    assert "| pred | 13.9794 |" in result.out


def test_meshes_are_scored(tmp_path, run_script):
    trimesh.creation.box((0.5, 0.5, 0.5)).export(tmp_path / "gt.ply")
    trimesh.creation.box((0.5, 0.5, 0.25)).export(tmp_path / "pred.ply")
    result = run_script(
        "evaluate.py", "mesh", "--pred", tmp_path / "pred.ply", "--gt", tmp_path / "gt.ply",
        "--json", tmp_path / "s.json", "num_samples=2000",
        "normalize_gt=false",
    )  # fmt: skip
    assert result.code == 0, result.err
    scores = json.loads((tmp_path / "s.json").read_text())["mean"]
    assert scores["volume_iou"] == pytest.approx(0.5)
    assert set(scores) == {"chamfer_distance", "volume_iou", "f_score"}


def test_the_true_mesh_is_turned_back_by_the_azimuth_of_the_photo(tmp_path, run_script):
    rod = trimesh.creation.box(
        (0.6, 0.1, 0.1), trimesh.transformations.translation_matrix((0.2, 0, 0))
    )
    rod.export(tmp_path / "pred.ply")
    # What a photo from azimuth 50 calls the front lies at azimuth 50 of the true mesh.
    angle = np.deg2rad(50)
    rod.apply_transform(trimesh.transformations.rotation_matrix(angle, (0, 0, 1)))
    rod.export(tmp_path / "gt.ply")
    result = run_script(
        "evaluate.py", "mesh", "--pred", tmp_path / "pred.ply", "--gt", tmp_path / "gt.ply",
        "--rotate-gt-deg", 50, "--json", tmp_path / "s.json", "num_samples=2000",
        "normalize_gt=false",
    )  # fmt: skip
    assert result.code == 0, result.err
    scores = json.loads((tmp_path / "s.json").read_text())["mean"]
    assert scores["volume_iou"] > 0.95
    assert scores["chamfer_distance"] < 0.02


def test_a_turn_is_no_option_of_views(tmp_path, run_script):
    result = run_script(
        "evaluate.py", "views", "--pred", tmp_path, "--gt", tmp_path, "--rotate-gt-deg", 50
    )
    assert result.code == 2
    assert result.err == "error: --rotate-gt-deg turns a mesh: leave it out for views\n"


def test_views_without_cameras_and_with_straight_alpha_are_scored(tmp_path, run_script):
    generator = torch.Generator().manual_seed(0)
    rgb = torch.ones(3, 3, 16, 16)
    rgb[:, :, 4:12, 4:12] = torch.rand(3, 3, 8, 8, generator=generator)
    alpha = torch.zeros(3, 1, 16, 16)
    alpha[:, :, 4:12, 4:12] = 1
    cameras = orbit_cameras(10, 16, num_views=3)
    Views(rgb, torch.ones_like(alpha), cameras).save(tmp_path / "pred")
    (tmp_path / "pred" / "cameras.json").unlink()
    Views(rgb * alpha, alpha, cameras).save(tmp_path / "gt")  # transparent pixels are black
    result = run_script(
        "evaluate.py", "views", "--pred", tmp_path / "pred", "--gt", tmp_path / "gt",
        "--json", tmp_path / "s.json",
    )  # fmt: skip
    assert result.code == 0, result.err
    written = json.loads((tmp_path / "s.json").read_text())
    assert written["mean"]["psnr"] == 100
    assert "matched by number" in written["normalization"]
    assert "at most 100" in written["units"]
    assert written["settings"]["match"] == "camera"
    assert "SyncDreamer" in written["protocol"]
    assert "torch" in written["versions"]
    assert "protocol: " in result.out
