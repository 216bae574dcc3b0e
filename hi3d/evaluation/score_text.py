"""A table of scores as Markdown, CSV and LaTeX."""

import csv
import io
import math
import re
from collections.abc import Mapping

from hi3d.evaluation.published import published_cells
from hi3d.evaluation.score_table import Column, MethodSummary, ScoreTable, Statistic, summary

DIGITS = 4
"""Significant ones of a mean."""
LATEX = {
    **{character: rf"\{character}" for character in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"±": r"$\pm$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "–": "--", "²": "$^2$"},
}
PUBLISHED = "Published numbers over the same objects, copied from their sources"
SPREADSHEET_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def markdown_text(table: ScoreTable) -> str:
    """Means per method, then the scores of every object, under the protocol's name."""
    head = ["method", *headings(table), "objects", "failures"]
    lines = [f"# {_cell(table.title)}", "", f"Protocol: {_cell(table.protocol)}.", ""]
    lines += _markdown_table(head, summary_cells(table, mark="**{}**"))
    head = ["object", "method", "seed", *[c.label for c in table.columns.values()], "error"]
    lines += ["", "## Objects", "", *_markdown_table(head, object_cells(table))]
    lines += ["", "Means over objects, seeds averaged first; ± one standard error over objects."]
    head, cells = published_cells(table)
    if cells:
        lines += ["", f"## {PUBLISHED}", "", *_markdown_table(head, cells)]
    return "\n".join(lines) + "\n"


def latex_text(table: ScoreTable) -> str:
    """Means per method as a table of the package booktabs."""
    head = ["Method", *headings(table)]
    rows = [row[: len(head)] for row in summary_cells(table, mark="\0{}\1")]
    body = [" & ".join(map(_latex, row)) + r" \\" for row in rows]
    columns = "l" + "r" * len(table.columns)
    lines = [
        "% needs \\usepackage{booktabs}; protocol: " + " ".join(table.protocol.split()),
        rf"\begin{{tabular}}{{{columns}}}",
        *(r"\toprule", " & ".join(map(_latex, head)) + r" \\", r"\midrule"),
        *(*body, r"\bottomrule", r"\end{tabular}"),
    ]
    return "\n".join(lines) + "\n"


def csv_text(table: ScoreTable) -> str:
    """One line per row of the table, with all digits; a score that is missing is empty."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["protocol", "method", "object", "seed", *table.columns, "error"])
    for row in table.rows:
        scores = ["" if (v := row.value(name)) is None else repr(v) for name in table.columns]
        seed = "" if row.seed is None else row.seed
        words = [_plain(w) for w in (table.protocol, row.method, row.object)]
        writer.writerow([*words, seed, *scores, _plain(row.error or "")])
    return buffer.getvalue()


def headings(table: ScoreTable) -> list[str]:
    """Of the columns, with unit and the direction of what is better."""
    return [column.heading for column in table.columns.values()]


def summary_cells(table: ScoreTable, mark: str = "{}") -> list[list[str]]:
    """Per method: its name, `mean ± standard error` by column, numbers of objects and failures.

    Args:
        table: of one protocol.
        mark: how the best mean of a column is written.
    """
    found = summary(table)
    best = {name: best_methods(found, name, column) for name, column in table.columns.items()}
    cells = []
    for method, one in found.items():
        row = [method]
        for name in table.columns:
            text = statistic_text(one.scores[name], one.num_objects)
            row.append(mark.format(text) if method in best[name] else text)
        cells.append([*row, str(one.num_objects), str(one.num_failures)])
    return cells


def object_cells(table: ScoreTable) -> list[list[str]]:
    """Per row: object, method, seed, scores and error."""
    return [
        [
            *(row.object, row.method, "" if row.seed is None else str(row.seed)),
            *(number_text(row.value(name)) for name in table.columns),
            row.error or "",
        ]
        for row in table.rows
    ]


def best_methods(found: Mapping[str, MethodSummary], name: str, column: Column) -> set[str]:
    """Those with the best mean of a score; none where there is only one method."""
    means = {m: mean for m, one in found.items() if (mean := one.scores[name].mean) is not None}
    if len(means) < 2:
        return set()
    best = (max if column.better == "higher" else min)(means.values())
    return {method for method, mean in means.items() if mean == best}


def statistic_text(one: Statistic, num_objects: int) -> str:
    """`mean ± error`, and over how many objects where some lack the score."""
    if one.mean is None:
        return "–"
    decimals = _decimals(one.mean)
    error = "" if one.error_objects is None else f" ± {one.error_objects:.{decimals}f}"
    some = "" if one.num_objects == num_objects else f" ({one.num_objects} of {num_objects})"
    return f"{one.mean:.{decimals}f}{error}{some}"


def number_text(value: float | None) -> str:
    """A score with a few digits; a dash where it is missing."""
    return "–" if value is None else f"{value:.{_decimals(value)}f}"


def _decimals(value: float) -> int:
    whole = math.floor(math.log10(abs(value))) + 1 if value else 1
    return min(6, max(0, DIGITS - max(whole, 0)))


def _markdown_table(head: list[str], rows: list[list[str]]) -> list[str]:
    ruler = "|---" + "|---:" * (len(head) - 1) + "|"
    return [_markdown_row(head), ruler, *map(_markdown_row, rows)]


def _markdown_row(cells: list[str]) -> str:
    return f"| {' | '.join(map(_cell, cells))} |"


def _cell(text: str) -> str:
    """Text that neither ends a cell nor is HTML."""
    shown = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return shown.replace("|", r"\|")


def _latex(text: str) -> str:
    marked = "".join(LATEX.get(character, character) for character in " ".join(text.split()))
    return re.sub("\0(.*?)\1", r"\\textbf{\1}", marked)


def _plain(text: str) -> str:
    """Text that a spreadsheet takes for no formula."""
    return f"'{text}" if text.startswith(SPREADSHEET_FORMULA) else text
