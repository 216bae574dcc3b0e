"""Progress bars with the time left, for every long step."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

console = Console(stderr=True, soft_wrap=True)
"""All messages for people go here; results for programs go to files."""


def set_quiet(quiet: bool) -> None:
    """Silence (or restore) progress bars and messages."""
    console.quiet = quiet


Watcher = Callable[[str, float, float | None], None]
"""Takes a step's name, how much of it is done, and of how much, where that is known."""
_watcher: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


@contextmanager
def watched(watcher: Watcher) -> Iterator[None]:
    """Call `watcher` at every step of the progress within the block; what it raises ends the work.

    It is this thread's alone: another one at the same time may be watched by another.
    """
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


def tell(name: str, done: float = 0, total: float | None = None) -> None:
    """Let the watcher, where there is one, know how far a step is."""
    watcher = _watcher.get()
    if watcher is not None:
        watcher(name, done, total)


LOG_SECONDS = 30
"""Where the output is no terminal, a bar prints a line this often."""


class LineProgress(Progress):
    """A rich progress display that also shows in log files, line by line."""

    _last_line = 0.0

    def update(self, task_id: TaskID, **changes: Any) -> None:  # type: ignore[override]
        """As `rich.progress.Progress.update`."""
        super().update(task_id, **changes)
        self._moved(task_id)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """As `rich.progress.Progress.advance`."""
        super().advance(task_id, advance)
        self._moved(task_id)

    def _moved(self, task_id: TaskID) -> None:
        task = self._tasks[task_id]
        tell(task.description, task.completed, task.total)
        self._print_line(task_id)

    def _print_line(self, task_id: TaskID) -> None:
        now = time.monotonic()
        if self.console.is_terminal or self.disable or now - self._last_line < LOG_SECONDS:
            return
        if self._last_line > 0:
            task = self._tasks[task_id]
            left = "?" if task.time_remaining is None else f"{task.time_remaining:.0f} s"
            total = "?" if task.total is None else f"{task.total:.0f}"
            self.console.print(
                f"{task.description} {task.completed:.0f}/{total}, {left} left, "
                f"{task.fields.get('status', '')}"
            )
        self._last_line = now


def progress_bar() -> Progress:
    """A progress display: description, bar, count, time used and time left."""
    return LineProgress(
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
