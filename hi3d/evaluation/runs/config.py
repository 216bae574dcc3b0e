"""What a run over a set of objects does: every choice, checked before anything is written."""

import functools
import hashlib
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

HASHED_BYTES = 1 << 16
KINDS = ("generate", "oracle", "repeat", "files")


@dataclass
class MethodConfig:
    """One line of the table."""

    kind: str = "generate"
    """`generate`: this project's chain; `oracle`: the true views are reconstructed, the ceiling of
    meshes; `repeat`: the photo in place of every view, the floor; `files`: outputs that lie in a
    folder."""
    config: str | None = "configs/generate.yaml"
    """Of `generate` and of the reconstruction of `oracle`: settings as scripts/generate.py takes
    them; null for the defaults."""
    set: list[str] = field(default_factory=list)
    """`key=value` on top of them, also for the seed and the elevation that the table gives."""
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
        overrides = [f"seed={seed}", f"elevation_deg={given}", *self.set]
        config = None if self.config is None else shipped(self.config)
        return load_config(GenerateConfig, config, overrides)

    def models_key(self, config: GenerateConfig) -> str:
        """A hash of the models that the chain uses; empty where it uses none.

        Args:
            config: of the chain.
        """
        if self.kind != "generate":
            return ""
        return models_hash(config.stage1) + models_hash(config.stage2)


@functools.cache
def models_hash(folder: str) -> str:
    """A short hash of a folder by the names and sizes of its files, their beginnings and ends."""
    digest = hashlib.sha256()
    for path in sorted(p for p in shipped(folder).rglob("*") if p.is_file()):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}".encode())
        with path.open("rb") as file:
            digest.update(file.read(HASHED_BYTES))
            file.seek(max(0, size - HASHED_BYTES))
            digest.update(file.read())
    return digest.hexdigest()[:8]


@dataclass
class RunConfig:
    """What tables and ablations have in common."""

    title: str = "Scores"
    objects: str = "data/eval/gso30.yaml"
    """A list of objects, or a folder of object files."""
    objects_root: str | None = None
    """Folder of a list's files; null: the list's own."""
    limit: int | None = None
    """The first so many objects alone."""
    seeds: list[int] = field(default_factory=lambda: [0])
    """Each of which generates every object once."""
    protocol: str = "syncdreamer"
    """How views and meshes are scored."""
    meshes: bool = True
    """Reconstruct and score meshes; otherwise views alone."""
    consistency: bool = False
    """Also score how well the views agree with each other; two short fits of splats a row."""
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
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise InputError("seeds is empty or has one twice: give different seeds")
        for seed in self.seeds:
            check_seed(seed)
        find_protocol(self.protocol).check_size(self.truth.resolution)
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


@dataclass
class TablesConfig(RunConfig):
    """Settings of `scripts/evaluate.py tables`."""

    methods: dict[str, MethodConfig] = field(default_factory=dict)
    """Lines of the table by name."""
    accept_uncertain: bool = False
    """Score meshes of methods whose front and scale their code does not state as they are; the
    table names the methods. Without it such a run wants an aligned protocol, or no meshes."""
    varied: dict[str, Any] | None = None
    """Of an ablation: its `key` and the list of its `values`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.methods:
            raise InputError("methods is empty: name at least one, such as ours: {kind: generate}")
        for name in self.methods:
            if not (0 < len(name) <= 60 and name.isprintable()):
                raise InputError(f"method {shortened(name)}: give a name of 1 to 60 letters")

    def seeds_of(self, method: MethodConfig) -> list[int | None]:
        """The seeds of a method's rows; None where nothing is drawn."""
        if method.kind == "generate":
            elevation_deg = self.truth.elevation_deg
            drawn = (method.generate_config(seed, elevation_deg).seed for seed in self.seeds)
            return list(dict.fromkeys(drawn))
        by_seed = method.kind == "files" and "{seed}" in " ".join(LAYOUTS[method.reader].views)
        return list(self.seeds) if by_seed else [None]

    @property
    def uncertain_methods(self) -> list[str]:
        """Methods of files whose meshes may not lie as this protocol asks."""
        protocol = find_protocol(self.protocol)
        if not self.meshes or protocol.mesh_points is None or protocol.alignment == "best-yaw":
            return []
        return [
            name
            for name, method in self.methods.items()
            if method.kind == "files" and not LAYOUTS[method.reader].certain
        ]

    def uncertain(self) -> dict[str, str]:
        """A line of the table on methods whose meshes may not lie as the truth does."""
        names = ", ".join(self.uncertain_methods)
        line = f"front and scale of the meshes of {names} are not stated by their code"
        return {"uncertain": line} if names else {}

    def check_methods(self) -> None:
        """Raise where a method's models, settings or folder are not there; loads no network."""
        find_protocol(self.protocol).check_package()
        if not self.accept_uncertain and (lines := self.uncertain()):
            raise InputError(
                f"{lines['uncertain']}: use protocol=whole-surface-best-yaw, meshes=false, or "
                "accept_uncertain=true to score them as they are"
            )
        for name, method in self.methods.items():
            if method.kind == "files" and not Path(method.folder).is_dir():
                raise InputError(f"method {name}: no folder {method.folder}: check the path")
            if method.kind in ("generate", "oracle"):
                generate = method.generate_config(0, self.truth.elevation_deg)
                if method.kind == "generate":
                    check_models(generate)

    def content(self, name: str) -> dict[str, Any]:
        """What a row of this method depends on beside the object and the seed."""
        method = self.methods[name]
        chain: dict[str, Any] = {}
        if method.kind in ("generate", "oracle"):
            config = method.generate_config(self.seeds[0], self.truth.elevation_deg)
            chain = {"chain": config_to_dict(config), "models": method.models_key(config)}
        return {
            "method": config_to_dict(method),
            "truth": config_to_dict(self.truth),
            "protocol": self.protocol,
            "meshes": self.meshes,
            **({"consistency": True} if self.consistency else {}),
            **chain,
        }
