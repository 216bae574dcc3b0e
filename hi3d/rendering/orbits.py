"""Training data: orbits of whole collections of objects (paper, Section 4.2 and Section 5.1)."""

import hashlib
import json
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hi3d.cameras import FOV_DEG, NUM_ORBIT_VIEWS, ORBIT_DISTANCE, orbit_cameras
from hi3d.errors import InputError
from hi3d.files import make_folder, write_json
from hi3d.progress import console, progress_bar
from hi3d.rendering.objects import SUFFIXES, load_object
from hi3d.rendering.orbit_files import (
    EncodedOrbit,
    FolderWriter,
    OrbitWriter,
    ShardWriter,
    encode_orbit,
)
from hi3d.rendering.rasterizer import available_backend, render_views
from hi3d.rendering.worker_pool import run_jobs
from hi3d.run_report import RunReport
from hi3d.views import DEPTH_NEAR, DEPTH_RANGE

ELEVATION_RANGE_DEG = (-10.0, 40.0)  # paper, Section 4.2
HALF_DIAGONAL = 3**0.5 / 2  # of the unit cube: how far a surface can be from the origin
MAX_UID_LENGTH = 80  # leaves room for suffixes in the 100 characters of a plain tar name


@dataclass
class OrbitRenderConfig:
    """How a collection of objects is rendered to orbits."""

    format: str = "shards"
    """`shards` (WebDataset tar files) or `folder` (a folder of PNGs per orbit)."""
    backend: str = "auto"
    """Of `hi3d.rendering.rasterizer.render_views`."""
    resolution: int = 512
    """Image side in pixels."""
    num_views: int = NUM_ORBIT_VIEWS
    """Views per orbit."""
    elevation_deg: int | float | str = "random"
    """A number in (-90, 90), or `random`: uniform in [-10, 40] for every orbit (Section 4.2)."""
    orbits_per_object: int = 1
    """More than one needs `elevation_deg=random`."""
    distance: float = ORBIT_DISTANCE
    """Of the camera from the origin, in units of the object's longest side."""
    fov_deg: float = FOV_DEG
    """Vertical field of view."""
    start_azimuth_deg: float = 0.0
    """Of view 0, the reference image."""
    save_depth: bool = True
    """Also write a 16-bit depth map per view."""
    seed: int = 0
    """Of the random elevations and of the order of the objects."""
    objects_per_shard: int = 256
    """A shard holds at most this many orbits."""
    max_shard_bytes: int = 1_000_000_000
    """A shard is closed before it would grow beyond this."""
    num_workers: int = 1
    """Processes that render; 0 renders in this one, where a crash or a hang ends the run."""
    object_timeout_s: float = 600.0
    """An object that takes a worker longer is a failure."""
    resume: bool = False
    """Go on with an output folder: orbits that are there are skipped, failures are tried again."""

    def __post_init__(self) -> None:
        if self.format not in ("shards", "folder"):
            raise InputError(f"format={self.format}: use shards or folder")
        if isinstance(self.elevation_deg, str):
            if self.elevation_deg != "random":
                raise InputError(f"elevation_deg={self.elevation_deg}: use a number or random")
        elif not -90 < self.elevation_deg < 90:
            raise InputError(f"elevation_deg={self.elevation_deg}: use a number in (-90, 90)")
        elif self.orbits_per_object > 1:
            raise InputError("orbits_per_object > 1 repeats one orbit: use elevation_deg=random")
        for name in ("resolution", "num_views", "orbits_per_object", "objects_per_shard"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}: use 1 or more")
        if self.num_workers < 0:
            raise InputError(f"num_workers={self.num_workers}: use 0 or more")
        nearest, farthest = self.distance - HALF_DIAGONAL, self.distance + HALF_DIAGONAL
        if self.save_depth and not (nearest >= DEPTH_NEAR and farthest <= DEPTH_NEAR + DEPTH_RANGE):
            raise InputError(
                f"distance={self.distance}: depth files hold {DEPTH_NEAR} to "
                f"{DEPTH_NEAR + DEPTH_RANGE}, so use {ORBIT_DISTANCE} or save_depth=false"
            )

    @property
    def content(self) -> dict[str, Any]:
        """The settings that decide what the orbits look like."""
        names = (
            *(
                "format",
                "resolution",
                "num_views",
                "elevation_deg",
                "orbits_per_object",
                "distance",
            ),
            *("fov_deg", "start_azimuth_deg", "save_depth", "seed"),
        )
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class OrbitRenderSummary:
    """What a run did."""

    num_objects: int
    """Objects given."""
    num_rendered: int
    """Objects rendered by this run."""
    num_skipped: int
    """Objects whose orbits were there already."""
    num_failed: int
    """Objects listed in `failures.jsonl`."""
    seconds: float
    """Wall-clock time of the rendering."""
    backends: dict[str, int] = field(default_factory=dict)
    """Objects per backend that rendered them."""

    @property
    def objects_per_second(self) -> float:
        """Rate of this run."""
        return self.num_rendered / max(self.seconds, 1e-9)


@dataclass(frozen=True)
class OrbitJob:
    """One object and the orbits it still needs."""

    path: Path
    """File of the object."""
    orbits: tuple[tuple[str, float], ...]
    """uid and elevation in degrees of each orbit."""
    config: OrbitRenderConfig
    """How to render them."""


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
    """Render every object to orbits. A bad object is recorded and never stops the run.

    Beside the orbits, `output` gets `failures.jsonl` (one `{"object", "reason"}` a line),
    `report.json`, `settings.json` and, with shards, `index.json`. The objects are taken in an order
    shuffled by `config.seed`, so every shard is a sample of the whole collection.

    Args:
        objects: an object file, a folder that is searched recursively, or a list of files.
        output: folder to write to.
        config: what to render.

    Returns:
        Counts and the rate.

    Raises:
        InputError: no objects; the backend cannot be used; the output holds orbits and `resume` is
            false, or orbits of other settings; or not one object could be rendered.
    """
    if config.backend != "auto":
        available_backend(config.backend)  # one error now rather than one for every object
    paths = find_objects(objects)
    output = make_folder(output)
    report = RunReport({"objects": str(objects)}, asdict(config), config.seed)
    writer: OrbitWriter = (
        FolderWriter(output)
        if config.format == "folder"
        else ShardWriter(output, config.objects_per_shard, config.max_shard_bytes)
    )
    _check_output(output, config, bool(writer.finished))
    jobs = list(_jobs(paths, config, writer.finished))
    failures: list[str] = []
    backends: Counter[str] = Counter()
    start = time.perf_counter()
    with (
        report.step("render") as facts,
        (output / "failures.jsonl").open("w") as failure_file,
        writer,
        progress_bar() as bar,
    ):
        task = bar.add_task("rendering objects", total=len(jobs), status="")
        for outcome in run_jobs(
            render_object, jobs, min(config.num_workers, len(jobs)), config.object_timeout_s
        ):
            if outcome.result is None:
                failures.append(f"{outcome.job.path}: {outcome.failure}")
                entry = {"object": str(outcome.job.path), "reason": outcome.failure}
                print(json.dumps(entry), file=failure_file, flush=True)
            else:
                for orbit in outcome.result.orbits:
                    writer.add(orbit)
                backends[outcome.result.backend] += 1
            rate = backends.total() / (time.perf_counter() - start)
            bar.advance(task)
            bar.update(task, status=f"{rate:.2f} objects/s, {len(failures)} failed")
        summary = OrbitRenderSummary(
            num_objects=len(paths),
            num_rendered=backends.total(),
            num_skipped=len(paths) - len(jobs),
            num_failed=len(failures),
            seconds=round(time.perf_counter() - start, 3),
            backends=dict(backends),
        )
        facts.update(asdict(summary), objects_per_second=round(summary.objects_per_second, 3))
    report.save(output / "report.json")
    if len(failures) == len(paths):
        raise InputError(
            f"none of {len(paths)} objects could be rendered ({failures[0]}): "
            f"see {output / 'failures.jsonl'}"
        )
    console.print(
        f"{summary.num_rendered} objects rendered, {summary.num_skipped} were there already, "
        f"{summary.num_failed} failed, {summary.objects_per_second:.2f} objects/s: {output}"
    )
    return summary


def find_objects(objects: str | Path | Sequence[str | Path]) -> dict[str, Path]:
    """Object files by uid.

    The uid is the path below the folder with `__` for slashes, without suffix, dots and characters
    that are unsafe in file names; where two files would share one, a hash of the path is added.

    Args:
        objects: an object file, a folder that is searched recursively, or a list of files.

    Raises:
        InputError: nothing is there.
    """
    if isinstance(objects, (str, Path)):
        root = Path(objects)
        if root.is_dir():
            files = [p for p in sorted(root.rglob("*")) if p.suffix.lower() in SUFFIXES]
            if not files:
                raise InputError(f"{root} holds no object ({', '.join(SUFFIXES)})")
            return _by_uid({path: path.relative_to(root) for path in files})
        objects = [root]
    files = [Path(path) for path in objects]
    for path in files:
        if not path.is_file():
            raise InputError(f"no object at {path}: give a mesh file or a folder of them")
    if not files:
        raise InputError("the list of objects is empty: give at least one file")
    return _by_uid({path: Path(path.name) for path in files})


def _by_uid(names: dict[Path, Path]) -> dict[str, Path]:
    def clean(name: Path) -> str:
        return re.sub(r"[^A-Za-z0-9_-]", "_", "__".join(name.with_suffix("").parts)) or "object"

    count = Counter(clean(name) for name in names.values())
    by_uid = {}
    for path, name in names.items():
        uid = clean(name)
        if count[uid] > 1 or len(uid) > MAX_UID_LENGTH:
            # Lists of files can hold the same name twice: then only the whole path differs.
            distinct = name if list(names.values()).count(name) == 1 else path
            digest = hashlib.sha256(distinct.as_posix().encode()).hexdigest()[:8]
            uid = f"{uid[: MAX_UID_LENGTH - 9]}-{digest}"
        by_uid[uid] = path
    return by_uid


def orbit_elevation_deg(config: OrbitRenderConfig, uid: str, orbit: int) -> float:
    """Elevation of an object's orbit in degrees: fixed, or drawn from U[-10, 40] (Section 4.2).

    The draw is a hash of seed, uid and orbit, so it depends neither on the other objects nor on
    the order they are rendered in.
    """
    if not isinstance(config.elevation_deg, str):
        return float(config.elevation_deg)
    low, high = ELEVATION_RANGE_DEG
    return low + (high - low) * _uniform("elevation", config.seed, uid, orbit)


def _uniform(*key: Any) -> float:
    """A number in [0, 1) that is a stable hash of the key."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def _jobs(
    paths: dict[str, Path], config: OrbitRenderConfig, finished: Iterable[str]
) -> Iterator[OrbitJob]:
    finished = set(finished)
    for uid in sorted(paths, key=lambda uid: (_uniform("order", config.seed, uid), uid)):
        orbits = []
        for k in range(config.orbits_per_object):
            name = uid if config.orbits_per_object == 1 else f"{uid}-orbit{k:02d}"
            if name not in finished:
                orbits.append((name, orbit_elevation_deg(config, uid, k)))
        if orbits:
            yield OrbitJob(paths[uid], tuple(orbits), config)


def render_object(job: OrbitJob) -> RenderedObject:
    """Load one object and render its orbits.

    Raises:
        InputError: the file cannot be read, or an orbit shows nothing.
    """
    config = job.config
    mesh = load_object(job.path)
    orbits, backend = [], config.backend
    for uid, elevation_deg in job.orbits:
        cameras = orbit_cameras(
            elevation_deg,
            config.resolution,
            config.num_views,
            config.distance,
            config.fov_deg,
            config.start_azimuth_deg,
        )
        rendered = render_views(mesh, cameras, backend=config.backend)
        if not rendered.alpha.any():
            raise InputError(f"{job.path} shows nothing from any view: check its faces")
        backend = getattr(rendered, "backend", config.backend)
        depth = rendered.depth if config.save_depth else None
        orbits.append(encode_orbit(uid, rendered.views, depth, elevation_deg, job.path.name))
    return RenderedObject(orbits, backend)


def _check_output(output: Path, config: OrbitRenderConfig, has_orbits: bool) -> None:
    """Refuse to mix runs, then note the settings that a later run must share."""
    path = output / "settings.json"
    if has_orbits and not config.resume:
        raise InputError(f"{output} holds orbits already: use resume=true or another folder")
    if has_orbits and path.exists():
        theirs, ours = json.loads(path.read_text()), config.content
        different = [name for name in ours if theirs.get(name) != ours[name]]
        if different:
            raise InputError(
                f"{output} was rendered with {different[0]}={theirs.get(different[0])}: "
                f"use the same, or another folder"
            )
    write_json(path, config.content)
