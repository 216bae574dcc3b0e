"""Benchmarks import, and say how they are used."""

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
