"""Text of OBJ and MTL files in whatever encoding, and the vertices in it."""

import codecs
import re
from pathlib import Path

import numpy as np

from hi3d.assets.vertex_colors import unit_colors

BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
MAX_VALUES = 8  # of a vertex: x y z w r g b a


def read_text(path: Path) -> str:
    """A file's text with `\\n` at line ends and continued lines joined.

    The encoding is that of the byte order mark; without, UTF-16 where every second byte is 0, UTF-8
    where it is valid, else Latin-1.

    Raises:
        ValueError: the text is broken in the encoding that its first bytes name.
    """
    text = _decoded(path.read_bytes())
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if "\\" in text:  # comments may end in a path of Windows
        continued = r"(?m)^(?![ \t]*#)(?:[^\n]*\\[ \t]*\n)+"
        text = re.sub(continued, lambda lines: re.sub(r"\\[ \t]*\n", " ", lines[0]), text)
    return text


def _decoded(data: bytes) -> str:
    for mark, encoding in BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return _as_encoded(data[len(mark) :], encoding)
    start = data[:256]
    for first, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        if len(start) > 3 and start[first::2].count(0) > 0.9 * len(start[first::2]):
            return _as_encoded(data, encoding)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _as_encoded(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"it is broken {encoding.upper()} text: save it as UTF-8") from error


def vertex_values(text: str) -> tuple[np.ndarray, np.ndarray | None] | None:
    """Positions [V, 3], NaN where they are no numbers, and colors [V, 3] of an OBJ file's vertices.

    None where all lines have three finite numbers, which any parser reads. Of vertices with a
    weight (`x y z w`), which polygons do not use, the weight is left out. Colors are `x y z r g b`
    or `x y z w r g b`, of any scale; vertices without one among others are white.
    """
    unusual = r"(?m)^[ \t]*v[ \t]++(?:(?:[^ \t\n]++[ \t]++){3}[^ \t\n]|[^\n]*?[#nNiI])"
    if not re.search(unusual, text):
        return None
    rows = [row.split("#")[0] for row in re.findall(r"(?m)^[ \t]*v[ \t]+([^\n]*)", text)]
    counts = np.array([min(len(row.split()), MAX_VALUES) for row in rows])
    values = _table(rows, counts)
    first = np.where(counts >= 8, 4, 3)
    seven = counts == 7
    if seven.any() and (values[seven, 3] == 1).all():  # else r g b a
        first[seven] = 4
    colored = counts >= 6
    if not colored.any():
        return values[:, :3], None
    colors = np.ones((len(rows), 3))
    columns = first[colored, None] + np.arange(3)
    colors[colored] = unit_colors(np.take_along_axis(values[colored], columns, axis=1))[:, :3]
    return values[:, :3], colors


def _table(rows: list[str], counts: np.ndarray) -> np.ndarray:
    """Numbers of each row, NaN where there is none. [V, MAX_VALUES]"""
    values = np.full((len(rows), MAX_VALUES), np.nan)
    if (counts == counts[0]).all():
        try:
            flat = np.array(" ".join(rows).split(), np.float64)
            values[:, : counts[0]] = flat.reshape(len(rows), -1)[:, : counts[0]]
            return values
        except ValueError:
            pass
    for row, entry in enumerate(rows):
        for column, word in enumerate(entry.split()[:MAX_VALUES]):
            try:
                values[row, column] = float(word)
            except ValueError:
                break
    return values
