"""Scripts run in this process, which spares their imports."""

import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from hi3d.__main__ import main
from hi3d.progress import set_quiet

SCRIPTS = Path(__file__).parents[2] / "scripts"


class Finished(NamedTuple):
    code: int
    out: str
    err: str


def finished(main: Callable[[], object], capsys: pytest.CaptureFixture[str]) -> Finished:
    """What a program wrote, and its exit code."""
    code = 0
    capsys.readouterr()
    try:
        main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        set_quiet(False)  # a script's --quiet would silence the tests that follow
    return Finished(code, *capsys.readouterr())


@pytest.fixture
def run_script(monkeypatch, capsys):
    """Calls a script by name with words; gives its exit code and what it wrote."""

    def call(name: str, *words: object) -> Finished:
        monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
        script = str(SCRIPTS / name)
        return finished(lambda: runpy.run_path(script, run_name="__main__"), capsys)

    return call


@pytest.fixture
def run_command(monkeypatch, capsys):
    """Calls `hi3d` with words; gives its exit code and what it wrote."""

    def call(*words: object) -> Finished:
        monkeypatch.setattr(sys, "argv", ["hi3d", *map(str, words)])
        return finished(main, capsys)

    return call
