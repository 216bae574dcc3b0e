"""Scripts run in this process, which spares their imports."""

import runpy
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from hi3d.progress import set_quiet

SCRIPTS = Path(__file__).parents[2] / "scripts"


class Finished(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def run_script(monkeypatch, capsys):
    """Calls a script by name with words; gives its exit code and what it wrote."""

    def run(name: str, *words: object) -> Finished:
        monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
        code = 0
        capsys.readouterr()
        try:
            runpy.run_path(str(SCRIPTS / name), run_name="__main__")
        except SystemExit as stop:
            code = int(stop.code or 0)
        finally:
            set_quiet(False)  # a script's --quiet would silence the tests that follow
        return Finished(code, *capsys.readouterr())

    return run
