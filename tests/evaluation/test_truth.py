"""The truth: turned to the photo, kept by content and settings, whole or not there."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hi3d.errors import InputError
from hi3d.evaluation import truth as truths
from hi3d.evaluation.object_sets import ScoredObject
from hi3d.evaluation.truth import TruthConfig, load_truth, truth_key

CHAIR = Path(__file__).parents[2] / "data" / "examples" / "objects" / "chair.glb"
SMALL = TruthConfig(resolution=32, photo_resolution=48, backend="embreex")


def test_the_truth_is_turned_by_the_photos_azimuth(tmp_path):
    straight = load_truth(ScoredObject("chair", CHAIR), SMALL, tmp_path)
    turned = load_truth(ScoredObject("chair", CHAIR, 90.0), SMALL, tmp_path)
    # 90 degrees are four of the orbit's steps.
    assert (turned.views.rgb[0] - straight.views.rgb[4]).abs().max() < 0.02
    assert torch.equal(turned.views.cameras.viewmats, straight.views.cameras.viewmats)
    x, y, z = straight.mesh.vertices.unbind(-1)
    expected = torch.stack([y, -x, z], dim=-1)
    torch.testing.assert_close(turned.mesh.vertices, expected, atol=1e-5, rtol=0)
    assert turned.photo.rgb.shape == (1, 3, 48, 48)
    assert len(turned.views) == 16
    assert len(list((turned.folder / "views").glob("*-depth.png"))) == 16


def test_the_truth_is_rendered_once_and_never_half(tmp_path, monkeypatch):
    entry = ScoredObject("chair", CHAIR)

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(truths, "save_depth", killed)
        with pytest.raises(KeyboardInterrupt):
            load_truth(entry, SMALL, tmp_path)
    assert list(tmp_path.iterdir()) == []
    first = load_truth(entry, SMALL, tmp_path)
    monkeypatch.setattr(truths, "render_views", killed)
    assert torch.equal(load_truth(entry, SMALL, tmp_path).views.rgb, first.views.rgb)


def test_the_key_changes_with_content_and_settings_alone(tmp_path):
    same = tmp_path / "other.glb"
    shutil.copy(CHAIR, same)
    entry = ScoredObject("chair", CHAIR)
    key = truth_key(entry, SMALL)
    changed = tmp_path / "changed" / "chair.glb"
    changed.parent.mkdir()
    changed.write_bytes(CHAIR.read_bytes() + b"\0")
    assert key == truth_key(replace(entry, name="seat"), SMALL)
    keys = {key, truth_key(replace(entry, path=changed), SMALL)}
    keys |= {truth_key(entry, replace(SMALL, elevation_deg=20.0))}
    keys |= {truth_key(replace(entry, azimuth_deg=1.0), SMALL)}
    assert len(keys) == 4


def test_an_object_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(InputError, match="objects_root"):
        load_truth(ScoredObject("cup", tmp_path / "cup.glb"), SMALL, tmp_path)
