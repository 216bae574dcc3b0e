"""Scores of methods on objects under one protocol: `table.json`, with means and standard errors."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from hi3d.config import check_choice, shortened
from hi3d.errors import InputError
from hi3d.files import parse_json, regular_file, write_json

BETTER = ("higher", "lower")
TABLE_FILE = "table.json"


@dataclass(frozen=True)
class Column:
    """One score of a table."""

    label: str
    """Heading, such as `PSNR`."""
    unit: str = ""
    """Such as `dB`; empty for a score without one."""
    better: str = "higher"
    """`higher` or `lower`."""

    def __post_init__(self) -> None:
        check_choice(f"better of column {shortened(self.label)}", self.better, BETTER)

    @property
    def heading(self) -> str:
        """Label and unit, with an arrow towards what is better."""
        unit = f" ({self.unit})" if self.unit else ""
        return f"{self.label}{unit} {'↑' if self.better == 'higher' else '↓'}"


@dataclass(frozen=True)
class ScoreRow:
    """One object by one method with one seed."""

    method: str
    """Or, of an ablation, the value of the key that is varied."""
    object: str
    seed: int | None = None
    """None where the method has none."""
    scores: Mapping[str, float | None] = field(default_factory=dict)
    """By name of the column; None where it could not be computed."""
    error: str | None = None
    """Why the object failed, one line."""
    seconds: Mapping[str, float] | None = None
    """By step."""
    pictures: Mapping[str, str] = field(default_factory=dict)
    """Paths, relative to the table's folder: `input`, `views` or `renders`, `truth`, `error`."""
    meshes: Mapping[str, str] = field(default_factory=dict)
    """Paths of GLB files, relative to the table's folder: `ours`, `truth`."""

    def __post_init__(self) -> None:
        for path in (*self.pictures.values(), *self.meshes.values()):
            parts = PurePosixPath(path)
            if parts.is_absolute() or ".." in parts.parts:
                raise InputError(f"{shortened(path)} leaves the table's folder: give a path in it")

    def value(self, column: str) -> float | None:
        """A score, None where it is missing or not finite."""
        score = self.scores.get(column)
        return None if score is None or not math.isfinite(score) else float(score)


@dataclass(frozen=True)
class ScoreTable:
    """Scores that may stand beside each other: all are of one protocol."""

    title: str
    protocol: str
    """Name of the protocol by which every score was computed."""
    columns: Mapping[str, Column]
    rows: Sequence[ScoreRow]
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Resolved configuration, plain values."""
    versions: Mapping[str, str] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)
    """What a reader must know beside the numbers: units, normalization."""
    varied: Mapping[str, Any] | None = None
    """Of an ablation: its `key` and the list of its `values`."""

    @property
    def methods(self) -> list[str]:
        """In order of first appearance."""
        return list(dict.fromkeys(row.method for row in self.rows))

    @property
    def objects(self) -> list[str]:
        """In order of first appearance."""
        return list(dict.fromkeys(row.object for row in self.rows))


@dataclass(frozen=True)
class Statistic:
    """One score of one method over the objects that have it."""

    mean: float | None
    """Over objects, the seeds of each averaged first; None without any."""
    error_objects: float | None
    """Standard error of the mean over objects; None for fewer than two."""
    error_seeds: float | None
    """Standard error over seeds of the mean over the objects that have every seed; None for fewer
    than two seeds."""
    num_objects: int
    """That have the score."""


@dataclass(frozen=True)
class MethodSummary:
    """What a method's rows come to."""

    scores: Mapping[str, Statistic]
    """By name of the column."""
    num_objects: int
    num_seeds: int
    num_failures: int
    """Rows with an error."""


def summary(table: ScoreTable) -> dict[str, MethodSummary]:
    """Means and standard errors of every method, in order of first appearance."""
    found = {}
    for method in table.methods:
        rows = [row for row in table.rows if row.method == method]
        found[method] = MethodSummary(
            {name: statistic_of(rows, name) for name in table.columns},
            len({row.object for row in rows}),
            len({row.seed for row in rows}),
            sum(row.error is not None for row in rows),
        )
    return found


def statistic_of(rows: Sequence[ScoreRow], column: str) -> Statistic:
    """Mean and standard errors of one score.

    Args:
        rows: of one method.
        column: name of the score.
    """
    by_object: dict[str, dict[int | None, list[float]]] = {}
    for row in rows:
        value = row.value(column)
        if value is not None:
            by_object.setdefault(row.object, {}).setdefault(row.seed, []).append(value)
    values = {
        name: {seed: statistics.fmean(same) for seed, same in seeds.items()}
        for name, seeds in by_object.items()
    }
    over_objects = [statistics.fmean(seeds.values()) for seeds in values.values()]
    all_seeds = {seed for seeds in values.values() for seed in seeds}
    complete = [seeds for seeds in values.values() if len(seeds) == len(all_seeds)]
    by_seed = [statistics.fmean(one[seed] for one in complete) for seed in all_seeds if complete]
    return Statistic(
        statistics.fmean(over_objects) if over_objects else None,
        standard_error(over_objects),
        standard_error(by_seed),
        len(over_objects),
    )


def standard_error(values: Sequence[float]) -> float | None:
    """Of the mean of independent values, by their sample deviation; None for fewer than two."""
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None


def joined(tables: Sequence[ScoreTable], title: str) -> ScoreTable:
    """The rows of several tables as one; settings are kept by the title of each.

    Raises:
        InputError: their protocols differ, so that their scores may not stand beside each other.
    """
    protocols = list(dict.fromkeys(table.protocol for table in tables))
    if len(protocols) != 1:
        raise InputError(
            f"tables of the protocols {', '.join(protocols) or 'none'} cannot be one table: score "
            "all methods by one protocol"
        )
    columns = {name: column for table in tables for name, column in table.columns.items()}
    rows = [row for table in tables for row in table.rows]
    settings = {table.title: table.settings for table in tables}
    return replace(tables[0], title=title, columns=columns, rows=rows, settings=settings)


def save_score_table(path: str | Path, table: ScoreTable) -> None:
    """Write a table as JSON, atomically; a score that is not finite is null.

    Args:
        path: `table.json` in the folder that pictures and meshes are relative to.
        table: with plain values in its settings.
    """
    content = asdict(table)
    for row, plain in zip(table.rows, content["rows"], strict=True):
        plain["scores"] = {name: row.value(name) for name in row.scores}
    write_json(path, content)


def load_score_table(path: str | Path) -> ScoreTable:
    """Read a table.

    Args:
        path: of the file, or of the folder with its `table.json`.

    Raises:
        InputError: there is none, or it is no table.
    """
    path = Path(path)
    path = path / TABLE_FILE if path.is_dir() else path
    try:
        content = parse_json(regular_file(path).read_bytes())
        columns = {str(name): Column(**one) for name, one in content.pop("columns").items()}
        rows = [ScoreRow(**row) for row in content.pop("rows")]
        return ScoreTable(columns=columns, rows=rows, **content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} is no readable table of scores ({shortened(error)}): check the path"
        ) from error
