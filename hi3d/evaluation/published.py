"""Numbers that papers print, to stand beside a table over the same objects."""

from dataclasses import dataclass, field
from pathlib import PurePosixPath

from hi3d.config import load_config
from hi3d.errors import InputError
from hi3d.evaluation.score_table import ScoreTable
from hi3d.files import shipped

FILE = "data/eval/published.yaml"


@dataclass
class PublishedRow:
    """What one source prints of one method."""

    method: str = ""
    source: str = ""
    """Paper and table."""
    differs: str = ""
    """What is not as the file's protocol has it; empty where nothing is known to be."""
    psnr: float | None = None
    ssim: float | None = None
    lpips: float | None = None
    chamfer: float | None = None
    iou64: float | None = None


@dataclass
class PublishedNumbers:
    """A file of published numbers over one set of objects."""

    objects: str = ""
    """Name of the set's file in data/eval."""
    protocol: str = ""
    rows: list[PublishedRow] = field(default_factory=list)

    def __post_init__(self) -> None:
        for row in self.rows:
            if not (row.method and row.source):
                raise InputError("published numbers: give every row a method and its source")


def published_beside(table: ScoreTable) -> list[PublishedRow]:
    """The published rows over the objects of a table by its protocol; none for other tables.

    Args:
        table: whose settings name its set of objects. The table of an ablation has none beside it.
    """
    objects = str(table.settings.get("objects", ""))
    known = load_config(PublishedNumbers, shipped(FILE))
    same = PurePosixPath(objects).parts[-3:] == ("data", "eval", known.objects)
    return known.rows if same and table.protocol == known.protocol and not table.varied else []


def published_cells(table: ScoreTable) -> tuple[list[str], list[list[str]]]:
    """Headings, and a line of text for every published row; no line where nothing belongs here."""
    names = [
        name for name in ("psnr", "ssim", "lpips", "chamfer", "iou64") if name in table.columns
    ]
    head = ["method", *(table.columns[name].heading for name in names), "source", "differs"]
    lines = [
        [row.method, *map(_number, (getattr(row, name) for name in names)), row.source, row.differs]
        for row in published_beside(table)
    ]
    return head, [line for line in lines if any(cell != "–" for cell in line[1 : len(names) + 1])]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:g}"
