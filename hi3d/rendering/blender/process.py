"""A process of Blender's Python that stays, answers requests, and is replaced when it dies."""

import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from hi3d.errors import InputError

BLENDER_VARIABLE = "HI3D_BLENDER_PYTHON"
SESSION_SCRIPT = Path(__file__).with_name("session.py")
HOW_TO_INSTALL = (
    "python3.11 -m venv blender-env && blender-env/bin/pip install bpy==4.5.15 && "
    f"export {BLENDER_VARIABLE}=$PWD/blender-env/bin/python"
)
START_LIMIT_S = 120.0
FOLDER_PREFIX = "hi3d-blender-"


def blender_command(blender_python: str | None = None) -> list[str]:
    """The command that starts Blender's Python, without the session's script.

    Args:
        blender_python: a Python with bpy, or a `blender` executable; None: of HI3D_BLENDER_PYTHON.

    Raises:
        InputError: no Blender is named, or it is not there.
    """
    named = blender_python or os.environ.get(BLENDER_VARIABLE)
    if not named:
        raise InputError(f"Cycles needs a Python with bpy: {HOW_TO_INSTALL}")
    found = shutil.which(Path(named).expanduser())
    if found is None:
        raise InputError(f"no Blender Python at {named}: {HOW_TO_INSTALL}")
    if Path(found).name.startswith("blender"):
        return [found, "--background", "--factory-startup", "--python-exit-code", "3", "--python"]
    return [found, "-P"]


def remove_abandoned_folders() -> None:
    """Delete the folders of requests whose owners were killed: nobody holds their locks."""
    for log in Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*/log.txt"):
        with contextlib.suppress(OSError):  # of another user, or in use
            lock = os.open(log.parent, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(log.parent, ignore_errors=True)
            finally:
                os.close(lock)


class BlenderProcess:
    """Blender, started when it is first needed. It ends with `stop` or with this process."""

    def __init__(self, blender_python: str | None = None) -> None:
        self.blender_python = blender_python
        self._process: subprocess.Popen[str] | None = None
        self._folder: Path | None = None
        self._lock = -1
        """On the folder, as long as this process lives."""
        self._answers = -1
        self._unread = b""

    def start(self) -> Path:
        """Start the process unless it runs. Returns a folder for requests.

        Raises:
            InputError: there is no Blender, or it does not start.
        """
        if self._process is not None and self._process.poll() is None and self._folder is not None:
            return self._folder
        self.stop()
        command = [*blender_command(self.blender_python), str(SESSION_SCRIPT)]
        remove_abandoned_folders()
        self._folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX))
        self._lock = os.open(self._folder, os.O_RDONLY)
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._answers, theirs = os.pipe()
        self._unread = b""
        with (self._folder / "log.txt").open("wb") as log:
            self._process = subprocess.Popen(
                [*command, "--", str(theirs)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=[theirs],
                text=True,
            )
        os.close(theirs)
        folder = self._folder
        try:
            self._answer(START_LIMIT_S)
        except RuntimeError as error:
            raise InputError(
                f"{command[0]} does not start as Blender ({error}): {HOW_TO_INSTALL}"
            ) from error
        return folder

    def ask(self, request: Path, timeout_s: float) -> dict[str, Any]:
        """Send the folder of a request and wait for the answer.

        Raises:
            RuntimeError: Blender failed, died or took too long; the next `start` makes a new one.
        """
        if self._process is None or self._process.stdin is None:
            raise ValueError("call start() first")
        try:
            self._process.stdin.write(f"{request}\n")
            self._process.stdin.flush()
        except OSError:
            pass  # it died: the answer, which does not come, says why
        return self._answer(timeout_s)

    def stop(self) -> None:
        """End the process and delete its files."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            os.close(self._answers)
            self._process = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            os.close(self._lock)
            self._folder = None

    def _answer(self, timeout_s: float) -> dict[str, Any]:
        """The next line from the process; where none comes, it is stopped."""
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._unread:
            patience = max(0.0, deadline - time.monotonic())
            if not select.select([self._answers], [], [], patience)[0]:
                self.stop()
                raise RuntimeError(f"Blender took longer than {timeout_s:g} s")
            received = os.read(self._answers, 65536)
            if not received:
                raise RuntimeError(f"Blender ended: {self._last_words()}")
            self._unread += received
        line, _, self._unread = self._unread.partition(b"\n")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"Blender failed: {answer['error']}")
        return answer

    def _last_words(self) -> str:
        """Exit code of the dead process and the last line it wrote."""
        if self._process is None or self._folder is None:
            return "it was stopped"
        code = self._process.wait()
        log = (self._folder / "log.txt").read_text(errors="replace").strip().splitlines()
        self.stop()
        return f"exit code {code}, {log[-1] if log else 'no message'}"
