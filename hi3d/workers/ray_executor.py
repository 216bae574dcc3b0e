"""Jobs on an existing Ray cluster, under the same limits as on one machine."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from hi3d.errors import InputError
from hi3d.workers.pool import Outcome, Worker, WorkerLimits

Job = TypeVar("Job")
Result = TypeVar("Result")

POLL_S = 0.05  # of an actor, for its worker process
MAX_RETRIES = 2  # of a job whose actor was lost, for instance with its node


def run_jobs_on_ray(
    function: Callable[[Job], Result],
    jobs: Iterable[Job],
    num_workers: int | None,
    limits: WorkerLimits,
) -> Iterator[Outcome[Job, Result]]:
    """As `hi3d.workers.pool.run_jobs`, with one worker process in each of many Ray actors.

    The nodes need this package, and the files that the jobs name.

    Args:
        function: importable by name on the nodes.
        jobs: picklable values.
        num_workers: actors, each of which takes one CPU; None takes every CPU of the cluster.
        limits: of each job and worker.

    Yields:
        One outcome a job; a job whose actor is lost is given to another one, twice at most.

    Raises:
        InputError: Ray is not installed, or there is no cluster.
    """
    ray = connect()
    if num_workers is None:
        num_workers = max(1, int(ray.cluster_resources().get("CPU", 1)))
    actor_class = ray.remote(num_cpus=1)(_Actor)
    pending = iter(jobs)
    running: dict[Any, tuple[Any, Job, int]] = {}
    actors: list[Any] = []

    def submit(actor: Any, job: Job, tries: int = 0) -> None:
        running[actor.run.remote(job)] = actor, job, tries

    try:
        for job in pending:
            actors.append(actor_class.remote(function, limits, len(actors)))
            submit(actors[-1], job)
            if len(actors) == num_workers:
                break
        while running:
            (reference, *_), _ = ray.wait(list(running), num_returns=1)
            actor, job, tries = running.pop(reference)
            outcome = None
            try:
                outcome = ray.get(reference)
            except ray.exceptions.RayActorError as error:
                index = actors.index(actor)
                actor = actors[index] = actor_class.remote(function, limits, index)
                if tries < MAX_RETRIES:
                    submit(actor, job, tries + 1)
                    continue
                cause = " ".join(str(error).split())
                outcome = Outcome(job, None, f"its Ray actor was lost: {cause}", "crash")
            for next_job in pending:
                submit(actor, next_job)
                break
            yield outcome
    finally:
        for actor in actors:
            ray.kill(actor)


def connect() -> Any:
    """The `ray` module, connected to a cluster that runs.

    Raises:
        InputError: Ray is not installed, or there is no cluster.
    """
    try:
        import ray
    except ImportError as error:
        raise InputError("executor=ray needs Ray: pip install 'hi3d[ray]'") from error
    if not ray.is_initialized():
        try:
            ray.init(address="auto", log_to_driver=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise InputError(
                "executor=ray found no Ray cluster: start one with 'ray start --head', set "
                "RAY_ADDRESS, or use executor=processes"
            ) from error
    return ray


class _Actor:
    """Holds one worker process on a node of the cluster."""

    def __init__(self, function: Callable[[Any], Any], limits: WorkerLimits, index: int):
        self.worker = Worker(function, limits, index)

    def run(self, job: Any) -> Outcome:
        self.worker.start(job)
        while True:
            self.worker.connection.poll(POLL_S)
            outcome = self.worker.poll()
            if outcome is not None:
                return outcome
