"""Ablations: one key of the chain's settings over a list of values, each a line of a table."""

import json
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from hi3d.config import check_choice
from hi3d.errors import InputError
from hi3d.evaluation.runs.config import MethodConfig, RunConfig, TablesConfig

RUN_KEYS = tuple(RunConfig.__dataclass_fields__)


@dataclass
class AblationConfig(RunConfig):
    """Settings of `scripts/ablate.py`."""

    title: str = MISSING
    """Of the table."""
    objects: str = "data/examples/objects"
    """A list of objects such as data/eval/household.yaml, a folder of object files, or one file."""
    key: str = MISSING
    """Of the settings of scripts/generate.py, such as `mesh.interpolated_views`. The photo is a
    render in its frame, so that `foreground.*` has no effect."""
    values: list[Any] = field(default_factory=list)
    """That the key takes, two or more."""
    labels: list[str] = field(default_factory=list)
    """Names of the values in the table; by default the values themselves."""
    kind: str = "generate"
    """`generate`: the photo to the mesh; `oracle`: true views to the mesh."""
    config: str | None = "configs/generate.yaml"
    """YAML file with the chain's other settings; null for the defaults."""
    overrides: list[str] = field(default_factory=list)
    """Further settings of the chain, as `key=value`."""

    def __post_init__(self) -> None:
        if len(self.values) < 2 or len({str(value) for value in self.values}) < len(self.values):
            raise InputError("values: give two or more, all different")
        if self.labels and len(set(self.labels)) != len(self.values):
            raise InputError("labels: give one for each of the values, all different")
        check_choice("kind", self.kind, ("generate", "oracle"))
        super().__post_init__()

    def tables(self) -> TablesConfig:
        """The table's settings, a method for each value."""
        names = list(self.labels) or [str(value) for value in self.values]
        methods = {
            name: MethodConfig(
                self.kind, self.config, [*self.overrides, f"{self.key}={json.dumps(value)}"]
            )
            for name, value in zip(names, self.values, strict=True)
        }
        common = {key: getattr(self, key) for key in RUN_KEYS}
        varied = {"key": self.key, "values": list(self.values)}
        return TablesConfig(**common, methods=methods, varied=varied)
