"""Training data: orbits of whole collections of objects (paper, Section 4.2 and Section 5.1)."""

import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePath

from hi3d.assets.load import load_object
from hi3d.assets.sources import collection_root, fetch_object, find_objects
from hi3d.errors import InputError
from hi3d.files import make_folder
from hi3d.orbits.config import OrbitRenderConfig
from hi3d.orbits.encoded_orbit import EncodedOrbit, encode_orbit
from hi3d.orbits.folders import FolderWriter, OfficialWriter, OrbitWriter
from hi3d.orbits.run_state import (
    FailureLog,
    check_settings,
    full_disk_is_an_input_error,
    locked,
    merge_failures,
    remove_partial_notes,
)
from hi3d.orbits.shard_writer import ShardWriter
from hi3d.orbits.shards import merge_indices
from hi3d.orbits.trajectories import Orbit, in_part, object_orbits, uniform
from hi3d.progress import console, progress_bar
from hi3d.rendering.rasterizer import available_backend, render_views
from hi3d.report import RunReport
from hi3d.workers.outcomes import outcomes
from hi3d.workers.pool import Outcome
from hi3d.workers.ray_executor import connect

SHOWN_PARTS = 8  # of those that a message lists


@dataclass(frozen=True)
class OrbitRenderSummary:
    """What a run did."""

    num_objects: int
    """Objects given, of the part that the run renders."""
    num_rendered: int
    """Objects rendered by this run."""
    num_skipped: int
    """Objects whose orbits were there already."""
    num_failed: int
    """Objects that have no orbits: they are listed in `failures.jsonl`."""
    num_views: int
    """Images rendered by this run."""
    num_bytes: int
    """Size of what this run wrote."""
    seconds: float
    """Wall-clock time of the rendering."""
    backends: dict[str, int] = field(default_factory=dict)
    """Objects per backend that rendered them."""
    failures: dict[str, int] = field(default_factory=dict)
    """Failed objects per cause."""

    @property
    def views_per_second(self) -> float:
        """Rate of this run."""
        return self.num_views / max(self.seconds, 1e-9)

    def __str__(self) -> str:
        causes = ", ".join(f"{count} {cause}" for cause, count in self.failures.items())
        failed = f"{self.num_failed} failed" + (f" ({causes})" if causes else "")
        return (
            f"{self.num_rendered} objects rendered, {self.num_skipped} were there already, "
            f"{failed}; {self.num_views} views, {self.num_bytes / 1e6:.0f} MB in "
            f"{self.seconds:.0f} s: {self.views_per_second:.2f} views/s"
        )


@dataclass(frozen=True)
class OrbitJob:
    """One object and the orbits it still needs."""

    uid: str
    """Of the object."""
    location: str
    """As `hi3d.assets.sources.fetch_object` takes it."""
    orbits: tuple[Orbit, ...]
    """At least one."""
    config: OrbitRenderConfig
    """How to render them."""
    root: Path | None = None
    """Of the collection: `root` of `hi3d.assets.load.load_object`."""


@dataclass(frozen=True)
class RenderedObject:
    """What a worker sends back."""

    orbits: list[EncodedOrbit]
    """One entry per orbit of the job."""
    backend: str
    """Which rasterizer ran."""


def render_orbits(
    objects: str | Path | Sequence[str | Path],
    output: str | Path,
    config: OrbitRenderConfig,
) -> OrbitRenderSummary:
    """Render every object to orbits, or those that the output folder lacks.

    A bad object is recorded and never stops the run. A run that was ended by whatever means is
    finished by the same call. Beside the orbits, `output` gets `settings.json`, `failures.jsonl`
    (one `{"object", "uid", "reason", "cause", "seconds"}` a line), `report.json` and, with shards,
    `index.json`. The objects are taken in an order shuffled by `config.seed`, so every shard is a
    sample of the whole collection. With `config.shard` the names hold the number of the part, and
    the part that ends last writes `failures.jsonl` and `index.json` of all.

    Args:
        objects: what `hi3d.assets.sources.find_objects` takes.
        output: folder to write to.
        config: what to render.

    Returns:
        Counts and rates.

    Raises:
        InputError: no objects; the backend or executor cannot be used; the output holds orbits of
            other settings, or another run writes to it; the disk is full; or not one object could
            be rendered.
    """
    if config.backend != "auto":
        available_backend(
            config.backend, config.cycles.blender_python
        )  # one error now rather than one for every object
    if config.executor == "ray":
        connect()
    part, num_parts = config.part
    locations = {
        uid: place for uid, place in find_objects(objects).items() if in_part(uid, part, num_parts)
    }
    output = make_folder(output)
    report = RunReport({"objects": str(objects)}, asdict(config), config.seed)
    with (
        full_disk_is_an_input_error(output),
        locked(output / f".run{config.part_tag}.lock"),
        report.step("render") as facts,
    ):
        remove_partial_notes(output, config.part_tag)
        check_settings(output, config)
        roots = {uid: collection_root(objects, place) for uid, place in locations.items()}
        summary = _render_missing(locations, roots, output, config)
        facts.update(asdict(summary), views_per_second=round(summary.views_per_second, 3))
    report.save(output / f"report{config.part_tag}.json")
    if num_parts > 1:
        with full_disk_is_an_input_error(output):
            _merge_parts(output, config)
    if locations and summary.num_failed == len(locations):
        failures = output / f"failures{config.part_tag}.jsonl"
        first = json.loads(failures.read_text().split("\n")[0])
        raise InputError(
            f"none of {len(locations)} objects could be rendered: {first['object']}: "
            f"{first['reason']} (all in {failures})"
        )
    console.print(f"{summary}: {output}")
    return summary


def _merge_parts(output: Path, config: OrbitRenderConfig) -> None:
    """Write the `failures.jsonl`, and `index.json` of shards, of the whole run after its last part.

    A part that is run again later, say to retry its failures, writes them anew.
    """
    tags = config.all_part_tags
    running = [i for i, tag in enumerate(tags) if not (output / f"report{tag}.json").exists()]
    if running:
        shown = ", ".join(f"shard={i}/{len(tags)}" for i in running[:SHOWN_PARTS])
        more = ", ..." if len(running) > SHOWN_PARTS else ""
        ended = len(tags) - len(running)
        console.print(f"{ended} of {len(tags)} parts have ended; not yet: {shown}{more}")
        return
    if config.format == "shards" and not merge_indices(output, len(tags)):
        console.print("a part was begun again and has not ended: index.json is not complete yet")
        return
    merge_failures(output, tags)
    console.print(f"all {len(tags)} parts have ended: what failed is in {output}/failures.jsonl")


def _render_missing(
    locations: dict[str, str],
    roots: dict[str, Path | None],
    output: Path,
    config: OrbitRenderConfig,
) -> OrbitRenderSummary:
    failures = FailureLog(output / f"failures{config.part_tag}.jsonl")
    backends: Counter[str] = Counter()
    num_views = num_bytes = 0
    start = time.perf_counter()
    with _writer(output, config) as writer, progress_bar() as bar:
        jobs = list(_jobs(locations, roots, config, writer.finished))
        num_skipped = len(locations) - len(jobs)
        if not config.retry_failures:
            jobs = [job for job in jobs if job.uid not in failures.entries]
        done = len(locations) - len(jobs)
        task = bar.add_task("rendering objects", total=len(locations), completed=done, status="")
        for outcome in _outcomes(jobs, config):
            job = outcome.job
            if outcome.result is None:
                failures.add(
                    job.uid, job.location, str(outcome.failure), outcome.cause, outcome.seconds
                )
            else:
                writer.add(job.uid, outcome.result.orbits)
                failures.remove(job.uid)
                backends[outcome.result.backend] += 1
                num_views += sum(len(orbit.images) for orbit in outcome.result.orbits)
                num_bytes += sum(orbit.num_bytes for orbit in outcome.result.orbits)
            seconds = time.perf_counter() - start
            bar.advance(task)
            bar.update(
                task,
                status=f"{backends.total() / seconds:.2f} objects/s, {num_views / seconds:.1f} "
                f"views/s, {len(failures.entries)} failed",
            )
    here = [entry for uid, entry in failures.entries.items() if uid in locations]
    return OrbitRenderSummary(
        num_objects=len(locations),
        num_rendered=backends.total(),
        num_skipped=num_skipped,
        num_failed=len(here),
        num_views=num_views,
        num_bytes=num_bytes,
        seconds=round(time.perf_counter() - start, 3),
        backends=dict(backends),
        failures=dict(Counter(entry["cause"] for entry in here).most_common()),
    )


def _writer(output: Path, config: OrbitRenderConfig) -> OrbitWriter:
    tag = config.part_tag
    if config.format == "shards":
        return ShardWriter(output, config.objects_per_shard, config.max_shard_bytes, tag)
    if config.format == "official":
        return OfficialWriter(output, len(object_orbits(config, "any")), tag)
    return FolderWriter(output, tag)


def _jobs(
    locations: dict[str, str],
    roots: dict[str, Path | None],
    config: OrbitRenderConfig,
    finished: set[str],
) -> Iterator[OrbitJob]:
    for uid in sorted(locations, key=lambda uid: (uniform("order", config.seed, uid), uid)):
        orbits = object_orbits(config, uid)
        missing = tuple(orbit for orbit in orbits if orbit.uid not in finished)
        if missing:
            yield OrbitJob(uid, locations[uid], missing, config, roots[uid])


def _outcomes(
    jobs: list[OrbitJob], config: OrbitRenderConfig
) -> Iterator[Outcome[OrbitJob, RenderedObject]]:
    return outcomes(
        render_object,
        jobs,
        config.executor,
        config.num_workers,
        timeout_s=config.object_timeout_s,
        memory_gb=config.object_memory_gb,
        jobs_per_worker=config.objects_per_worker,
    )


def render_object(job: OrbitJob) -> RenderedObject:
    """Load one object and render its orbits.

    Raises:
        InputError: the file cannot be had or read, or an orbit shows nothing.
    """
    config = job.config
    mesh = load_object(fetch_object(job.location), root=job.root)
    orbits, backend = [], config.backend
    for orbit in job.orbits:
        shown = mesh if orbit.stretch is None else mesh.stretched(**vars(orbit.stretch))
        rendered = render_views(
            shown,
            orbit.cameras(config),
            backend=config.backend,
            supersampling=config.supersampling,
            shading=config.shading,
            normals=config.save_normals,
            cycles=config.cycles,
        )
        if not rendered.alpha.any():
            raise InputError(f"{job.location} shows nothing from any view: check its faces")
        backend = rendered.backend
        orbits.append(
            encode_orbit(
                orbit.uid,
                rendered,
                orbit.elevation_deg,
                PurePath(job.location).name,
                config.image_format,
                config.depth_bits,
                config.save_normals,
                straight_alpha=config.format == "official",
            )
        )
    return RenderedObject(orbits, backend)
