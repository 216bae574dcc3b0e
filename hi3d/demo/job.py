"""Work in a thread of its own that can be watched and cancelled."""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import torch

from hi3d.errors import InputError
from hi3d.files import system_error
from hi3d.progress import watched

T = TypeVar("T")
POLL_SECONDS = 0.1
CANCELLED = "Cancelled: nothing of it is kept."


class Cancelled(BaseException):
    """The visitor does not want the result any more."""


class Turns:
    """One at a time has the networks, in the order in which they came."""

    def __init__(self, most_waiting: int):
        """Args:
        most_waiting: beside the one whose turn it is.
        """
        self.most_waiting = most_waiting
        self._tickets: list[object] = []
        self._changed = threading.Condition()

    def enter(self) -> object:
        """A ticket at the end of the line.

        Raises:
            InputError: too many are waiting.
        """
        with self._changed:
            if len(self._tickets) > self.most_waiting:
                raise InputError(f"{self.most_waiting} are waiting already: try again later")
            self._tickets.append(object())
            return self._tickets[-1]

    def ahead(self, ticket: object) -> int:
        """How many come before a ticket."""
        with self._changed:
            return self._tickets.index(ticket) if ticket in self._tickets else 0

    def wait(self, ticket: object, seconds: float) -> bool:
        """Wait for a ticket's turn, but no longer; whether it has come."""
        with self._changed:
            return self._changed.wait_for(lambda: self._tickets[0] is ticket, seconds)

    def leave(self, ticket: object) -> None:
        """Give the turn, or the place in the line, up."""
        with self._changed:
            self._tickets.remove(ticket)
            self._changed.notify_all()


class Job(threading.Thread, Generic[T]):
    """One piece of work, which waits for its turn."""

    def __init__(self, work: Callable[[], T], turns: Turns):
        """Args:
        work: what is done.
        turns: to which it is added at once.

        Raises:
            InputError: too many are waiting.
        """
        super().__init__(daemon=True)
        self.work, self.turns, self.ticket = work, turns, turns.enter()
        self.result: T | None = None
        self.error: BaseException | None = None
        self.started: dict[str, float] = {}
        """Time at which each step of the chain began."""
        self.progress: tuple[str, float, float | None] = ("waiting", 0, None)
        """Last step, how much of it is done, and of how much."""
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """Ask for the end, which comes with the next step of the progress."""
        self._cancelled.set()

    @property
    def ahead(self) -> int:
        """How many come before it."""
        return self.turns.ahead(self.ticket)

    @property
    def is_cancelled(self) -> bool:
        """Whether the end was asked for."""
        return self._cancelled.is_set()

    def run(self) -> None:
        """Do the work; `result` or `error` says how it ended."""
        try:
            while not self.turns.wait(self.ticket, POLL_SECONDS):
                self._stop_if_cancelled()
            with watched(self._watch):
                self._stop_if_cancelled()
                self.result = self.work()
        except BaseException as error:
            self.error = error
        finally:
            self.turns.leave(self.ticket)

    def _watch(self, name: str, done: float, total: float | None) -> None:
        self._stop_if_cancelled()
        if total is None:
            self.started[name] = time.monotonic()
        self.progress = (name, done, total)

    def _stop_if_cancelled(self) -> None:
        if self._cancelled.is_set():
            raise Cancelled


def one_line(error: BaseException, folder: Path) -> str:
    """What a visitor is told of an error: cause and fix, and nothing of the server.

    Args:
        error: of a job.
        folder: of the visitor, which is not named.
    """
    if isinstance(error, Cancelled):
        return CANCELLED
    if isinstance(error, InputError):
        return str(error).replace(f"{folder}/photo", "the photo").replace(str(folder), "the result")
    logging.getLogger("hi3d.demo").error("a visitor's work failed", exc_info=error)
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return "out of memory: choose a smaller texture, fewer views, or the memory mode low"
    if system_error(error) is not None:
        return "the server's disk refuses to write: tell its owner, or try again later"
    return "the server failed: its log says why"
