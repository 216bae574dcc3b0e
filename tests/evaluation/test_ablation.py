"""Ablations: shared steps are made once, failures are rows, the same command goes on."""

import json
import shutil
from pathlib import Path

import pytest
import trimesh

from hi3d.config import load_config
from hi3d.errors import InputError
from hi3d.evaluation.ablations import ablation
from hi3d.evaluation.ablations.ablation import AblationConfig, run_ablation
from hi3d.evaluation.score_table import load_score_table

CONFIGS = sorted((Path(__file__).parents[2] / "configs/ablation").glob("*.yaml"))
TINY = [
    *("splats.steps=5", "splats.num_initial=200", "neus.steps=6", "neus.rays_per_step=128"),
    *("neus.resolutions=[16]", "neus.resolution_starts=[0.0]", "neus.regularized_vertices=64"),
    *("meshing.target_faces=500", "texture.resolution=64"),
]


@pytest.fixture
def box(tmp_path) -> Path:
    path = tmp_path / "box.glb"
    trimesh.creation.box((0.4, 0.3, 1.0)).export(path)
    return path


def config(box: Path, **more) -> AblationConfig:
    given = {
        **{"title": "M", "key": "interpolated_views", "values": [0, 4], "chain": "reconstruct"},
        **{"config": None, "overrides": TINY, "objects": [str(box)], "resolution": 64},
    }
    return AblationConfig(**{**given, **more})


def steps(output: Path, number: int) -> dict:
    path = output / "runs/box/seed-0" / f"{number:02d}" / "report.json"
    return json.loads(path.read_text())["steps"]


def test_steps_that_a_value_does_not_change_are_made_once(box, tmp_path, monkeypatch):
    output = tmp_path / "out"
    page = run_ablation(config(box), output)
    assert page == output / "index.html"
    assert steps(output, 0)["splats"] == steps(output, 1)["splats"]
    assert steps(output, 0)["neus"]["num_views"] == 16
    assert steps(output, 1)["neus"]["num_views"] == 20
    table = load_score_table(output)
    assert table.varied == {"key": "interpolated_views", "values": [0, 4]}
    assert [row.method for row in table.rows] == ["0", "4"]
    for row in table.rows:
        assert row.error is None
        assert 0 < row.scores["chamfer"] < 0.3
        assert row.scores["psnr"] is None  # nothing was generated
        for path in (*row.pictures.values(), *row.meshes.values()):
            assert (output / path).is_file(), path
    # The same command makes nothing again; a row that is lost alone is made again, to the same.
    monkeypatch.setattr(ablation, "run_chain", lambda *_: pytest.fail("made again"))
    run_ablation(config(box), output)
    assert load_score_table(output) == table
    monkeypatch.undo()
    shutil.rmtree(output / "runs/box/seed-0/01")
    run_ablation(config(box), output)
    assert load_score_table(output).rows[1].scores == table.rows[1].scores
    with pytest.raises(InputError, match="other settings"):
        run_ablation(config(box, resolution=40), output)
    with pytest.raises(InputError, match="other settings"):
        run_ablation(config(box, values=[4, 0]), output)


def test_a_run_that_fails_is_a_row_and_is_tried_again(box, tmp_path, monkeypatch):
    def fails(*_: object) -> None:
        raise InputError("no view shows <the object>")

    monkeypatch.setattr(ablation, "run_chain", fails)
    run_ablation(config(box), tmp_path / "out")
    rows = load_score_table(tmp_path / "out").rows
    assert [row.error for row in rows] == ["InputError: no view shows <the object>"] * 2
    assert "no view shows &lt;the object&gt;" in (tmp_path / "out/index.html").read_text()
    assert not list((tmp_path / "out").rglob("row.json"))


def test_a_full_disk_is_no_row(box, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ablation, "run_chain", full)
    with pytest.raises(OSError, match="No space left"):
        run_ablation(config(box), tmp_path / "out")


def test_seeds_as_the_key_are_the_seeds_of_the_rows(box, tmp_path, monkeypatch):
    seen = []

    def noted(chain: str, given: Path, settings, folder: Path) -> None:
        seen.append(settings.seed)
        raise InputError("stop")

    monkeypatch.setattr(ablation, "run_chain", noted)
    run_ablation(config(box, key="seed", values=[3, 5]), tmp_path / "out")
    assert seen == [3, 5]
    assert [row.seed for row in load_score_table(tmp_path / "out").rows] == [3, 5]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"key": "no_such_key"}, "unknown key"),
        ({"values": [0, -1]}, "interpolated_views is -1"),
        ({"values": [0]}, "two or more"),
        ({"labels": ["a"]}, "labels"),
        ({"objects": ["absent.glb"]}, "absent.glb is no object file"),
        ({"chain": "guess"}, "give one of generate, reconstruct"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(box, tmp_path, wrong, message):
    with pytest.raises(InputError, match=message):
        run_ablation(config(box, **wrong), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_configs_name_keys_of_the_chain(path, monkeypatch):
    monkeypatch.setattr("hi3d.pipelines.chains.check_models", lambda _: None)
    given = load_config(AblationConfig, path)
    made = [ablation.chain_settings(given, value) for value in given.values]
    assert len({str(one) for one in made}) == len(made)
