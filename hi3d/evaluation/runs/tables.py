"""Tables of scores over a set of objects, by several methods and seeds, from one call."""

import errno
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from hi3d.config import check_choice, config_to_dict
from hi3d.errors import InputError
from hi3d.evaluation.object_sets import load_objects
from hi3d.evaluation.report import write_report
from hi3d.evaluation.runs.config import TablesConfig
from hi3d.evaluation.runs.rows import RowJob, failed_row, made_row, make_row, save_row
from hi3d.evaluation.runs.scoring import COLUMNS, about_scores
from hi3d.evaluation.score_table import TABLE_FILE, ScoreRow, ScoreTable, save_score_table, summary
from hi3d.files import make_folder, system_error
from hi3d.orbits.run_state import full_disk_is_an_input_error, locked
from hi3d.pipelines.run_folder import check_output
from hi3d.progress import console, progress_bar
from hi3d.report import package_versions
from hi3d.workers.outcomes import outcomes
from hi3d.workers.ray_executor import connect

UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""What says something of the disk and nothing of the object that was being made."""


def run_tables(
    config: TablesConfig, output: str | Path, methods: Sequence[str] | None = None
) -> ScoreTable:
    """Generate, reconstruct and score every object of a set by every method and seed.

    Each row is a file that is complete or not there, so that a run that was ended by whatever means
    is finished by the same call; rows whose settings or files have changed are made again. What
    fails is a row with its error.

    Args:
        config: of the run.
        output: folder for `table.json`, the page `index.html` and the rows' files.
        methods: names of some of the config's methods; None = all of them.

    Returns:
        The table of all rows there are, also those of other parts of the run.

    Raises:
        InputError: a setting, a model, the set or the output is wrong, or not one row succeeded.
    """
    output = Path(output)
    check_output(output)
    for name in methods or ():
        check_choice("--methods", name, tuple(config.methods))
    config.check_methods()
    jobs = all_jobs(config, output, methods)
    if config.executor == "ray":
        connect()
    part, num_parts = config.part
    tag = f"-{part:04d}" if num_parts > 1 else ""
    make_folder(output)
    with full_disk_is_an_input_error(output), locked(output / f".run{tag}.lock"):
        _make_missing(jobs[part::num_parts], config)
        rows = [row for job in jobs if (row := made_row(job)) is not None]
        table = score_table(config, rows)
        save_score_table(output / TABLE_FILE, table)
        page = write_report(output)
    if rows and all(row.error for row in rows):
        raise InputError(f"none of {len(rows)} rows succeeded: {rows[0].object}: {rows[0].error}")
    console.print(f"{len(rows)} of {len(jobs)} rows: {page}", markup=False)
    return table


def all_jobs(
    config: TablesConfig, output: Path, methods: Sequence[str] | None = None
) -> list[RowJob]:
    """Every row of the run, object by object."""
    entries = load_objects(config.objects, config.objects_root)[: config.limit]
    if not any(entry.path.is_file() for entry in entries):
        raise InputError(
            f"no file of {config.objects} is there, such as {entries[0].path}: download the set "
            "and give its folder by objects_root="
        )
    names = list(methods or config.methods)
    return [
        RowJob(entry, name, seed, config, output)
        for entry in entries
        for name in names
        for seed in config.seeds_of(config.methods[name])
    ]


def _make_missing(jobs: Sequence[RowJob], config: TablesConfig) -> None:
    """Make the rows that no earlier run made, under a progress bar with the time left."""
    made = [made_row(job) for job in jobs]
    missing = [
        job
        for job, row in zip(jobs, made, strict=True)
        if row is None or (row.error and config.retry_failures)
    ]
    causes: Counter[str] = Counter()
    start = time.perf_counter()
    with progress_bar() as bar:
        done = len(jobs) - len(missing)
        task = bar.add_task("scoring objects", total=len(jobs), completed=done, status="")
        for number, outcome in enumerate(
            outcomes(
                make_row,
                missing,
                config.executor,
                config.num_workers,
                timeout_s=config.object_timeout_s,
                memory_gb=config.object_memory_gb,
            )
        ):
            if outcome.failure is not None:
                _raise_unwritable(outcome.failure)
                save_row(outcome.job, failed_row(outcome.job, outcome.failure))
                causes[outcome.cause] += 1
            bar.advance(task)
            rate = (time.perf_counter() - start) / (number + 1)
            bar.update(task, status=f"{rate:.1f} s a row, {causes.total()} failed")


def _raise_unwritable(failure: str) -> None:
    """End the run where a row failed because nothing could be written; the row stays missing.

    Raises:
        OSError: of the disk.
    """
    refusal = system_error(RuntimeError(failure))
    if refusal is not None and refusal.errno in UNWRITABLE:
        raise refusal


def score_table(config: TablesConfig, rows: Sequence[ScoreRow]) -> ScoreTable:
    """The rows as one table of the run's protocol."""
    used = {name for row in rows for name in row.scores}
    return ScoreTable(
        title=config.title,
        protocol=config.protocol,
        columns={name: column for name, column in COLUMNS.items() if name in used},
        rows=rows,
        settings=config_to_dict(config),
        versions=package_versions(),
        about=about_scores(config.protocol, config.consistency) | config.uncertain(),
        varied=config.varied,
    )


def table_lines(table: ScoreTable) -> str:
    """A Markdown table: per method the mean of every score and its standard error over objects."""
    scores = [column.heading for column in table.columns.values()]
    headings = ["method", *scores, "objects", "failed"]
    lines = ["| " + " | ".join(headings) + " |", "|---" + "|---:" * (len(headings) - 1) + "|"]
    for name, method in summary(table).items():
        cells = []
        for column in table.columns:
            score = method.scores[column]
            spread = "" if score.error_objects is None else f" ± {score.error_objects:.4f}"
            cells.append("–" if score.mean is None else f"{score.mean:.4f}{spread}")
        counts = [str(method.num_objects), str(method.num_failures)]
        lines.append("| " + " | ".join([name, *cells, *counts]) + " |")
    return "\n".join(lines)
