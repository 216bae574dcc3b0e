"""Benchmarks import, and say how they are used."""

import importlib
import runpy
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
PROGRAMS = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "common")


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """As when a benchmark is run from the checkout: its own folder comes first."""
    monkeypatch.syspath_prepend(str(FOLDER))
    yield
    for name in [*PROGRAMS, "common"]:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", PROGRAMS)
def test_help_says_what_it_measures(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
    assert stop.value.code == 0
    assert "usage:" in capsys.readouterr().out


def test_small_model_prints_how_far_orbits_and_meshes_are_from_the_truth(
    tmp_path, monkeypatch, capsys
):
    from hi3d.evaluation.runs.scoring import COLUMNS
    from hi3d.evaluation.score_table import ScoreRow, ScoreTable

    benchmark = importlib.import_module("small_model")
    row = {"psnr": 20.0, "mse": 0.01, "ssim": 0.8, "own_azimuth": 0.3}
    of_orbit = {"consistency": 24.0, "consistency_of_true_views": 26.5}
    benchmark.report([{"repeat": row, "stage 1": row, "orbit": of_orbit}])
    assert "consistency below that of true views: 2.50 dB" in capsys.readouterr().out
    tables = benchmark.mesh_tables(str(tmp_path), "configs/generate.yaml", ["mesh.lit=true"], 2)
    assert [method.kind for method in tables.methods.values()] == ["oracle", "generate"]
    assert tables.methods["small model"].generate_config(0, 30.0).mesh.lit
    scores = {"true views": (0.02, 0.8), "small model": (0.04, 0.4)}
    rows = [
        ScoreRow(name, "cup", None, {"chamfer": chamfer, "iou64": iou})
        for name, (chamfer, iou) in scores.items()
    ]
    columns = {name: COLUMNS[name] for name in ("chamfer", "iou64")}
    monkeypatch.setattr(benchmark, "run_tables", lambda *_: ScoreTable("", "", columns, rows))
    benchmark.report_meshes(tables, tmp_path)
    assert "Chamfer distance 2.00x, volume IoU 0.50x" in capsys.readouterr().out


def test_small_model_scores_an_orbit(tiny_models, monkeypatch):
    import torch

    from hi3d.config import load_config
    from hi3d.pipelines.image_to_3d import GenerateConfig
    from hi3d.pipelines.loading import load_pipeline
    from hi3d.pipelines.orbit import OrbitPipeline
    from hi3d.pipelines.refiner import RefinerPipeline

    benchmark = importlib.import_module("small_model")
    seen = []
    monkeypatch.setattr(
        benchmark, "view_consistency", lambda views: seen.append(views) or {"c_psnr": len(seen)}
    )
    models = benchmark.Models(
        load_pipeline(OrbitPipeline, str(tiny_models / "stage1")),
        load_pipeline(RefinerPipeline, str(tiny_models / "stage2")),
        load_config(GenerateConfig, None, ["orbit.num_inference_steps=1"]),
        None,
        1,
        True,
    )
    item = {
        "rgb": torch.rand(16, 3, 16, 16),
        "alpha": torch.ones(16, 1, 16, 16),
        "elevation_deg": torch.tensor(20.0),
    }
    rows = benchmark.orbit_scores(item, models)
    assert list(rows)[-1] == "orbit"
    assert (rows["orbit"]["consistency"], rows["orbit"]["consistency_of_true_views"]) == (1, 2)
    assert torch.equal(seen[1].rgb, item["rgb"])
    assert len(seen[0]) == 16
