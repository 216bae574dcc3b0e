"""Progress bars with the time left, for every long step."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

console = Console(stderr=True)
"""All messages for people go here; results for programs go to files."""


def set_quiet(quiet: bool) -> None:
    """Silence (or restore) progress bars and messages."""
    console.quiet = quiet


def progress_bar() -> Progress:
    """A rich progress display: description, bar, count, time used and time left."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[status]}"),
        console=console,
        disable=console.quiet,
    )


T = TypeVar("T")


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield the items under a progress bar.

    Args:
        items: what to go through.
        description: the step's name, as the user knows it.
        total: number of items, where `len(items)` is not known.
    """
    if total is None:
        total = len(items) if hasattr(items, "__len__") else None  # type: ignore[arg-type]
    with progress_bar() as bar:
        task = bar.add_task(description, total=total, status="")
        for item in items:
            yield item
            bar.advance(task)
