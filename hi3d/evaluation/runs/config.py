"""What a run over a set of objects does: every choice, checked before anything is written."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hi3d.config import (
    check_choice,
    check_number,
    check_path,
    check_seed,
    config_to_dict,
    load_config,
    shortened,
)
from hi3d.errors import InputError
from hi3d.evaluation.methods.layouts import LAYOUTS
from hi3d.evaluation.protocols.protocol import find_protocol
from hi3d.evaluation.truth import TruthConfig
from hi3d.files import shipped
from hi3d.pipelines.image_to_3d import GenerateConfig, check_models
from hi3d.workers.outcomes import EXECUTORS

KINDS = ("generate", "oracle", "repeat", "files")


@dataclass
class MethodConfig:
    """One line of the table."""

    kind: str = "generate"
    """`generate`: this project's chain; `oracle`: the true views are reconstructed, the ceiling of
    meshes; `repeat`: the photo in place of every view, the floor; `files`: outputs that lie in a
    folder."""
    config: str = "configs/generate.yaml"
    """Of `generate` and of the reconstruction of `oracle`: settings as scripts/generate.py takes
    them."""
    set: list[str] = field(default_factory=list)
    """`key=value` on top of them."""
    elevation: str = "given"
    """Of `generate`: the photo's elevation is `given` to stage 1, or `estimated` by it."""
    reader: str = "plain"
    """Of `files`: whose layout the folder has, see hi3d/evaluation/methods/layouts.py."""
    folder: str = ""
    """Of `files`."""

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, KINDS)
        check_choice("elevation", self.elevation, ("given", "estimated"))
        check_choice("reader", self.reader, tuple(LAYOUTS))
        if self.kind == "files":
            check_path("folder", self.folder)

    def generate_config(self, seed: int, elevation_deg: float) -> GenerateConfig:
        """The settings of the chain for one object.

        Args:
            seed: of the chain.
            elevation_deg: of the photo.
        """
        given = "auto" if self.elevation == "estimated" else f"{elevation_deg:g}"
        overrides = [*self.set, f"seed={seed}", f"elevation_deg={given}"]
        return load_config(GenerateConfig, shipped(self.config), overrides)


@dataclass
class TablesConfig:
    """Settings of `scripts/evaluate.py tables`."""

    title: str = "Scores"
    objects: str = "data/eval/gso30.yaml"
    """A list of objects, or a folder of object files."""
    objects_root: str | None = None
    """Folder of a list's files; null: the list's own."""
    limit: int | None = None
    """The first so many objects alone."""
    methods: dict[str, MethodConfig] = field(default_factory=dict)
    """Lines of the table by name."""
    seeds: list[int] = field(default_factory=lambda: [0])
    """Each of which generates every object once."""
    protocol: str = "syncdreamer"
    """How views and meshes are scored."""
    meshes: bool = True
    """Reconstruct and score meshes; otherwise views alone."""
    truth: TruthConfig = field(default_factory=TruthConfig)
    executor: str = "processes"
    """Where workers run: `processes` of this machine, or an existing `ray` cluster."""
    num_workers: int | None = None
    """Processes; null is one per core or GPU. 0 runs in this process."""
    shard: str = "0/1"
    """`i/n`: only part i of n, for instance in a SLURM array; all parts write into one folder."""
    object_timeout_s: float = 3600.0
    object_memory_gb: float = 64.0
    """An object that takes more time or memory is a failure."""
    retry_failures: bool = True
    """When a run goes on, try again what failed before."""

    def __post_init__(self) -> None:
        if self.limit is not None:
            check_number("limit", self.limit, 1, 10**6)
        if not self.methods:
            raise InputError("methods is empty: name at least one, such as ours: {kind: generate}")
        for name in self.methods:
            if not re.fullmatch(r"[\w.+-]{1,60}", name):
                raise InputError(f"method {shortened(name)}: use letters, digits and . + - _")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise InputError("seeds is empty or has one twice: give different seeds")
        for seed in self.seeds:
            check_seed(seed)
        size = find_protocol(self.protocol).view_size
        if self.truth.resolution < size:
            raise InputError(
                f"protocol {self.protocol} compares views of {size} pixels: add "
                f"truth.resolution={size}"
            )
        check_choice("executor", self.executor, EXECUTORS)
        if self.num_workers is not None:
            check_number("num_workers", self.num_workers, 1 if self.executor == "ray" else 0, 4096)
        check_number("object_timeout_s", self.object_timeout_s, 1e-3, 1e7)
        check_number("object_memory_gb", self.object_memory_gb, 1e-3, 1e6)
        _ = self.part

    @property
    def part(self) -> tuple[int, int]:
        """i and n of `shard=i/n`."""
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", self.shard)
        if match is None or not int(match[1]) < int(match[2]):
            raise InputError(f"shard={shortened(self.shard)}: use i/n with i from 0 to n - 1")
        return int(match[1]), int(match[2])

    def seeds_of(self, method: MethodConfig) -> list[int | None]:
        """The seeds of a method's rows; None where nothing is drawn."""
        by_seed = method.kind == "generate" or (
            method.kind == "files" and "{seed}" in " ".join(LAYOUTS[method.reader].views)
        )
        return list(self.seeds) if by_seed else [None]

    def check_methods(self) -> None:
        """Raise where a method's models, settings or folder are not there; loads no network."""
        for name, method in self.methods.items():
            if method.kind == "files" and not Path(method.folder).is_dir():
                raise InputError(f"method {name}: no folder {method.folder}: check the path")
            if method.kind in ("generate", "oracle"):
                generate = method.generate_config(0, self.truth.elevation_deg)
                if method.kind == "generate":
                    check_models(generate)

    def content(self, name: str) -> dict[str, Any]:
        """What a row of this method depends on beside the object and the seed."""
        return {
            "method": config_to_dict(self.methods[name]),
            "truth": config_to_dict(self.truth),
            "protocol": self.protocol,
            "meshes": self.meshes,
        }
