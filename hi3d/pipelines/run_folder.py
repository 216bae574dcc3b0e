"""The folder of a run and its report, which says with what settings each step was made."""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from hi3d.config import check_path, shortened
from hi3d.errors import InputError
from hi3d.files import make_folder, regular_file
from hi3d.progress import console
from hi3d.report import RunReport

LEFT_BY_SYSTEMS = re.compile(r"\.DS_Store|\._.*|Thumbs\.db|desktop\.ini|\..*\.part(\..*)?")
"""Of Finder and Explorer, and of a run that was killed while it wrote."""
PARTIAL = re.compile(r"\..*\.\d+\.part(\..*)?")
"""As `hi3d.files.atomic_path` names them."""


class RunFolder:
    """The folder of one run, with its `report.json`.

    A step's result is written atomically, so a file that is there is complete.
    """

    def __init__(
        self,
        path: str | Path,
        inputs: dict[str, Any],
        config: dict[str, Any],
        seed: int,
        resume: bool,
    ):
        """Args:
        path: made if it is not there.
        inputs: what the run is given, plain values.
        config: resolved settings.
        seed: of the run.
        resume: go on with what an earlier run left.

        Raises:
            InputError: the folder holds results and `resume` is off, or they have no report, or
                the folder is not writable.
        """
        self.path = Path(path)
        self.report = RunReport(inputs, config, seed)
        report_path = self.path / "report.json"
        if holds_results(self.path, resume):
            self._take_steps(report_path)
            remove_partial_files(self.path)
        make_folder(self.path)
        self.report.save(report_path)

    @contextmanager
    def step(self, name: str) -> Iterator[dict[str, Any]]:
        """Time a step; its entry, with the facts put into the yielded dict, is written at its end.

        Args:
            name: of the step in the report.
        """
        with self.report.step(name) as facts:
            yield facts
        self.report.save(self.path / "report.json")

    def is_made_with(self, name: str, settings: dict[str, Any]) -> bool:
        """Whether a step's result was made with these settings; says which differs if not.

        Args:
            name: of the step.
            settings: its own, plain values.
        """
        entry = self.report.content["steps"].get(name)
        if entry is None or "settings" not in entry:
            return False  # dropped, or the run ended before the result was reported
        made, now = _flat(entry["settings"]), _flat(json.loads(json.dumps(settings)))
        changes = [
            f"{key} was {shortened(made.get(key))}, is {shortened(now.get(key))}"
            for key in {**made, **now}
            if made.get(key) != now.get(key)
        ]
        if changes:
            console.print(
                f"{name} is made again, with all after it: {'; '.join(changes)}", markup=False
            )
        return not changes

    def drop(self, name: str) -> None:
        """Forget what is reported of a step and of those after it, so that they are made again."""
        steps = self.report.content["steps"]
        names = list(steps)
        if name in steps:
            for later in names[names.index(name) :]:
                del steps[later]
            self.report.save(self.path / "report.json")

    def _take_steps(self, report_path: Path) -> None:
        try:
            steps = json.loads(report_path.read_text())["steps"]
            self.report.content["steps"].update({name: dict(steps[name]) for name in steps})
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(
                f"{self.path} has no readable report.json to resume from: choose another --output"
            ) from error


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """The values of nested mappings by dotted key."""
    if not isinstance(values, dict):
        return {prefix: values}
    return {
        name: leaf
        for key, value in values.items()
        for name, leaf in _flat(value, f"{prefix}.{key}" if prefix else key).items()
    }


def remove_partial_files(folder: Path) -> None:
    """Remove what a run that was killed left of files that it was writing."""
    for path in folder.rglob(".*.part*"):
        if PARTIAL.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)


def holds_results(path: Path, resume: bool) -> bool:
    """Whether a folder holds an earlier run; files that systems leave in any folder do not count.

    Raises:
        InputError: it does, and `resume` is off.
    """
    if not path.is_dir() or all(LEFT_BY_SYSTEMS.fullmatch(p.name) for p in path.iterdir()):
        return False
    if not resume:
        raise InputError(
            f"{path} holds results already: add resume=true to go on with them, "
            "or choose another --output"
        )
    return True


def check_output(path: Path) -> None:
    """Raise where a folder cannot be made, before anything is; makes nothing.

    Raises:
        InputError: a part of the path is a file, or may not be written to.
    """
    check_path("--output", path)
    there = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise InputError(
            f"cannot write to folder {path} ({there} is no writable folder): choose another "
            "output folder"
        )


def content_hash(photo: str | Path | Image.Image) -> str:
    """SHA-256 of a photo's file, or of the pixels of an image in memory."""
    if isinstance(photo, Image.Image):
        content = f"{photo.mode} {photo.size} ".encode() + photo.tobytes()
    else:
        content = regular_file(photo).read_bytes()
    return hashlib.sha256(content).hexdigest()
