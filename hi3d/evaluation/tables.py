"""Results as Markdown tables and JSON."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hi3d.evaluation.view_metrics import MAX_PSNR
from hi3d.files import write_json
from hi3d.report import package_versions

Results = Mapping[str, Mapping[str, float]]
"""Scores by row (an object or a method) and by name of the score."""


def mean_over_objects(results: Results) -> dict[str, float]:
    """The mean of every score over the rows; NaN where a row lacks it, so that no gap hides.

    Raises:
        ValueError: there are no rows.
    """
    if not results:
        raise ValueError("no results to average")
    names = _score_names(results)
    return {
        name: math.fsum(scores.get(name, math.nan) for scores in results.values()) / len(results)
        for name in names
    }


def markdown_table(results: Results, decimals: int = 3, first_column: str = "object") -> str:
    """A Markdown table with one line per row of `results`; a missing score is a dash.

    Args:
        results: scores by row.
        decimals: digits after the point.
        first_column: heading of the rows' names.
    """
    names = _score_names(results)
    lines = [f"| {' | '.join([first_column, *names])} |", "|---" + "|---:" * len(names) + "|"]
    for row, scores in results.items():
        values = [scores.get(name, math.nan) for name in names]
        cells = ["–" if math.isnan(value) else f"{value:.{decimals}f}" for value in values]
        lines.append(f"| {' | '.join([row, *cells])} |")
    return "\n".join(lines) + "\n"


PROTOCOLS = {
    "views": "views over white, scored whole, mean over the views (SyncDreamer)",
    "mesh": "points on both surfaces, distances unsquared and halved; volumes on a grid",
}
UNITS = {
    "views": f"PSNR in dB, a view counts as at most {MAX_PSNR:g}; SSIM without unit",
    "mesh": "the true object's longest side is 1",
}


def about_scores(what: str, normalization: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What a reader of scores must know beside the numbers.

    Args:
        what: views or mesh.
        normalization: what was done to the inputs.
        settings: the resolved configuration.
    """
    return {
        "protocol": PROTOCOLS[what],
        "units": UNITS[what],
        "normalization": normalization,
        "settings": dict(settings),
        "versions": package_versions(),
    }


def write_results(
    path: str | Path, results: Results, about: Mapping[str, Any] | None = None
) -> None:
    """Write the rows and their mean as JSON, atomically; a number that is not finite is null.

    Args:
        path: of the file.
        results: scores by row.
        about: further entries: protocol, units, normalization, settings, versions.
    """
    rows = {"objects": results, "mean": {"mean": mean_over_objects(results)}}
    finite = {
        part: {
            row: {name: value if math.isfinite(value) else None for name, value in scores.items()}
            for row, scores in table.items()
        }
        for part, table in rows.items()
    }
    write_json(
        path, {**(about or {}), "objects": finite["objects"], "mean": finite["mean"]["mean"]}
    )


def _score_names(results: Results) -> list[str]:
    """Every score's name, in order of first appearance."""
    return list(dict.fromkeys(name for scores in results.values() for name in scores))
