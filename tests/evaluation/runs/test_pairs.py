"""One pair of files by a protocol: as tables score it, without cameras."""

import math

import pytest
import torch
import trimesh
from PIL import Image

from hi3d.errors import InputError
from hi3d.evaluation.runs import pairs
from hi3d.evaluation.runs.pairs import score_pair_by
from hi3d.views import save_rgba


@pytest.fixture(autouse=True)
def without_lpips(monkeypatch):
    monkeypatch.setattr(pairs, "perceptual_distance", lambda protocol: None)


def test_views_without_cameras_and_a_row_in_one_image_are_compared_by_number(tmp_path):
    levels = torch.linspace(0.2, 0.6, 16).mul(255).round() / 255
    views = levels.view(16, 1, 1, 1).expand(16, 3, 256, 256).clone()
    views[:, :, ::2] += 0.2  # SSIM takes its range from the images
    for number, rgb in enumerate(views):
        save_rgba(tmp_path / "gt" / f"{number:03d}.png", rgb, torch.ones(1, 256, 256))
    row = torch.cat(list(views + 10 / 255), dim=-1).mul(255).round().byte()
    Image.fromarray(row.permute(1, 2, 0).numpy()).save(tmp_path / "row.png")
    given = (tmp_path / "row.png", tmp_path / "gt", None, [], 0.0)
    scores, about = score_pair_by("syncdreamer", "views", *given)
    assert scores["psnr"] == pytest.approx(-20 * math.log10(10 / 255), abs=1e-3)
    assert about["protocol"].startswith("syncdreamer: 16 views")
    with pytest.raises(InputError, match="its own settings"):
        score_pair_by("syncdreamer", "views", *given[:3], ["exclude_first=true"], 0.0)


def test_meshes_are_scored_as_tables_have_them(tmp_path):
    box = trimesh.creation.box((0.5, 0.3, 0.2)).subdivide_to_size(0.05)  # depth is linear on faces
    box.export(tmp_path / "gt.ply")
    box.apply_scale(2).apply_transform(trimesh.transformations.rotation_matrix(-0.5, (0, 0, 1)))
    box.export(tmp_path / "pred.ply")
    files = (tmp_path / "pred.ply", tmp_path / "gt.ply", None)
    scores, about = score_pair_by("syncdreamer", "mesh", *files, [], math.degrees(0.5))
    assert scores["iou64"] > 0.97
    assert scores["chamfer"] < 0.005
    assert "prediction as it is" in about["normalization"]
    unturned, _ = score_pair_by("syncdreamer", "mesh", *files, ["up=z"], 0.0)
    assert unturned["iou64"] < 0.8
    for protocol, words, message in (
        ("syncdreamer", ["num_samples=5"], "num_samples"),
        ("views512", [], "no meshes"),
        ("none", [], "no protocol"),
    ):
        with pytest.raises(InputError, match=message):
            score_pair_by(protocol, "mesh", *files, words, 0.0)
