"""Worker processes that outlive bad jobs: one that raises, crashes or hangs costs only itself."""

import multiprocessing
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

from hi3d.errors import InputError

Job = TypeVar("Job")
Result = TypeVar("Result")

START_LIMIT_S = 120.0  # for a fresh process to import what it needs; not part of a job's time
BEGUN = "begun"  # a worker's message that it now works on the job


@dataclass(frozen=True)
class Outcome(Generic[Job, Result]):
    """What became of one job."""

    job: Job
    """The job as it was given."""
    result: Result | None
    """What the function returned, or None after a failure."""
    failure: str | None = None
    """Why there is no result, in one line."""


def run_jobs(
    function: Callable[[Job], Result],
    jobs: Iterable[Job],
    num_workers: int,
    timeout_s: float,
) -> Iterator[Outcome[Job, Result]]:
    """Run `function` on every job and yield the outcomes as they come.

    Args:
        function: importable by name (it is called in other processes).
        jobs: picklable values; taken one at a time as workers fall free.
        num_workers: processes; 0 runs the jobs here, in order, without a time limit and without
            protection from crashes.
        timeout_s: a worker that takes longer over a job is killed and replaced.

    Yields:
        One outcome a job. An exception, a dead worker and a timeout are failures, not exceptions.
    """
    if num_workers == 0:
        yield from (_attempt(function, job) for job in jobs)
        return
    pending = iter(jobs)
    workers = [_Worker(function, timeout_s) for _ in range(num_workers)]
    try:
        for worker in workers:
            worker.start_next(pending)
        while busy := [worker for worker in workers if worker.busy]:
            patience = max(0.0, min(worker.deadline for worker in busy) - time.monotonic())
            ready = wait([worker.connection for worker in busy], timeout=patience)
            for worker in busy:
                outcome = None
                if worker.connection in ready:
                    outcome = worker.receive()
                elif time.monotonic() > worker.deadline:
                    outcome = worker.give_up(f"took longer than {timeout_s:g} s")
                if outcome is None:
                    continue
                worker.start_next(pending)
                yield outcome
    finally:
        for worker in workers:
            worker.stop()


class _Worker:
    """One process and the job it works on."""

    def __init__(self, function: Callable[[Any], Any], timeout_s: float):
        self.function = function
        self.timeout_s = timeout_s
        self.busy = False
        self.deadline = 0.0
        self.job: Any = None
        self._start_process()

    def _start_process(self) -> None:
        # Spawned rather than forked: graphics drivers and OpenMP do not survive a fork.
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(
            target=_serve, args=(theirs, self.function), daemon=True, name="hi3d worker"
        )
        self.process.start()
        theirs.close()

    def start_next(self, pending: Iterator[Any]) -> None:
        """Send the next job, if there is one."""
        try:
            self.job = next(pending)
        except StopIteration:
            self.busy = False
            return
        self.busy, self.deadline = True, time.monotonic() + START_LIMIT_S + self.timeout_s
        try:
            self.connection.send(self.job)
        except OSError:  # it died between two jobs
            self._start_process()
            self.connection.send(self.job)

    def receive(self) -> Outcome | None:
        """The outcome of the job, whether the process answered or died; None if it just began."""
        try:
            message = self.connection.recv()
        except (EOFError, OSError):
            self.process.join(5)
            return self.give_up(f"its process ended with exit code {self.process.exitcode}")
        if message == BEGUN:
            self.deadline = time.monotonic() + self.timeout_s
            return None
        return Outcome(self.job, *message)

    def give_up(self, failure: str) -> Outcome:
        """Replace the process; the job has failed."""
        self.stop()
        self._start_process()
        return Outcome(self.job, None, failure)

    def stop(self) -> None:
        """End the process."""
        self.connection.close()
        self.process.kill()
        self.process.join()


def _serve(connection: Connection, function: Callable[[Any], Any]) -> None:
    """The worker's loop: a job in, a result or a failure out, until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which stops us
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        try:
            connection.send(BEGUN)
            outcome = _attempt(function, job)
            connection.send((outcome.result, outcome.failure))
        except OSError:
            return


def _attempt(function: Callable[[Job], Result], job: Job) -> Outcome[Job, Result]:
    try:
        return Outcome(job, function(job))
    except InputError as error:
        return Outcome(job, None, _one_line(str(error)))
    except Exception as error:
        return Outcome(job, None, _one_line(f"{type(error).__name__}: {error}"))


def _one_line(text: str) -> str:
    return " ".join(text.split())
