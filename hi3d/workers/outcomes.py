"""One call for every executor: processes of this machine, or an existing Ray cluster."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from hi3d.workers.pool import Outcome, WorkerLimits, default_num_workers, run_jobs
from hi3d.workers.ray_executor import run_jobs_on_ray

Job = TypeVar("Job")
Result = TypeVar("Result")

EXECUTORS = ("processes", "ray")


def outcomes(
    function: Callable[[Job], Result],
    jobs: Iterable[Job],
    executor: str,
    num_workers: int | None,
    **limits: Any,
) -> Iterator[Outcome[Job, Result]]:
    """Run `function` on every job where `executor` says, and yield the outcomes as they come.

    Args:
        function: importable by name.
        jobs: picklable values.
        executor: one of `EXECUTORS`.
        num_workers: processes or actors; None is one per core of the machine or the cluster.
        limits: of `WorkerLimits`; processes share the machine's cores as their threads.

    Raises:
        InputError: Ray is asked for and is not installed, or there is no cluster.
    """
    if executor == "ray":
        return run_jobs_on_ray(function, jobs, num_workers, WorkerLimits(**limits))
    cores = default_num_workers()
    count = cores if num_workers is None else num_workers
    num_threads = max(1, cores // max(1, count))
    return run_jobs(function, jobs, count, WorkerLimits(**limits, num_threads=num_threads))
