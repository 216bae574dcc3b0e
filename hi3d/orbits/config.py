"""How a collection of objects is rendered to orbits: every choice of a run, checked."""

import re
from dataclasses import asdict, dataclass, field
from typing import Any

from hi3d.cameras import FOV_DEG, NUM_ORBIT_VIEWS, ORBIT_DISTANCE
from hi3d.config import check_number, check_seed
from hi3d.errors import InputError
from hi3d.rendering.blender.backend import BlenderSettings
from hi3d.rendering.shading import Shading
from hi3d.views import DEPTH_NEAR, DEPTH_RANGE
from hi3d.workers.outcomes import EXECUTORS

HALF_DIAGONAL = 3**0.5 / 2  # of the unit cube: how far a surface can be from the origin
CHOICES = {
    "format": ("shards", "folder", "official"),
    "shading": ("unlit", "uniform", "key"),
    "image_format": ("png", "webp"),
    "depth_bits": (0, 8, 16),
    "executor": EXECUTORS,
}
MACHINE = ("blender_python", "device", "threads", "object_timeout_s")
"""Settings of Cycles that do not change the pictures."""
RANGES = {
    "resolution": (1, 8192),
    "num_views": (1, 10_000),
    "orbits_per_object": (1, 10_000),
    "objects_per_shard": (1, 10**9),
    "max_shard_bytes": (1, 2**62),
    "objects_per_worker": (1, 10**9),
    "object_timeout_s": (1e-3, 1e7),
    "object_memory_gb": (1e-3, 1e6),
    "distance": (1e-3, 1e6),
    "stretch": (0, 2),
}


@dataclass
class OrbitRenderConfig:
    """How a collection of objects is rendered to orbits."""

    format: str = "shards"
    """`shards` (WebDataset tar files), `folder` (a folder per orbit) or `official` (the official
    code's layout: a folder per object that holds the images of all its orbits, without depth)."""
    backend: str = "auto"
    """Of `hi3d.rendering.rasterizer.render_views`."""
    shading: Shading = "unlit"
    """Of `hi3d.rendering.rasterizer.render_views`: `unlit`, `uniform` or `key`."""
    supersampling: int | None = None
    """Of `hi3d.rendering.rasterizer.render_views`."""
    cycles: BlenderSettings = field(default_factory=BlenderSettings)
    """Of the backend `cycles`."""
    resolution: int = 512
    """Image side in pixels."""
    num_views: int = NUM_ORBIT_VIEWS
    """Views per orbit."""
    elevation_deg: Any = "random"
    """A number in (-90, 90); a list of them, which gives one orbit each; or `random`: uniform in
    [-10, 40] for every orbit (Section 4.2)."""
    orbits_per_object: int = 1
    """With `elevation_deg=random`."""
    stretch: float = 0.0
    """The second half of an object's orbits shows it with other proportions: two horizontal
    directions and the vertical are scaled by exp(U(-stretch, stretch))."""
    start_azimuth_deg: int | float | str = 0.0
    """Of view 0, the reference image; or `random`: uniform in [0, 360) for every orbit."""
    distance: float = ORBIT_DISTANCE
    """Of the camera from the origin, in units of the object's longest side."""
    fov_deg: float = FOV_DEG
    """Vertical field of view."""
    image_format: str = "png"
    """`png`, or `webp` (lossless: smaller and slower)."""
    depth_bits: int = 16
    """Of the depth map written per view; 0 writes none."""
    save_normals: bool = False
    """Also write a map of world-space normals per view."""
    seed: int = 0
    """Of what is random and of the order of the objects."""
    objects_per_shard: int = 256
    """A shard holds at most this many orbits."""
    max_shard_bytes: int = 1_000_000_000
    """A shard is closed before it would grow beyond this."""
    shard: str = "0/1"
    """`i/n`: render only part i of n, for instance in a SLURM array; i counts from 0. All parts
    write into the same folder."""
    executor: str = "processes"
    """Where workers run: `processes` of this machine, or an existing `ray` cluster."""
    num_workers: int | None = None
    """Processes that render; None is one per core. 0 renders in this process, where a crash, a hang
    or a huge object ends the run."""
    object_timeout_s: float = 600.0
    """An object that takes a worker longer is a failure."""
    object_memory_gb: float = 8.0
    """An object with which a worker holds more memory is a failure (on Linux)."""
    objects_per_worker: int = 500
    """A worker process is replaced after this many objects."""
    retry_failures: bool = True
    """When a run goes on, try the objects again that failed before."""

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise InputError(
                    f"{name}={getattr(self, name)}: use {' or '.join(map(str, choices))}"
                )
        for name, (least, most) in RANGES.items():
            check_number(name, getattr(self, name), least, most)
        check_seed(self.seed)
        if self.supersampling is not None:
            check_number("supersampling", self.supersampling, 1, 16)
        if self.num_workers is not None:
            check_number("num_workers", self.num_workers, 0, 4096)
        if self.executor == "ray" and self.num_workers == 0:
            raise InputError("executor=ray needs workers: use num_workers=1 or more, or null")
        self._check_trajectory()
        if self.format == "official" and (
            self.image_format != "png" or self.depth_bits or self.save_normals
        ):
            raise InputError(
                "format=official holds PNG images alone: use image_format=png depth_bits=0 "
                "save_normals=false"
            )
        _ = self.part

    def _check_trajectory(self) -> None:
        elevations = self.elevation_deg if isinstance(self.elevation_deg, list) else None
        numbers = [self.elevation_deg] if elevations is None else elevations
        if self.elevation_deg != "random":
            if not numbers:
                raise InputError("elevation_deg is an empty list: give at least one number")
            for number in numbers:
                if isinstance(number, bool) or not isinstance(number, (int, float)):
                    raise InputError(
                        f"elevation_deg={number}: use a number, a list of numbers or random"
                    )
                if not -90 < number < 90:
                    raise InputError(f"elevation_deg={number}: use a number in (-90, 90)")
            if self.orbits_per_object > 1:
                raise InputError(
                    "orbits_per_object > 1 repeats an orbit: use elevation_deg=random or a list"
                )
        if self.stretch and self.orbits_per_object < 2:
            raise InputError(
                f"stretch={self.stretch} stretches the second half of an object's orbits: use "
                "elevation_deg=random with orbits_per_object=2 or more, or stretch=0"
            )
        if not isinstance(self.start_azimuth_deg, str):
            check_number("start_azimuth_deg", self.start_azimuth_deg, -360, 360)
        elif self.start_azimuth_deg != "random":
            raise InputError(f"start_azimuth_deg={self.start_azimuth_deg}: use a number or random")
        if not 0 < self.fov_deg < 180:
            raise InputError(f"fov_deg={self.fov_deg}: use a number in (0, 180)")
        nearest, farthest = self.distance - HALF_DIAGONAL, self.distance + HALF_DIAGONAL
        if self.depth_bits and not (nearest >= DEPTH_NEAR and farthest <= DEPTH_NEAR + DEPTH_RANGE):
            raise InputError(
                f"distance={self.distance}: depth files hold {DEPTH_NEAR} to "
                f"{DEPTH_NEAR + DEPTH_RANGE}, so use {ORBIT_DISTANCE} or depth_bits=0"
            )

    @property
    def part(self) -> tuple[int, int]:
        """i and n of `shard=i/n`."""
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", self.shard)
        if match is None or not int(match[1]) < int(match[2]):
            raise InputError(
                f"shard={self.shard}: use i/n with i from 0 to n - 1, such as 0/16, n below 10^6"
            )
        return int(match[1]), int(match[2])

    @property
    def part_tag(self) -> str:
        """What the files of this part have in their names: nothing where there is one part."""
        return self.all_part_tags[self.part[0]]

    @property
    def all_part_tags(self) -> list[str]:
        """`part_tag` of every part of the run."""
        num_parts = self.part[1]
        return [f"-{part:04d}" for part in range(num_parts)] if num_parts > 1 else [""]

    @property
    def content(self) -> dict[str, Any]:
        """The settings that a run going on in the same folder must share."""
        names = (
            *("format", "backend", "shading", "supersampling", "resolution", "num_views"),
            *("elevation_deg", "orbits_per_object", "stretch", "start_azimuth_deg", "distance"),
            *("fov_deg", "image_format", "depth_bits", "save_normals", "seed"),
        )
        values = {name: getattr(self, name) for name in names}
        if self.backend == "cycles":
            values["cycles"] = {
                name: value for name, value in asdict(self.cycles).items() if name not in MACHINE
            }
        return values | {"num_parts": self.part[1]}
