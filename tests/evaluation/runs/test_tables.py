"""Runs over a set: rows with errors, going on after any end, and what is refused at once."""

import errno
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hi3d.errors import InputError
from hi3d.evaluation.runs import rows, scoring, tables
from hi3d.evaluation.runs.config import MethodConfig, TablesConfig
from hi3d.evaluation.runs.rows import make_row, safe_name
from hi3d.evaluation.runs.tables import all_jobs, run_tables, table_lines
from hi3d.evaluation.score_table import load_score_table
from hi3d.evaluation.truth import TruthConfig, load_truth

OBJECTS = Path(__file__).parents[3] / "data" / "examples" / "objects"
SMALL = TruthConfig(resolution=32, photo_resolution=32, backend="embreex")


@pytest.fixture
def config(small_protocol) -> TablesConfig:
    folder = small_protocol / "set"
    folder.mkdir()
    shutil.copy(OBJECTS / "mailbox.glb", folder)
    (folder / "broken.glb").write_bytes(b"no model")
    methods = {"repeat": MethodConfig(kind="repeat")}
    return TablesConfig(
        objects=str(folder),
        methods=methods,
        truth=SMALL,
        num_workers=0,
        meshes=False,
        protocol="small",
    )


def test_what_fails_is_a_row_and_the_photo_repeated_scores_its_own_view(config, tmp_path):
    table = run_tables(config, tmp_path / "out")
    assert load_score_table(tmp_path / "out").rows == table.rows
    broken, mailbox = table.rows
    assert broken.object == "broken"
    assert broken.error
    assert not broken.scores
    assert mailbox.error is None
    assert 5 < mailbox.scores["psnr"] < 40
    assert all((tmp_path / "out" / path).is_file() for path in mailbox.pictures.values())
    assert "| repeat |" in table_lines(table)
    assert table_lines(table).endswith("| 2 | 1 |")


def test_outputs_of_another_method_equal_to_the_truth_are_perfect(config, tmp_path):
    truth = load_truth(all_jobs(config, tmp_path)[1].entry, SMALL)
    truth.views.save(tmp_path / "theirs" / "mailbox")
    method = MethodConfig(kind="files", reader="plain", folder=str(tmp_path / "theirs"))
    table = run_tables(replace(config, methods={"theirs": method}), tmp_path / "out")
    _broken, mailbox = table.rows
    assert mailbox.scores["psnr"] == 100
    assert mailbox.scores["ssim"] == pytest.approx(1)


def test_a_run_that_was_ended_goes_on_to_the_same_table(config, tmp_path, monkeypatch):
    shutil.copy(OBJECTS / "mailbox.glb", Path(config.objects) / "second.glb")
    whole = run_tables(config, tmp_path / "whole")
    made = []

    def ended(job):
        if made:
            raise KeyboardInterrupt
        made.append(job.entry.name)
        return make_row(job)

    config = replace(config, retry_failures=False)
    with monkeypatch.context() as patch:
        patch.setattr(tables, "make_row", ended)
        with pytest.raises(KeyboardInterrupt):
            run_tables(config, tmp_path / "out")
    made.clear()

    def counted(job):
        made.append(job.entry.name)
        return make_row(job)

    monkeypatch.setattr(tables, "make_row", counted)
    resumed = run_tables(config, tmp_path / "out")
    assert [row.scores for row in resumed.rows] == [row.scores for row in whole.rows]
    before = len(made)
    run_tables(config, tmp_path / "out")
    assert len(made) == before  # all there
    run_tables(replace(config, truth=replace(SMALL, elevation_deg=0.0)), tmp_path / "out")
    assert len(made) == before + 3  # other settings: all anew


def test_a_full_disk_ends_the_run_and_is_no_failure_of_an_object(config, tmp_path, monkeypatch):
    """The writer of a row's pictures raises; the worker hands on the text alone."""

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "views.png")

    monkeypatch.setattr(rows, "draw_pictures", full)
    (tmp_path / "set" / "broken.glb").unlink()
    with pytest.raises(InputError, match=r"no space left for .*run the same command again"):
        run_tables(config, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("row.json"))
    assert not (tmp_path / "out" / "table.json").exists()


def test_parts_of_a_run_make_one_table(config, tmp_path):
    shutil.copy(OBJECTS / "mailbox.glb", Path(config.objects) / "second.glb")
    for part in range(2):
        table = run_tables(replace(config, shard=f"{part}/2"), tmp_path / "out")
    assert [row.object for row in table.rows] == ["broken", "mailbox", "second"]


def test_half_a_row_is_no_row(config, tmp_path):
    run_tables(config, tmp_path / "out")
    job = all_jobs(config, tmp_path / "out")[1]
    job.result.write_text(job.result.read_text()[:50])
    assert run_tables(config, tmp_path / "out").rows[1].error is None
    assert json.loads(job.result.read_text())["row"]["object"] == "mailbox"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": {}}, "methods is empty"),
        ({"methods": {"x" * 99: MethodConfig(kind="repeat")}}, "method xxx"),
        ({"seeds": [1, 1]}, "seeds"),
        ({"protocol": "none"}, "protocol"),
        ({"protocol": "views512"}, "truth.resolution=512"),
        ({"shard": "2/2"}, "shard"),
        ({"object_memory_gb": 0}, "object_memory_gb"),
    ],
)
def test_settings_are_refused_before_anything_is_written(config, tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        run_tables(replace(config, **change), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_missing_models_folders_and_objects_leave_no_trace(config, tmp_path):
    for method in (
        MethodConfig(kind="files", folder=str(tmp_path / "none")),
        MethodConfig(kind="generate", set=["stage1=nowhere"]),
        MethodConfig(kind="generate", set=["orbitt.x=1"]),
    ):
        with pytest.raises(InputError):
            run_tables(replace(config, methods={"m": method}), tmp_path / "out")
    with pytest.raises(InputError, match="objects_root"):
        run_tables(replace(config, objects="data/eval/gso30.yaml"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_names_stay_in_the_folder_and_apart():
    names = ["cup", "../cup", "a/b", "a_b", ".hidden", "<script>", "x" * 300]
    safe = [safe_name(name) for name in names]
    assert len(set(safe)) == len(names)
    assert safe[0] == "cup"
    assert all("/" not in name and not name.startswith(".") and len(name) < 110 for name in safe)


def test_views_of_another_size_are_scored_at_the_truths(config):
    from hi3d.evaluation.runs.pictures import resized

    rgb = torch.rand(2, 3, 64, 64)
    assert resized(rgb, 32).shape == (2, 3, 32, 32)
    assert resized(rgb, 128).shape[-1] == 128


def test_meshes_of_uncertain_axes_are_refused_unless_told_or_aligned(config, tmp_path):
    method = MethodConfig(kind="files", reader="triposr", folder=str(tmp_path))
    given = replace(config, methods={"theirs": method}, meshes=True)
    with pytest.raises(InputError, match=r"meshes of theirs.*whole-surface-best-yaw"):
        given.check_methods()
    told = replace(given, accept_uncertain=True)
    told.check_methods()
    assert "theirs" in told.uncertain()["uncertain"]
    aligned = replace(given, protocol="whole-surface-best-yaw", truth=TruthConfig())
    for certain in (replace(given, meshes=False), aligned):
        certain.check_methods()
        assert certain.uncertain() == {}


def test_consistency_fills_columns_of_methods_with_views(config, tmp_path, monkeypatch):
    monkeypatch.setattr(
        scoring.consistency, "view_consistency", lambda views, lpips: {"c_psnr": 30.0}
    )
    truth = load_truth(all_jobs(config, tmp_path)[1].entry, SMALL)
    truth.views.save(tmp_path / "theirs" / "mailbox")
    theirs = MethodConfig(kind="files", reader="plain", folder=str(tmp_path / "theirs"))
    methods = {"theirs": theirs, **config.methods}
    table = run_tables(replace(config, methods=methods, consistency=True), tmp_path / "out")
    assert "c_psnr" in table.columns
    found = {row.method: row.value("c_psnr") for row in table.rows if row.object == "mailbox"}
    assert found == {"theirs": 30.0, "repeat": None}
    assert "MVGBench" in table.about["consistency"]
