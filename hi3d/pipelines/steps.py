"""A chain is a list of steps; a step whose result lies in the folder, made alike, is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from hi3d.pipelines.run_folder import RunFolder
from hi3d.progress import tell

S = TypeVar("S")
T = TypeVar("T")


@dataclass(frozen=True)
class Step(Generic[S, T]):
    """One step of a chain with settings S; it makes a value of type T."""

    name: str
    """In the report."""
    result: str
    """The file, within the run's folder, that `save` writes last: it proves the step done."""
    make: Callable[[Context[S]], T]
    """The value, from the settings and the values of earlier steps."""
    save: Callable[[Context[S], T, Path], None]
    """Writes the value; takes the path of `result`."""
    load: Callable[[Path], T]
    """Reads what `save` wrote; takes the path of `result`."""
    depends_on: Callable[[S], dict[str, Any]] = lambda settings: {}
    """The settings, as plain values, that the result depends on beside those of earlier steps."""


@dataclass(frozen=True)
class Context(Generic[S]):
    """What a step may look at."""

    settings: S
    made: dict[Step[S, Any], Any] = field(default_factory=dict)
    """Values of the steps so far; `context[STEP]` gives them with their type."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What the step adds to its entry in the report."""

    def __getitem__(self, step: Step[S, T]) -> T:
        value: T = self.made[step]
        return value


def run_steps(
    steps: Sequence[Step[S, Any]], settings: S, run: RunFolder | None = None
) -> Context[S]:
    """Run steps in order, each made or, where its result is there and made alike, read.

    A step whose own settings are not those its result was made with is made again, and all after
    it.

    With a folder every step goes on from what the one before wrote, so that a resumed run and a
    whole one are the same.

    Args:
        steps: the chain.
        settings: of the chain.
        run: folder and report; None keeps everything in memory.

    Returns:
        A context with the values of all steps.
    """
    context = Context(settings)
    for step in steps:
        made = _made(step, replace(context, facts={}), run)
        context = replace(context, made={**context.made, step: made})
    return context


def _made(step: Step[S, T], context: Context[S], run: RunFolder | None) -> T:
    """The value of one step."""
    tell(step.name)
    if run is None:
        return step.make(context)
    path = run.path / step.result
    settings = step.depends_on(context.settings)
    if path.exists() and run.is_made_with(step.name, settings):
        return step.load(path)
    run.drop(step.name)
    with run.step(step.name) as facts:
        facts["settings"] = settings
        context = replace(context, facts=facts)
        step.save(context, step.make(context), path)
        return step.load(path)
