"""Ablations: one key of the chain's settings over a list of values, on objects with known truth."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from hi3d.config import (
    check_choice,
    check_elevation,
    check_number,
    check_path,
    check_seed,
    config_to_dict,
    shortened,
)
from hi3d.errors import InputError
from hi3d.evaluation.ablations.chain_scores import COLUMNS, PROTOCOL, UNITS, score_run
from hi3d.evaluation.ablations.truth import ObjectTruth, files_of, load_truth
from hi3d.evaluation.report import write_report
from hi3d.evaluation.score_table import TABLE_FILE, ScoreRow, ScoreTable, save_score_table
from hi3d.files import make_folder, parse_json, system_error, write_json
from hi3d.pipelines.chains import CHAINS, run_chain, settings_with
from hi3d.pipelines.run_folder import check_output
from hi3d.progress import console
from hi3d.report import package_versions

ADDED = ("title", "values", "labels", "objects", "seeds")
"""Settings that say which runs there are, rather than what they do: they may grow later."""


@dataclass
class AblationConfig:
    """Settings of `scripts/ablate.py`."""

    title: str = MISSING
    """Of the table."""
    key: str = MISSING
    """Of the chain's settings, such as `mesh.interpolated_views`."""
    values: list[Any] = field(default_factory=list)
    """That the key takes, two or more."""
    labels: list[str] = field(default_factory=list)
    """Names of the values in the table; by default the values themselves."""
    chain: str = "generate"
    """`generate`: a render as photo to the mesh; `reconstruct`: true views to the mesh."""
    config: str | None = "configs/generate.yaml"
    """YAML file with the chain's other settings; none for the defaults."""
    overrides: list[str] = field(default_factory=list)
    """Further settings of the chain, as `key=value`."""
    objects: list[str] = field(default_factory=lambda: ["data/examples/objects"])
    """Object files, or folders of them."""
    limit: int | None = None
    """Only the first so many objects, 1 to 1e6."""
    seeds: list[int] = field(default_factory=lambda: [0])
    """Of the chain; not used where the key is `seed`."""
    elevation_deg: float = 20.0
    """Of the photo and of the true views, above -90 and below 90."""
    resolution: int = 256
    """Side of the true views in pixels, 16 to 4096."""

    def __post_init__(self) -> None:
        if len(self.values) < 2 or len({str(value) for value in self.values}) < len(self.values):
            raise InputError("values: give two or more, all different")
        if self.labels and len(set(self.labels)) != len(self.values):
            raise InputError("labels: give one for each of the values, all different")
        check_choice("chain", self.chain, tuple(CHAINS))
        for seed in self.seeds:
            check_seed(seed)
        if not self.seeds or not self.objects:
            raise InputError("give one or more seeds and objects")
        for path in self.objects:
            check_path("objects", path)
        check_elevation(self.elevation_deg)
        check_number("resolution", self.resolution, 16, 4096)
        if self.limit is not None:
            check_number("limit", self.limit, 1, 1e6)

    @property
    def names(self) -> list[str]:
        """Of the values, as methods of the table."""
        return list(self.labels) or [str(value) for value in self.values]


@dataclass(frozen=True)
class Case:
    """One value on one object with one seed."""

    truth: ObjectTruth
    seed: int
    name: str
    """Of the value."""
    number: int
    """Of the value, from 0."""
    settings: Any
    """Of the chain."""
    folder: Path
    """Of the run."""


def run_ablation(config: AblationConfig, output: Path) -> Path:
    """Run what is not there yet, and write the table and its report.

    Steps whose settings a value does not change are taken from the run of the value before it. A
    run that fails is a row with its error, and is tried again the next time.

    Args:
        config: settings.
        output: folder; what it holds of the same ablation is gone on with.

    Returns:
        The report's page.

    Raises:
        InputError: a setting, an object or a model folder is wrong, or `output` holds another
            ablation; nothing was written.
    """
    check_output(output)
    settings = [chain_settings(config, value) for value in config.values]
    files = files_of(config.objects)[: config.limit]
    keep_settings(output, config)
    rows: list[ScoreRow] = []
    for case in cases(config, settings, files, output):
        rows.append(row_of(case, config, output))
        console.print(told(rows[-1], len(rows), len(files) * len(config.seeds) * len(settings)))
    save_score_table(output / TABLE_FILE, table_of(config, rows))
    return write_report(output)


def chain_settings(config: AblationConfig, value: Any) -> Any:
    """The chain's settings with the key at a value.

    Raises:
        InputError: there is no such key, or the value is wrong.
    """
    elevation = [f"elevation_deg={config.elevation_deg}"]
    words = [*elevation, *config.overrides, f"{config.key}={json.dumps(value)}"]
    return settings_with(config.chain, config.config, words)


def cases(
    config: AblationConfig, settings: list[Any], files: list[Path], output: Path
) -> Iterator[Case]:
    """Object by object, so that the truth of each is rendered once."""
    for path in files:
        truth = load_truth(path, config.elevation_deg, config.resolution, output)
        for seed in config.seeds:
            for number, (name, one) in enumerate(zip(config.names, settings, strict=True)):
                folder = output / "runs" / truth.name / f"seed-{seed}" / f"{number:02d}"
                seeded = one if config.key == "seed" else replace(one, seed=seed)
                yield Case(truth, seeded.seed, name, number, seeded, folder)


def row_of(case: Case, config: AblationConfig, output: Path) -> ScoreRow:
    """The row of a case: read where it is there, else made."""
    path = case.folder / "row.json"
    if path.is_file():
        return ScoreRow(**parse_json(path.read_bytes()))
    taken_over(case)
    row = ScoreRow(case.name, case.truth.name, case.seed)
    try:
        run_chain(config.chain, case.truth.given, case.settings, case.folder)
        row = score_run(row, case.truth, case.folder, output)
    except Exception as error:
        if system_error(error) is not None:
            raise
        return replace(row, error=f"{type(error).__name__}: {shortened(error, 300)}")
    row = replace(row, scores={column: row.value(column) for column in row.scores})
    write_json(path, asdict(row))
    return row


def taken_over(case: Case) -> None:
    """Begin with what the value before made; the chain makes again what its settings change."""
    before = case.folder.with_name(f"{case.number - 1:02d}")
    if case.folder.exists() or not (before / "row.json").is_file():
        return
    partial = case.folder.with_name(f".{case.folder.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(before, partial, ignore=shutil.ignore_patterns("row.json", "*-strip.png"))
    partial.rename(case.folder)


def keep_settings(output: Path, config: AblationConfig) -> None:
    """Note what the runs do, or check that it is what they did.

    Raises:
        InputError: the folder holds another ablation, or values in another order.
    """
    path = output / "settings.json"
    plain = json.loads(json.dumps(config_to_dict(config)))
    if not path.is_file():
        if output.is_dir() and any(output.iterdir()):
            raise InputError(f"{output} holds something else: choose another --output")
        make_folder(output)
        write_json(path, plain)
        return
    kept = parse_json(path.read_bytes())
    same = all(kept.get(key) == plain[key] for key in plain if key not in (*ADDED, "limit"))
    if not same or kept["values"] != plain["values"][: len(kept["values"])]:
        raise InputError(
            f"{output} holds an ablation with other settings: choose another --output (values may "
            "only be added at the end)"
        )
    write_json(path, plain)


def table_of(config: AblationConfig, rows: list[ScoreRow]) -> ScoreTable:
    """The rows with what they were made by."""
    return ScoreTable(
        config.title,
        PROTOCOL,
        COLUMNS,
        rows,
        config_to_dict(config),
        package_versions(),
        UNITS,
        {"key": config.key, "values": list(config.values)},
    )


def told(row: ScoreRow, number: int, total: int) -> str:
    """A line about a row."""
    scores = ", ".join(f"{name} {value:.4g}" for name, value in row.scores.items() if value)
    return f"{number}/{total} {row.object}, seed {row.seed}, {row.method}: {row.error or scores}"
