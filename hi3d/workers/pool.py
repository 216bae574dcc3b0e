"""Worker processes that outlive bad jobs: whether it raises, crashes, hangs or swells.

Every worker leads a process group of its own, which ends with it and with the process that started
it, whatever ends that.
"""

import contextlib
import multiprocessing
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Generic, TypeVar

from hi3d.errors import InputError
from hi3d.progress import console, set_quiet

WORKER_VARIABLE = "HI3D_WORKER_INDEX"
"""Environment variable with the number of this process among the node's workers, from 0."""

Job = TypeVar("Job")
Result = TypeVar("Result")

START_LIMIT_S = 120.0  # for a fresh process to import what it needs; not part of a job's time
POLL_S = 0.25  # how often the memory of busy workers is looked at
MAX_GROWTH_GB = 1.0  # beyond what it held after its first job; then a worker is replaced
BEGUN = "begun"  # a worker's message that it now works on the job
THREAD_VARIABLES = ("OMP_NUM_THREADS", "LP_NUM_THREADS")  # of torch and of Mesa's llvmpipe


@dataclass(frozen=True)
class Outcome(Generic[Job, Result]):
    """What became of one job."""

    job: Job
    """The job as it was given."""
    result: Result | None
    """What the function returned, or None after a failure."""
    failure: str | None = None
    """Why there is no result, in one line."""
    cause: str = ""
    """`bad input`, `time limit`, `memory limit`, `crash`, or the name of an exception."""
    seconds: float = 0.0
    """Time that the job took."""


@dataclass(frozen=True)
class WorkerLimits:
    """What a job may cost, and when a worker is replaced."""

    timeout_s: float = 600.0
    """A worker that takes longer over a job is killed and replaced."""
    memory_gb: float = 8.0
    """A worker whose resident memory, with its child processes, grows beyond is killed and
    replaced. Needs Linux's /proc."""
    jobs_per_worker: int = 500
    """A worker is replaced after this many jobs."""
    num_threads: int = 1
    """Of OpenMP and of the software rasterizer in each worker, unless the environment sets them."""


def default_num_workers() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_jobs(
    function: Callable[[Job], Result],
    jobs: Iterable[Job],
    num_workers: int,
    limits: WorkerLimits,
) -> Iterator[Outcome[Job, Result]]:
    """Run `function` on every job and yield the outcomes as they come.

    Args:
        function: importable by name (it is called in other processes).
        jobs: picklable values; taken one at a time as workers fall free.
        num_workers: processes; 0 runs the jobs here, in order, without limits and without
            protection from crashes.
        limits: of each job and worker.

    Yields:
        One outcome a job. An exception, a dead worker and a limit are failures, not exceptions.
    """
    if num_workers == 0:
        yield from (attempt(function, job) for job in jobs)
        return
    pending = iter(jobs)
    workers: list[Worker] = []
    try:
        for job in pending:
            workers.append(Worker(function, limits, len(workers)))
            workers[-1].start(job)
            if len(workers) == num_workers:
                break
        while busy := [worker for worker in workers if worker.busy]:
            wait([worker.connection for worker in busy], timeout=POLL_S)
            for worker in busy:
                outcome = worker.poll()
                if outcome is None:
                    continue
                for job in pending:
                    worker.start(job)
                    break
                yield outcome
    finally:
        for worker in workers:
            worker.stop()


class Worker:
    """One process and the job it works on."""

    def __init__(self, function: Callable[[Any], Any], limits: WorkerLimits, index: int = 0):
        """Args:
        function: as in `run_jobs`.
        limits: of each job and of the process.
        index: number of the worker; workers share the GPUs of a node by it.
        """
        self.index = index
        self.function = function
        self.limits = limits
        self.busy = False
        self._job: Any = None
        self._begun = self._deadline = 0.0
        self._start_process()

    def _start_process(self) -> None:
        # Spawned rather than forked: graphics drivers and OpenMP do not survive a fork.
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(
            target=_serve,
            args=(theirs, self.function, console.quiet),
            daemon=True,
            name="hi3d worker",
        )
        variables = {name: str(self.limits.num_threads) for name in THREAD_VARIABLES}
        with _environment(variables | {WORKER_VARIABLE: str(self.index)}):
            self.process.start()
        theirs.close()
        self._num_jobs = 0
        self._first_gb: float | None = None

    def start(self, job: Any) -> None:
        """Begin a job; the worker must be idle."""
        if self._worn_out():
            self.stop()
            self._start_process()
        self._job, self.busy = job, True
        self._begun = time.monotonic()
        self._deadline = self._begun + START_LIMIT_S + self.limits.timeout_s
        try:
            self.connection.send(job)
        except OSError:  # it died between two jobs
            self.stop()
            self._start_process()
            self.connection.send(job)

    def _worn_out(self) -> bool:
        if self._num_jobs == 0:
            return False
        held = resident_gb(self.process.pid)
        if self._first_gb is None:
            self._first_gb = held
        return (
            self._num_jobs >= self.limits.jobs_per_worker or held > self._first_gb + MAX_GROWTH_GB
        )

    def poll(self) -> Outcome | None:
        """What became of the job; None while it goes on."""
        while self.connection.poll():
            try:
                message = self.connection.recv()
            except (EOFError, OSError):
                self.process.join(5)
                return self._give_up(
                    f"its process ended with exit code {self.process.exitcode}", "crash"
                )
            if message == BEGUN:
                self._begun = time.monotonic()
                self._deadline = self._begun + self.limits.timeout_s
                continue
            self.busy = False
            self._num_jobs += 1
            return Outcome(self._job, *message)
        if time.monotonic() > self._deadline:
            return self._give_up(f"took longer than {self.limits.timeout_s:g} s", "time limit")
        if resident_gb(self.process.pid) > self.limits.memory_gb:
            return self._give_up(
                f"needed more memory than {self.limits.memory_gb:g} GB", "memory limit"
            )
        return None

    def _give_up(self, failure: str, cause: str) -> Outcome:
        """Replace the process; the job has failed."""
        seconds = round(time.monotonic() - self._begun, 3)
        self.stop()
        self._start_process()
        return Outcome(self._job, None, failure, cause, seconds)

    def stop(self) -> None:
        """End the process with the processes it started."""
        self.busy = False
        self.connection.close()
        if self.process.pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.join(5)  # no longer: a process can hang within a driver


def resident_gb(pid: int | None) -> float:
    """Resident memory of a process and its children in GB; 0 where it cannot be read."""
    folder = Path("/proc") / str(pid)
    try:
        pages = int((folder / "statm").read_text().split()[1])
        children = (folder / "task" / str(pid) / "children").read_text().split()
    except (OSError, IndexError):
        return 0.0
    return pages * resource.getpagesize() / 1e9 + sum(resident_gb(int(c)) for c in children)


@contextlib.contextmanager
def _environment(defaults: dict[str, str]) -> Iterator[None]:
    """Set environment variables for processes started within, unless they are set already."""
    added = {name: value for name, value in defaults.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def _serve(connection: Connection, function: Callable[[Any], Any], quiet: bool) -> None:
    """The worker's loop: a job in, a result or a failure out, until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which stops us
    os.setpgrp()
    set_quiet(quiet)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            job = connection.recv()
        except (EOFError, OSError):
            return
        try:
            connection.send(BEGUN)
            outcome = attempt(function, job)
            connection.send((outcome.result, outcome.failure, outcome.cause, outcome.seconds))
        except OSError:
            return


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.killpg(0, signal.SIGKILL)


def attempt(function: Callable[[Job], Result], job: Job) -> Outcome[Job, Result]:
    """Run a job in this process."""
    start = time.monotonic()
    try:
        return Outcome(job, function(job), seconds=round(time.monotonic() - start, 3))
    except InputError as error:
        failure, cause = str(error), "bad input"
    except Exception as error:
        failure, cause = f"{type(error).__name__}: {error}", type(error).__name__
    seconds = round(time.monotonic() - start, 3)
    return Outcome(job, None, " ".join(failure.split()), cause, seconds)
