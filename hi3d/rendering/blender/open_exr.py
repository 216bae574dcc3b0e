"""Reads the OpenEXR images that Blender leaves: one part, scan lines, not compressed."""

import struct
from pathlib import Path

import numpy as np

MAGIC = 20000630
PIXEL_TYPES = {0: np.dtype("<u4"), 1: np.dtype("<f2"), 2: np.dtype("<f4")}


def read_exr(path: str | Path) -> dict[str, np.ndarray]:
    """Read every channel (OpenEXR file layout, "Single-Part Scan Line Files").

    Returns:
        [H, W] float32 arrays by channel name, row 0 at the top.

    Raises:
        ValueError: no OpenEXR file, or tiled, deep, of several parts, compressed or cut off.
    """
    content = Path(path).read_bytes()
    if len(content) < 8 or struct.unpack_from("<i", content)[0] != MAGIC:
        raise ValueError(f"{path} is no OpenEXR file")
    if struct.unpack_from("<i", content, 4)[0] & 0x1A00:  # bits 9, 11, 12: tiled, deep, parts
        raise ValueError(f"{path} is not a plain scan line file")
    attributes: dict[str, bytes] = {}
    at = 8
    while content[at]:
        name, at = _text(content, at)
        _, at = _text(content, at)
        (size,) = struct.unpack_from("<i", content, at)
        attributes[name] = content[at + 4 : at + 4 + size]
        at += 4 + size
    if attributes["compression"] != b"\0":
        raise ValueError(f"{path} is compressed")
    left, top, right, bottom = struct.unpack("<4i", attributes["dataWindow"])
    width, height = right - left + 1, bottom - top + 1
    fields: list[tuple] = [("y", "<i4"), ("num_bytes", "<i4")]
    names, position, entry = [], 0, attributes["channels"]
    while entry[position]:
        name, position = _text(entry, position)
        pixel_type = struct.unpack_from("<i", entry, position)[0]
        position += 16  # pixel type, linearity and padding, sampling in x and y
        names.append(name)
        fields.append((f"channel {len(names)}", PIXEL_TYPES[pixel_type], (width,)))
    row = np.dtype(fields)
    if len(content) < at + 1 + 8 * height + row.itemsize * height:
        raise ValueError(f"{path} is cut off")
    rows = np.frombuffer(content, row, height, at + 1 + 8 * height)  # after the table of offsets
    rows = rows[np.argsort(rows["y"], kind="stable")]
    return {
        name: rows[f"channel {number}"].astype(np.float32)
        for number, name in enumerate(names, start=1)
    }


def _text(content: bytes, at: int) -> tuple[str, int]:
    """The zero-terminated text at a position, and the position after it."""
    end = content.index(b"\0", at)
    return content[at:end].decode(), end + 1
