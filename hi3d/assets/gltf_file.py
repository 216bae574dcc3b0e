"""The container of glTF 2.0: JSON, buffers and accessors, from `.gltf` or `.glb` files.

trimesh reads glTF too, but leaves out sparse accessors, normalized integers, texture transforms,
second UV sets, skins and triangle fans, and rounds colors to 8 bits.
"""

import base64
import json
import struct
from pathlib import Path
from shlex import quote
from typing import Any
from urllib.parse import unquote_to_bytes

import numpy as np

from hi3d.assets.textures import asset_path, in_any_case, needed_texture
from hi3d.errors import InputError

DTYPES = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}
MAX_VALUES = 200_000_000
"""Of one accessor: a broken count is refused before memory is taken for it."""
DRACO = "KHR_draco_mesh_compression"
CONVERTERS = {
    "EXT_meshopt_compression": "copy",
    "KHR_meshopt_compression": "copy",
    "KHR_texture_basisu": "ktxdecompress",
}
"""Commands of the npm package @gltf-transform/cli that write a file without an extension."""


class GltfFile:
    """A glTF file: `content` is its JSON; accessors and images are read on demand.

    Raises:
        InputError: it is no glTF 2.0.
    """

    def __init__(self, path: Path, root: Path | None = None) -> None:
        self.path, self.root = path, root
        data = path.read_bytes()
        self._chunk: bytes | None = None
        if data[:4] == b"glTF":
            data, self._chunk = _chunks(data)
        self.content: dict[str, Any] = json.loads(data)
        version = str(self.content.get("asset", {}).get("version", "2.0"))
        if not version.startswith("2."):
            raise InputError(f"{path} is glTF {version}: convert it to glTF 2.0")
        self._buffers: dict[int, bytes] = {}
        self.brightest: dict[int, int] = {}
        """The largest RGB value of images that were looked at for it."""

    def entry(self, kind: str, index: int) -> dict[str, Any]:
        """Entry `index` of a top-level list such as "nodes".

        Raises:
            ValueError: there is none.
        """
        entries = self.content.get(kind, [])
        if not isinstance(index, int) or not 0 <= index < len(entries):
            raise ValueError(f"it refers to {kind} {index}, but there are {len(entries)}")
        return entries[index]

    def accessor(self, index: int) -> np.ndarray:
        """Values of an accessor, sparse ones filled in, normalized integers as floats. [N, C]"""
        accessor = self.entry("accessors", index)
        count, width = accessor["count"], WIDTHS[accessor["type"]]
        dtype = np.dtype(DTYPES[accessor["componentType"]])
        if not 0 <= count * width <= MAX_VALUES:
            raise ValueError(f"accessor {index} has {count} entries, more than can be read")
        if "bufferView" in accessor:
            offset = accessor.get("byteOffset", 0)
            values = self._view(accessor["bufferView"], dtype, count, width, offset)
        else:
            values = np.zeros((count, width), dtype)
        if sparse := accessor.get("sparse"):
            where, what = sparse["indices"], sparse["values"]
            kind = np.dtype(DTYPES[where["componentType"]])
            rows = self._view(
                where["bufferView"], kind, sparse["count"], 1, where.get("byteOffset", 0)
            )
            values = values.copy()
            values[rows[:, 0]] = self._view(
                what["bufferView"], dtype, sparse["count"], width, what.get("byteOffset", 0)
            )
        return normalised(values) if accessor.get("normalized") else values

    def draco(self, primitive: dict[str, Any]) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
        """Attributes by name and triangles [F, 3] of a Draco-compressed primitive.

        Raises:
            InputError: the Draco library is not installed.
        """
        extension = primitive.get("extensions", {}).get(DRACO)
        if extension is None:
            return {}, None
        try:
            import DracoPy
        except ImportError as error:
            raise InputError(
                f"{self.path} is Draco-compressed: pip install 'hi3d[draco]' to read it"
            ) from error
        decoded = DracoPy.decode(self.view_bytes(extension["bufferView"]))
        data = {entry["unique_id"]: entry["data"] for entry in decoded.attributes}
        attributes = {}
        for name, identifier in extension["attributes"].items():
            accessor = self.entry("accessors", primitive["attributes"][name])
            # The library widens 16-bit integers to 32 bits and gives signed ones as floats.
            values = _as_type(data[identifier], np.dtype(DTYPES[accessor["componentType"]]))
            attributes[name] = normalised(values) if accessor.get("normalized") else values
        faces = getattr(decoded, "faces", None)
        return attributes, None if faces is None else np.asarray(faces)

    def view_bytes(self, index: int) -> bytes:
        """Content of a buffer view."""
        view = self.entry("bufferViews", index)
        start, length = view.get("byteOffset", 0), view["byteLength"]
        data = self._buffer(view["buffer"])
        if start < 0 or length < 0 or start + length > len(data):
            raise ValueError(f"buffer view {index} reaches beyond its buffer: the file is cut off")
        return data[start : start + length]

    def image(self, index: int) -> tuple[str, bytes]:
        """Name, unique in the file, and encoded content of an image.

        Raises:
            InputError: the file of the image is missing.
        """
        image = self.entry("images", index)
        label = f"{image.get('name') or image.get('uri', '')[:80]} (image {index} of {self.path})"
        if "bufferView" in image:
            return label, self.view_bytes(image["bufferView"])
        uri = image["uri"]
        if uri.startswith("data:"):
            return label, _data_uri(uri)
        return label, needed_texture([self.path.parent], uri, self.path, self.root).read_bytes()

    def _view(self, index: int, dtype: np.dtype, count: int, width: int, offset: int) -> np.ndarray:
        """Rows of a buffer view, which may be interleaved. [count, width]"""
        size = dtype.itemsize * width
        stride = self.entry("bufferViews", index).get("byteStride", 0) or size
        data = self.view_bytes(index)
        if (
            offset < 0
            or stride < size
            or (count and offset + (count - 1) * stride + size > len(data))
        ):
            raise ValueError(f"an accessor reaches beyond buffer view {index}: the file is cut off")
        return np.ndarray((count, width), dtype, data, offset, (stride, dtype.itemsize))

    def _buffer(self, index: int) -> bytes:
        if index not in self._buffers:
            self._buffers[index] = self._read_buffer(index)
        return self._buffers[index]

    def _read_buffer(self, index: int) -> bytes:
        uri = self.entry("buffers", index).get("uri")
        if uri is None:
            if index or self._chunk is None:
                raise ValueError(f"buffer {index} has no data")
            return self._chunk
        if uri.startswith("data:"):
            return _data_uri(uri)
        path = asset_path(self.path.parent, uri, self.root)
        if path is None:
            raise InputError(f"buffer {uri} of {self.path} leaves its folder: move it there")
        path = in_any_case(path)
        if path is None:
            raise InputError(f"buffer {uri} of {self.path} is missing: put it beside the file")
        return path.read_bytes()


def converter(extension: str, path: Path) -> str:
    """What to do about a glTF extension that is not read, in words for an error."""
    if extension not in CONVERTERS:
        return "export it without"
    files = f"{quote(str(path))} {quote(str(path.with_name(f'{path.stem}-plain.glb')))}"
    return f"convert it with: npx @gltf-transform/cli {CONVERTERS[extension]} {files}"


def normalised(values: np.ndarray) -> np.ndarray:
    """Integers as the fractions they stand for (glTF 2.0, Section 3.6.2.2). float32"""
    if values.dtype.kind not in "iu":
        return values
    largest = np.iinfo(values.dtype).max
    return np.maximum(values.astype(np.float32) / np.float32(largest), -1)


def _as_type(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Values in an accessor's component type; integers are rounded and held in its range."""
    values = np.asarray(values)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        values = np.rint(values.astype(np.float64)).clip(limits.min, limits.max)
    return values.astype(dtype)


def _chunks(data: bytes) -> tuple[bytes, bytes | None]:
    """JSON and binary chunk of a GLB (glTF 2.0, Section 4.4)."""
    version, length = struct.unpack_from("<II", data, 4)
    if version != 2:
        raise ValueError(f"it is GLB version {version}, not 2")
    if length > len(data):
        raise ValueError(f"it is cut off: {len(data)} of {length} bytes")
    chunks: dict[bytes, bytes] = {}
    start = 12
    while start + 8 <= length:
        size, kind = struct.unpack_from("<I4s", data, start)
        chunks.setdefault(kind, data[start + 8 : start + 8 + size])
        start += 8 + size
    return chunks[b"JSON"], chunks.get(b"BIN\0")


def _data_uri(uri: str) -> bytes:
    header, _, payload = uri.partition(",")
    return base64.b64decode(payload) if header.endswith(";base64") else unquote_to_bytes(payload)
