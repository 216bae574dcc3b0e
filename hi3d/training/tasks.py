"""What can be trained: the config and the module of each task."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hi3d.config import load_config, peek
from hi3d.errors import InputError
from hi3d.training.experiment import Experiment, Stage1Experiment, Stage2Experiment
from hi3d.training.module import TrainingModule
from hi3d.training.stage1 import Stage1Module
from hi3d.training.stage2 import Stage2Module


@dataclass(frozen=True)
class Task:
    """One kind of training."""

    experiment: type[Experiment]
    """Its config."""
    module: Callable[[Any], TrainingModule]
    """Made from the config alone."""
    load_depth: bool = False
    """Whether it learns from rendered depth."""


TASKS: dict[str, Task] = {
    "stage1": Task(Stage1Experiment, Stage1Module),
    "stage2": Task(Stage2Experiment, Stage2Module),
}
"""The paper's trainings."""


def load_experiment(
    path: str | Path, overrides: Sequence[str] = (), tasks: Mapping[str, Task] = TASKS
) -> Any:
    """Read a training config; its `task` chooses the schema.

    Args:
        path: YAML file.
        overrides: `key=value` strings.
        tasks: to choose from, by name.

    Raises:
        InputError: as `load_config`, or the task is missing or unknown.
    """
    task = peek(path, "task", overrides)
    if task not in tasks:
        raise InputError(f"{path}: task is '{task}': choose one of {', '.join(tasks)}")
    return load_config(tasks[task].experiment, path, overrides)
