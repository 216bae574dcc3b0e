"""Ablations: a line of the table for each value; steps that a value does not change are shared."""

import json
import shutil
from pathlib import Path

import pytest
import trimesh

from hi3d.config import load_config
from hi3d.errors import InputError
from hi3d.evaluation.runs import tables
from hi3d.evaluation.runs.ablation import AblationConfig
from hi3d.evaluation.runs.tables import all_jobs, run_tables
from hi3d.evaluation.score_table import load_score_table
from hi3d.evaluation.truth import TruthConfig

CONFIGS = sorted((Path(__file__).parents[3] / "configs/ablation").glob("*.yaml"))
TINY = [
    *("mesh.splats.steps=5", "mesh.splats.num_initial=200", "mesh.neus.steps=6"),
    *("mesh.neus.rays_per_step=128", "mesh.neus.resolutions=[16]"),
    *("mesh.neus.resolution_starts=[0.0]", "mesh.neus.regularized_vertices=64"),
    *("mesh.meshing.target_faces=500", "mesh.texture.resolution=64"),
]


@pytest.fixture
def box(small_protocol) -> Path:
    path = small_protocol / "box.glb"
    trimesh.creation.box((0.4, 0.3, 1.0)).export(path)
    return path


def config(box: Path, **more) -> AblationConfig:
    given = {
        **{"title": "M", "key": "mesh.interpolated_views", "values": [0, 4], "kind": "oracle"},
        **{"config": None, "overrides": TINY, "objects": str(box), "protocol": "small"},
        **{"truth": TruthConfig(resolution=64, photo_resolution=64), "num_workers": 0},
    }
    return AblationConfig(**{**given, **more})


def steps(output: Path, value: int) -> dict:
    (path,) = output.glob(f"objects/box/{value}/all/oracle-*/report.json")
    return json.loads(path.read_text())["steps"]


def test_steps_that_a_value_does_not_change_are_made_once(box, tmp_path, monkeypatch):
    output = tmp_path / "out"
    run_tables(config(box).tables(), output)
    assert (output / "index.html").is_file()
    assert steps(output, 0)["splats"] == steps(output, 4)["splats"]
    assert steps(output, 0)["neus"]["num_views"] == 16
    assert steps(output, 4)["neus"]["num_views"] == 20
    table = load_score_table(output)
    assert table.varied == {"key": "mesh.interpolated_views", "values": [0, 4]}
    assert [row.method for row in table.rows] == ["0", "4"]
    for row in table.rows:
        assert row.error is None
        assert 0 < row.scores["chamfer"] < 0.3
        assert row.scores["psnr"] is None  # nothing was generated
        assert row.scores["mesh_psnr"] > 5
        assert set(row.pictures) == {"input", "truth", "renders", "error"}
        for path in (*row.pictures.values(), *row.meshes.values()):
            assert (output / path).is_file(), path
    # The same command makes nothing again; a row that is lost alone is made again, to the same.
    with monkeypatch.context() as patch:
        patch.setattr(tables, "make_row", lambda *_: pytest.fail("made again"))
        run_tables(config(box).tables(), output)
    assert load_score_table(output) == table
    shutil.rmtree(output / "objects/box/4")
    run_tables(config(box).tables(), output)
    assert load_score_table(output).rows[1].scores == table.rows[1].scores


def test_seeds_as_the_key_are_the_seeds_of_the_rows(box, tmp_path):
    given = config(box, kind="generate", key="seed", values=[3, 5], labels=["a", "b"]).tables()
    assert [(job.method, job.seed) for job in all_jobs(given, tmp_path)] == [("a", 3), ("b", 5)]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"key": "no_such_key"}, "unknown key"),
        ({"values": [0, -1]}, "interpolated_views is -1"),
        ({"values": [0]}, "two or more"),
        ({"labels": ["a"]}, "labels"),
        ({"objects": "absent.glb"}, "absent.glb"),
        ({"kind": "guess"}, "give one of generate, oracle"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(box, tmp_path, wrong, message):
    with pytest.raises(InputError, match=message):
        run_tables(config(box, **wrong).tables(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_configs_name_keys_of_the_chain(path):
    made = load_config(AblationConfig, path).tables()
    chains = {str(method.generate_config(0, 30.0)) for method in made.methods.values()}
    assert len(chains) == len(made.methods) == len(made.varied["values"])
