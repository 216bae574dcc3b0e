"""The container of PLY: header, elements and lists, in text or either byte order.

trimesh reads PLY too, but leaves out triangle strips, faces with several textures, colors by other
names than red, green and blue, and colors beside texture coordinates.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

TYPES = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4",
    "float": "f4", "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2",
    "int32": "i4", "uint32": "u4", "float32": "f4", "float64": "f8", "int64": "i8", "uint64": "u8",
}  # fmt: skip
BYTE_ORDERS = {"ascii": "<", "binary_little_endian": "<", "binary_big_endian": ">"}


@dataclass(frozen=True)
class PlyList:
    """A list property: rows of different lengths."""

    counts: np.ndarray  # [N]
    """Length of each row."""
    values: np.ndarray  # [sum of counts]
    """All rows, one after another."""

    @property
    def starts(self) -> np.ndarray:
        """Where each row begins in `values`. [N]"""
        return np.cumsum(self.counts) - self.counts


@dataclass(frozen=True)
class PlyElement:
    """One element, such as "vertex" or "face", with its properties by lower-case name."""

    count: int
    scalars: dict[str, np.ndarray] = field(default_factory=dict)
    lists: dict[str, PlyList] = field(default_factory=dict)


@dataclass(frozen=True)
class _Property:
    name: str
    dtype: np.dtype
    count_dtype: np.dtype | None  # of lists


@dataclass(frozen=True)
class PlyFile:
    """A PLY file."""

    elements: dict[str, PlyElement]
    """By lower-case name."""
    comments: list[str]
    """Texts of `comment` and `obj_info` lines."""


def read_ply_file(path: Path) -> PlyFile:
    """Read a PLY file.

    Raises:
        ValueError: it is no PLY, or cut off.
    """
    data = path.read_bytes()
    end = re.search(rb"(?m)^[ \t]*end_header[ \t]*(\r\n|\n|\r)", data[: 1 << 20])
    if data[:3] != b"ply" or end is None:
        raise ValueError("it has no PLY header")
    try:
        header = data[: end.start()].decode("utf-8")
    except UnicodeDecodeError:
        header = data[: end.start()].decode("latin-1")
    kind, comments, layouts = _parsed_header(header)
    body = data[end.end() :]
    if kind == "ascii":
        # Numbers as doubles, so that text is read like a binary file of doubles.
        lengths = np.array([len(line.split()) for line in body.splitlines() if line.strip()], int)
        body = np.array(body.split(), np.float64).astype("<f8").tobytes()
        lines = np.concatenate([[0], np.cumsum(lengths * 8)])
    rows = sum(count for _, count, properties in layouts if properties)
    by_line = kind == "ascii" and len(lines) == rows + 1
    elements: dict[str, PlyElement] = {}
    offset = row = 0
    for name, count, properties in layouts:
        stored = [_stored(entry, kind) for entry in properties]
        ends = lines[row : row + count + 1] if by_line and properties else None
        elements[name], offset = _element(body, offset, count, properties, stored, ends)
        row += count if properties else 0
    return PlyFile(elements, comments)


_Layouts = list[tuple[str, int, list[_Property]]]


def _parsed_header(header: str) -> tuple[str, list[str], _Layouts]:
    """Format, comments, and each element's name, count and properties."""
    kind = ""
    comments: list[str] = []
    layouts: _Layouts = []
    for line in re.split(r"\r\n|\n|\r", header)[1:]:
        words = line.split()
        if not words:
            continue
        match words[0].lower():
            case "format":
                kind = words[1].lower()
            case "comment" | "obj_info":
                comments.append(line.split(None, 1)[1].strip() if len(words) > 1 else "")
            case "element":
                layouts.append((words[1].lower(), int(words[2]), []))
            case "property" if layouts:
                layouts[-1][2].append(_property(words[1:]))
    if kind not in BYTE_ORDERS:
        known = ", ".join(BYTE_ORDERS)
        raise ValueError(f"its format is {kind or 'not given'}, not one of {known}")
    return kind, comments, layouts


def _property(words: list[str]) -> _Property:
    types = [TYPES.get(word.lower()) for word in (words[1:-1] if words[0] == "list" else words[:1])]
    if None in types or len(types) != (2 if words[0] == "list" else 1):
        raise ValueError(f"it has a property of an unknown type: {' '.join(words)}")
    dtypes = [np.dtype(kind) for kind in types]
    return _Property(words[-1].lower(), dtypes[-1], dtypes[0] if len(dtypes) == 2 else None)


def _stored(entry: _Property, kind: str) -> _Property:
    """The property with the types that its bytes have."""

    def stored(dtype: np.dtype) -> np.dtype:
        return np.dtype(BYTE_ORDERS[kind] + ("f8" if kind == "ascii" else dtype.str[1:]))

    count_dtype = None if entry.count_dtype is None else stored(entry.count_dtype)
    return _Property(entry.name, stored(entry.dtype), count_dtype)


def _element(
    body: bytes,
    offset: int,
    count: int,
    properties: list[_Property],
    stored: list[_Property],
    lines: np.ndarray | None,
) -> tuple[PlyElement, int]:
    """An element that begins at `offset`, and where the next one begins.

    Args:
        lines: where each row begins and the last ends, if that is known; a row may be longer than
            its properties.
    """
    if not properties or count <= 0:
        return PlyElement(max(count, 0)), offset
    rows = _uniform_rows(body, offset, count, stored)
    if rows is not None and (lines is None or rows.nbytes == lines[-1] - lines[0]):
        scalars, lists = {}, {}
        for index, entry in enumerate(properties):
            values = rows[f"v{index}"].astype(entry.dtype)
            if entry.count_dtype is None:
                scalars[entry.name] = values
            else:
                width = values.shape[1]
                lists[entry.name] = PlyList(np.full(count, width), values.reshape(-1))
        return PlyElement(count, scalars, lists), offset + rows.nbytes
    return _ragged_rows(body, offset, count, properties, stored, lines)


def _uniform_rows(
    body: bytes, offset: int, count: int, stored: list[_Property]
) -> np.ndarray | None:
    """Rows whose lists all have the lengths of the first row's; None where they do not."""
    fields: list[tuple] = []
    lengths: dict[str, int] = {}
    at = offset
    for index, entry in enumerate(stored):
        if entry.count_dtype is None:
            fields.append((f"v{index}", entry.dtype))
            at += entry.dtype.itemsize
            continue
        length = _length(body, at, entry.count_dtype)
        lengths[f"n{index}"] = length
        fields += [(f"n{index}", entry.count_dtype), (f"v{index}", entry.dtype, (length,))]
        at += entry.count_dtype.itemsize + length * entry.dtype.itemsize
    size = at - offset
    if offset + size * count > len(body):
        if lengths:
            return None
        raise ValueError("it is cut off")
    rows = np.frombuffer(body, np.dtype(fields), count, offset)
    same = all((rows[name] == length).all() for name, length in lengths.items())
    return rows if same else None


def _ragged_rows(
    body: bytes,
    offset: int,
    count: int,
    properties: list[_Property],
    stored: list[_Property],
    lines: np.ndarray | None,
) -> tuple[PlyElement, int]:
    """Rows whose lists differ in length."""
    places = np.empty((len(stored), count), np.int64)
    lengths = np.ones((len(stored), count), np.int64)
    for row in range(count):
        offset = offset if lines is None else int(lines[row])
        for index, entry in enumerate(stored):
            length = 1
            if entry.count_dtype is not None:
                length = lengths[index, row] = _length(body, offset, entry.count_dtype)
                offset += entry.count_dtype.itemsize
            places[index, row] = offset
            offset += length * entry.dtype.itemsize
    if offset > len(body):
        raise ValueError("it is cut off")
    offset = offset if lines is None else int(lines[-1])
    data = np.frombuffer(body, np.uint8)
    scalars, lists = {}, {}
    for index, (entry, raw) in enumerate(zip(properties, stored, strict=True)):
        values = _gathered(data, places[index], lengths[index], raw.dtype).astype(entry.dtype)
        if entry.count_dtype is None:
            scalars[entry.name] = values
        else:
            lists[entry.name] = PlyList(lengths[index], values)
    return PlyElement(count, scalars, lists), offset


def _length(body: bytes, offset: int, dtype: np.dtype) -> int:
    """The length of a list that begins at `offset`."""
    if offset + dtype.itemsize > len(body):
        raise ValueError("it is cut off")
    size = dtype.itemsize  # single bytes, which most lists begin with, are read fast
    length = body[offset] if size == 1 else int(np.frombuffer(body, dtype, 1, offset)[0])
    if not 0 <= length <= len(body):
        raise ValueError("it is cut off or broken: a list is longer than the file")
    return length


def _gathered(
    data: np.ndarray, places: np.ndarray, lengths: np.ndarray, dtype: np.dtype
) -> np.ndarray:
    """Values of runs in a file, one after another.

    Args:
        data: [bytes] uint8.
        places: [N] where each run begins, in bytes.
        lengths: [N] in values.
    """
    before = np.cumsum(lengths) - lengths
    within = np.arange(lengths.sum()) - np.repeat(before, lengths)
    first = np.repeat(places, lengths) + within * dtype.itemsize
    return data[first[:, None] + np.arange(dtype.itemsize)].view(dtype)[:, 0]


def triangulated(polygons: PlyList) -> tuple[np.ndarray, np.ndarray]:
    """Fans over polygons: the polygon of each triangle [F], and corners in `values` [F, 3]."""
    num_triangles = (polygons.counts - 2).clip(0)
    polygon = np.repeat(np.arange(len(num_triangles)), num_triangles)
    before = np.cumsum(num_triangles) - num_triangles
    step = np.arange(len(polygon)) - before[polygon]
    first = polygons.starts[polygon]
    return polygon, np.stack([first, first + step + 1, first + step + 2], axis=1)


def strip_triangles(strips: PlyList) -> np.ndarray:
    """Triangles [F, 3] of strips, which -1 ends too; every second one of a strip is turned."""
    values = strips.values.astype(np.int64)
    values = np.where(values >= 2**32 - 1, -1, values)  # -1 as an unsigned number
    values = np.insert(values, strips.starts, -1)
    position = np.arange(len(values))
    last_end = np.maximum.accumulate(np.where(values < 0, position, -1))
    corners = np.stack([values[:-2], values[1:-1], values[2:]], axis=1)
    odd = (position - last_end - 1)[:-2] % 2 == 1
    corners[odd] = corners[odd][:, [1, 0, 2]]
    return corners[(corners >= 0).all(axis=1)]
