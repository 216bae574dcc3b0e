"""Benchmarks import, say how they are used, and their variants are settings that exist."""

import importlib
import runpy
import sys
from pathlib import Path

import pytest

from hi3d.config import load_config

FOLDER = Path(__file__).parents[2] / "benchmarks"
PROGRAMS = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "common")
VARIANTS = sorted((FOLDER / "variants").glob("*.yaml"))


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


@pytest.mark.parametrize("path", VARIANTS, ids=lambda path: path.stem)
def test_variants_are_settings(path):
    benchmark = importlib.import_module("variants")
    config = load_config(benchmark.VariantsConfig, path)
    settings = [benchmark.settings_of(variant, config) for variant in config.variants.values()]
    assert settings[0] == config.shared
    assert len(config.variants) > 1


def test_a_variant_changes_what_it_names():
    benchmark = importlib.import_module("variants")
    config = load_config(benchmark.VariantsConfig, FOLDER / "variants" / "splats.yaml")
    changed = benchmark.settings_of(config.variants["sh degree 1"], config)
    assert (config.shared.splats.sh_degree, changed.splats.sh_degree) == (0, 1)
    assert changed.splats.steps == config.shared.splats.steps == 200


def test_table_gives_differences_and_ratios_to_the_first_row():
    import torch

    benchmark = importlib.import_module("variants")
    rows = {
        "a": {"score": torch.tensor([[1.0], [3.0]])},
        "b": {"score": torch.tensor([[2.0], [6.0]])},
    }
    lines = benchmark.table(rows)
    assert lines[2] == "| a | 2 ± 1 | +0 ± 0 | 1.000x |"
    assert lines[3] == "| b | 4 ± 2 | +2 ± 1 | 2.000x |"
