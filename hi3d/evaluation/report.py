"""The report of a table of scores: one page to open from a file, and Markdown, CSV and LaTeX."""

from collections.abc import Sequence
from pathlib import Path

from hi3d.evaluation.published import published_cells
from hi3d.evaluation.score_table import (
    TABLE_FILE,
    Column,
    ScoreRow,
    ScoreTable,
    load_score_table,
    summary,
)
from hi3d.evaluation.score_text import (
    PUBLISHED,
    best_methods,
    csv_text,
    headings,
    latex_text,
    markdown_text,
    number_text,
    object_cells,
    statistic_text,
)
from hi3d.files import atomic_path
from hi3d.pages.document import write_page
from hi3d.pages.markup import Markup, element, facts, folded, table
from hi3d.pages.media import MeshBudget, mesh, picture, sha256_of
from hi3d.pages.plots import Point, dot_plot, line_plot

PICTURES = ("input", "views", "renders", "truth", "error")
"""Kinds of strips, in the order in which they stand below each other."""
OPENED = 3
"""Objects that the page shows unfolded: the worst."""


def write_report(folder: str | Path) -> Path:
    """Write `index.html`, `table.md`, `table.csv` and `table.tex` beside a `table.json`.

    Args:
        folder: with the table, and the pictures and meshes that it names.

    Returns:
        The page.

    Raises:
        InputError: there is no table.
    """
    folder = Path(folder)
    scores = load_score_table(folder)
    texts = {"md": markdown_text, "csv": csv_text, "tex": latex_text}
    for suffix, text in texts.items():
        with atomic_path(folder / f"table.{suffix}") as partial:
            partial.write_text(text(scores), encoding="utf-8")
    write_page(folder / "index.html", scores.title, report_body(scores, folder))
    return folder / "index.html"


def report_body(scores: ScoreTable, folder: Path) -> list[Markup]:
    """The parts of the page."""
    budget = MeshBudget()
    objects = object_parts(scores, folder, budget)
    return [
        element("p", f"Protocol: {scores.protocol}", class_="note"),
        *(element("p", f"{key}: {text}", class_="note") for key, text in facts(dict(scores.about))),
        element("h2", "Means"),
        summary_table(scores),
        element("p", MEANS, class_="note"),
        *published_part(scores),
        element("div", plots(scores), class_="plots"),
        element("h2", "Objects, worst first"),
        element("p", order_note(scores), class_="note"),
        budget.note(),
        *objects,
        folded("Every score", every_score(scores)),
        seconds_part(scores),
        folded("Settings", _pairs(facts(dict(scores.settings)))),
        folded("Versions", _pairs(facts(dict(scores.versions)))),
        folded("Files", _pairs(hashes(scores, folder))),
    ]


MEANS = (
    "Mean over objects, the seeds of each averaged first, ± one standard error over objects; in "
    "brackets the standard error over seeds. A mean over fewer objects than there are says so."
)


def summary_table(scores: ScoreTable) -> Markup:
    """Means of every method, the best of a column marked."""
    found = summary(scores)
    best = {name: best_methods(found, name, column) for name, column in scores.columns.items()}
    rows = []
    for method, one in found.items():
        row: list[str] = [method]
        for name in scores.columns:
            score = one.scores[name]
            text = statistic_text(score, one.num_objects)
            if score.error_seeds is not None:
                text += f" [{score.error_seeds:.2g}]"
            row.append(element("span", text, class_="best") if method in best[name] else text)
        failures = str(one.num_failures)
        failed = element("span", failures, class_="failed") if one.num_failures else failures
        rows.append([*row, str(one.num_objects), str(one.num_seeds), failed])
    return table(["method", *headings(scores), "objects", "seeds", "failures"], rows)


def published_part(scores: ScoreTable) -> list[Markup]:
    """What papers print of the same objects, if anything."""
    head, cells = published_cells(scores)
    return [folded(PUBLISHED, table(head, cells))] if cells else []


def plots(scores: ScoreTable) -> list[Markup]:
    """One for every score: over the varied numbers, else of the methods below each other."""
    found = summary(scores)
    drawn = []
    numbers = varied_numbers(scores)
    for name, column in scores.columns.items():
        points = [
            Point(method, one.scores[name].mean, one.scores[name].error_objects)
            for method, one in found.items()
        ]
        if numbers is None:
            drawn.append(dot_plot(column.heading, points))
        else:
            drawn.append(
                line_plot(column.heading, str((scores.varied or {})["key"]), numbers, points)
            )
    return drawn


def varied_numbers(scores: ScoreTable) -> list[float] | None:
    """The number that each method stands for, in an ablation over at least two of them."""
    values = {str(value): value for value in (scores.varied or {}).get("values", [])}
    numbers = [values.get(method) for method in scores.methods]
    found = [float(n) for n in numbers if isinstance(n, int | float) and not isinstance(n, bool)]
    return found if len(found) == len(numbers) > 1 else None


def object_parts(scores: ScoreTable, folder: Path, budget: MeshBudget) -> list[Markup]:
    """A part for every object, the worst first and unfolded."""
    parts = []
    for number, name in enumerate(worst_first(scores)):
        rows = [row for row in scores.rows if row.object == name]
        pictures: set[str] = set()
        shown = [row_part(row, scores, folder, pictures) for row in rows]
        meshes = mesh_parts(rows, folder, budget, f"object {number}")
        parts.append(folded(name, *shown, meshes, open_=number < OPENED))
    return parts


def row_part(row: ScoreRow, scores: ScoreTable, folder: Path, shown: set[str]) -> Markup:
    """What a method made of an object: scores and strips.

    Args:
        row: of the method and object.
        scores: with the columns.
        folder: that paths are relative to.
        shown: pictures that the object's part has already, to which these are added.
    """
    values = ", ".join(
        f"{column.label} {number_text(row.value(name))}" for name, column in scores.columns.items()
    )
    parts: list[Markup] = [element("h3", _name(row)), element("p", values)]
    if row.error:
        parts.append(element("p", row.error, class_="failed"))
    for kind in PICTURES:
        path = row.pictures.get(kind)
        if path is not None and path not in shown:
            shown.add(path)
            parts.append(picture(folder / path, kind))
    return element("section", *parts)


def mesh_parts(rows: Sequence[ScoreRow], folder: Path, budget: MeshBudget, together: str) -> Markup:
    """The meshes of one object, the true one first, which turn together."""
    labels: dict[str, str] = {}
    for row in rows:
        if "truth" in row.meshes:
            labels.setdefault(row.meshes["truth"], "truth")
    for row in rows:
        if "ours" in row.meshes:
            labels.setdefault(row.meshes["ours"], _name(row))
    made = [mesh(folder / path, label, budget, together) for path, label in labels.items()]
    return element("div", made, class_="row")


def _name(row: ScoreRow) -> str:
    return row.method if row.seed is None else f"{row.method}, seed {row.seed}"


def worst_first(scores: ScoreTable) -> list[str]:
    """Objects by the first column of their worst row; those that failed come before all others."""
    name, column = _first_column(scores)

    def badness(row: ScoreRow) -> float:
        value = row.value(name)
        if row.error is not None or value is None:
            return float("inf")
        return -value if column.better == "higher" else value

    worst = {
        one: max(badness(row) for row in scores.rows if row.object == one) for one in scores.objects
    }
    return sorted(worst, key=lambda one: -worst[one])


def order_note(scores: ScoreTable) -> str:
    """By what the objects are sorted."""
    label = _first_column(scores)[1].label
    return f"Sorted by the worst {label} of any method; objects that failed come first."


def _first_column(scores: ScoreTable) -> tuple[str, Column]:
    return next(iter(scores.columns.items()), ("", Column("score")))


def every_score(scores: ScoreTable) -> Markup:
    """All rows."""
    labels = [column.label for column in scores.columns.values()]
    return table(["object", "method", "seed", *labels, "error"], object_cells(scores))


def seconds_part(scores: ScoreTable) -> Markup:
    """Mean seconds of each step by method; empty where none were noted."""
    steps = list(dict.fromkeys(step for row in scores.rows for step in row.seconds or {}))
    if not steps:
        return Markup("")
    rows = []
    for method in scores.methods:
        noted = [row.seconds for row in scores.rows if row.method == method and row.seconds]
        cells = []
        for step in steps:
            values = [one[step] for one in noted if step in one]
            cells.append(f"{sum(values) / len(values):.3g}" if values else "–")
        rows.append([method, *cells])
    return folded("Seconds, mean over rows", table(["method", *steps], rows))


def hashes(scores: ScoreTable, folder: Path) -> list[tuple[str, str]]:
    """SHA-256 of the table and of every mesh."""
    meshes = dict.fromkeys(path for row in scores.rows for path in row.meshes.values())
    return [(path, sha256_of(folder / path)) for path in (TABLE_FILE, *meshes)]


def _pairs(pairs: Sequence[tuple[str, str]]) -> Markup:
    return table(["", ""], [[key, element("code", text)] for key, text in pairs])
