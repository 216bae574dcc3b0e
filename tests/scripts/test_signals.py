"""SIGTERM, SIGHUP and Ctrl-C end every script with one line and without half-written files."""

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from hi3d.command_line import run
from hi3d.files import atomic_path
from tests.scripts.jobs import JOBS, ROOT, left_over

CODES = {signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGINT: 130}
OWN_SIGNALS = {"train.py"}
"""Scripts whose work answers signals itself."""


@pytest.mark.parametrize("number", CODES)
def test_a_signal_is_one_line_and_removes_what_was_being_written(number, tmp_path, capsys):
    def work():
        with atomic_path(tmp_path / "mesh.glb") as partial:
            partial.write_text("half")
            os.kill(os.getpid(), number)
            time.sleep(5)

    handlers = [signal.getsignal(n) for n in CODES]
    with pytest.raises(SystemExit) as stop:
        run(work)
    assert stop.value.code == CODES[number]
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
    assert [signal.getsignal(n) for n in CODES] == handlers


def test_a_second_request_does_not_disturb_the_cleaning(tmp_path, capsys):
    def work():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            (tmp_path / "cleaned").touch()

    with pytest.raises(SystemExit) as stop:
        run(work)
    assert stop.value.code == 143
    assert (tmp_path / "cleaned").exists()


def test_what_is_ignored_stays_ignored(tmp_path):
    """nohup keeps a run alive when its terminal goes."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        run(lambda: os.kill(os.getpid(), signal.SIGHUP))
    finally:
        signal.signal(signal.SIGHUP, before)


def test_forked_workers_end_at_once():
    code = """
        import multiprocessing, os, signal, time
        from hi3d.command_line import run
        def main():
            worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
            worker.start()
            time.sleep(0.3)
            worker.terminate()
            worker.join(20)
            assert worker.exitcode == -signal.SIGTERM, worker.exitcode
        run(main)
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, cwd=ROOT
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_output_that_nobody_reads_is_one_line():
    code = "from hi3d.command_line import run; run(lambda: print('x' * 10))"
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT
        )
    assert result.returncode == 2
    assert result.stderr.startswith("error: No space left on device")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", [name for name in JOBS if name not in OWN_SIGNALS])
def test_every_script_ends_at_a_signal(name, tmp_path, tiny_models):
    """At a random moment of its work; one that is through before has nothing to clean."""
    for folder in ("inputs", "output"):
        (tmp_path / folder).mkdir()
    output = tmp_path / "output"
    words = [str(word) for word in JOBS[name](tmp_path / "inputs", output, tiny_models)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    # The signal comes once the script has been imported and called; before, there is no file.
    code = f"""
        import os, runpy, signal, sys, threading
        import hi3d.command_line as lines
        main, sys.argv = lines.run, [sys.argv[1], *sys.argv[2:]]
        def stopped(work):
            timer = threading.Timer({random.uniform(0.05, 4.0)}, os.kill, (os.getpid(), 15))
            timer.daemon = True
            def both():
                timer.start()
                work()
                timer.cancel()
            main(both)
        lines.run = stopped
        runpy.run_path(sys.argv[0], run_name="__main__")
    """
    script = str(ROOT / "scripts" / name.partition(" ")[0])
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), script, *words],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert "Traceback" not in result.stderr, result.stderr
    assert result.returncode in (0, 143), result.stderr
    if result.returncode:
        assert "ended by SIGTERM: " in result.stderr.splitlines()[-1]
    assert not left_over(output)
