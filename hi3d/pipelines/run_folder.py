"""The folder of a run and its report; a run goes on only with the settings that it had."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hi3d.errors import InputError
from hi3d.files import make_folder
from hi3d.report import RunReport


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
        inputs: what the run is given, plain values; a resumed run must have the same.
        config: resolved settings; a resumed run must have the same.
        seed: of the run.
        resume: go on with what an earlier run left.

        Raises:
            InputError: the folder holds an earlier run and `resume` is off, or the earlier run had
                other settings, or the folder is not writable.
        """
        self.path = Path(path)
        self.report = RunReport(inputs, config, seed)
        report_path = self.path / "report.json"
        if holds_results(self.path, resume):
            self._check_same_run(report_path)
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

    def skip(self, name: str, result: Path) -> None:
        """Report a step whose result was there, unless an earlier run has reported it."""
        if name not in self.report.content["steps"]:
            self.report.skip(name, f"{result.name} was there")

    def _check_same_run(self, report_path: Path) -> None:
        try:
            earlier = json.loads(report_path.read_text())
            settings = {**earlier["inputs"], "seed": earlier["seed"], **earlier["config"]}
            steps = earlier["steps"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{self.path} has no readable report.json to resume from: choose another --output"
            ) from error
        content = self.report.content
        now = {**content["inputs"], "seed": content["seed"], **content["config"]}
        now = json.loads(json.dumps(now))
        differing = [key for key in now if settings.get(key) != now[key]]
        if differing:
            raise InputError(
                f"{self.path} was made with another {differing[0]}: resume with the same settings, "
                "or choose another --output"
            )
        self.report.content["steps"].update(steps)


def holds_results(path: Path, resume: bool) -> bool:
    """Whether a folder holds an earlier run.

    Raises:
        InputError: it does, and `resume` is off.
    """
    if not path.is_dir() or not any(path.iterdir()):
        return False
    if not resume:
        raise InputError(
            f"{path} holds results already: add resume=true to go on with them, "
            "or choose another --output"
        )
    return True
