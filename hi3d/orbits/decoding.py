"""From the files of one orbit to arrays: decoding, resizing, and float tensors on any device.

Workers hand integers on, a quarter of the bytes of float tensors; `unpack_orbits` turns them into
floats where they are used, on the GPU in a training.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from hi3d.errors import InputError
from hi3d.files import parse_json
from hi3d.orbits.broken_orbits import BAD_CAMERAS, MISSING_FILE, WRONG_SIZE, BrokenOrbitError
from hi3d.orbits.encoding import (
    IMAGE_SUFFIXES,
    decode_image,
    over_white,
    resize_depth,
    resize_rgba,
)
from hi3d.views import decode_depth


class OrbitFiles(Protocol):
    """The encoded files of one orbit, named as in a shard: `json`, `000.png`, `000.depth.png`."""

    @property
    def uid(self) -> str:
        """Name of the orbit."""

    def __contains__(self, name: str) -> bool: ...

    def read(self, name: str) -> bytes:
        """Bytes of a file.

        Raises:
            BrokenOrbitError: it is missing or cut short.
        """

    def label(self, name: str) -> str:
        """How errors name a file."""

    def content(self) -> dict[str, Any]:
        """What `cameras.json` says.

        Raises:
            BrokenOrbitError: it is missing or no camera file.
        """


@dataclass(frozen=True)
class OrbitReading:
    """What of an orbit is read, and at what size."""

    resolution: int | None = None
    """Image side that images are resized to, antialiased; None keeps the stored size."""
    load_depth: bool = False
    """Also read depth."""
    load_normals: bool = False
    """Also read normals."""
    num_views: int | None = None
    """Give only the first views of the (rotated) ring; None gives all."""

    def __post_init__(self) -> None:
        for name in ("resolution", "num_views"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} {value}: give 1 or more, or null")


@dataclass(frozen=True)
class PackedOrbit:
    """An orbit as integers."""

    rgba: np.ndarray  # [V, H, W, 4] uint8
    """Color over white, and opacity."""
    depth: np.ndarray | None  # [V, H, W] uint16
    """`v / 65535 * 1.8 + 0.6` along the camera's z axis; 0 and 65535 where there is no surface."""
    normals: np.ndarray | None  # [V, H, W, 3] uint8
    """`(n + 1) / 2 * 255`; 128 where there is nothing."""
    elevation_deg: float
    """Of the orbit."""

    def rotated(self, start: int, num_views: int | None) -> "PackedOrbit":
        """The ring from view `start` on, the first `num_views` of it.

        Raises:
            BrokenOrbitError: the ring has fewer views.
        """
        views = ring_views(len(self.rgba), start, num_views)
        return PackedOrbit(
            self.rgba[views],
            None if self.depth is None else self.depth[views],
            None if self.normals is None else self.normals[views],
            self.elevation_deg,
        )

    def item(self, uid: str) -> dict[str, Any]:
        """What the default collation batches and `unpack_orbits` reads."""
        item: dict[str, Any] = {"rgba": torch.from_numpy(self.rgba), "uid": uid}
        if self.depth is not None:
            item["depth"] = torch.from_numpy(self.depth)
        if self.normals is not None:
            item["normals"] = torch.from_numpy(self.normals)
        item["elevation_deg"] = torch.tensor(self.elevation_deg, dtype=torch.float32)
        return item


def ring_views(ring: int, start: int, num_views: int | None) -> np.ndarray:
    """Indices [num_views] (None: all) of neighboring views of a ring, from `start` on.

    Raises:
        BrokenOrbitError: the ring has fewer views.
    """
    if num_views is not None and num_views > ring:
        raise BrokenOrbitError(
            MISSING_FILE, f"an orbit has {ring} views: use num_views={ring} or less"
        )
    return (start + np.arange(ring if num_views is None else num_views)) % ring


def decode_orbit_files(files: OrbitFiles, reading: OrbitReading, start: int = 0) -> PackedOrbit:
    """Decode the views that are wanted, and no others.

    Args:
        files: of the orbit.
        reading: what of it, and at what size.
        start: the view that becomes view 0, modulo the ring.

    Raises:
        BrokenOrbitError: a file is missing, unreadable or of another size than its cameras say.
    """
    content = files.content()
    stored = (int(content["height"]), int(content["width"]))
    rgba, depth, normals = [], [], []
    for view in ring_views(len(content["frames"]), start, reading.num_views):
        name = next((n for s in IMAGE_SUFFIXES if (n := f"{view:03d}.{s}") in files), None)
        name = name or f"{view:03d}.png"
        pixels = _decoded(files, name, "RGBA", stored)
        if content.get("straight_alpha"):
            pixels = over_white(pixels)
        rgba.append(resize_rgba(pixels, reading.resolution))
        if reading.load_depth:
            values = _decoded(files, f"{view:03d}.depth.png", "depth", stored)
            depth.append(resize_depth(values, reading.resolution))
        if reading.load_normals:
            vectors = _decoded(files, f"{view:03d}.normal.png", "RGB", stored)
            normals.append(resize_rgba(vectors, reading.resolution))
    return PackedOrbit(
        np.stack(rgba),
        np.stack(depth) if depth else None,
        np.stack(normals) if normals else None,
        stored_elevation_deg(content),
    )


def _decoded(
    files: OrbitFiles, name: str, kind: Literal["RGBA", "RGB", "depth"], size: tuple[int, int]
) -> np.ndarray:
    return decode_image(files.read(name), kind, size, files.label(name))


def parse_cameras(data: bytes, name: str) -> dict[str, Any]:
    """The content of a `cameras.json`, with at least one frame.

    Args:
        data: the file.
        name: of the file, for the error.

    Raises:
        BrokenOrbitError: it is not such a file.
    """
    try:
        content = parse_json(data)
        if min(int(content["width"]), int(content["height"]), len(content["frames"])) < 1:
            raise ValueError("width, height and the number of frames must be 1 or more")
        if not abs(stored_elevation_deg(content)) <= 90:
            raise ValueError("elevation_deg must lie in [-90, 90]")
    except (ValueError, KeyError, TypeError, IndexError, OverflowError) as error:
        message = f"{name} is not a camera file ({error}): render the orbit again"
        raise BrokenOrbitError(BAD_CAMERAS, message) from error
    return content


def stored_elevation_deg(content: dict[str, Any]) -> float:
    """Elevation of the orbit, in degrees: noted by the renderer, else that of view 0."""
    return float(content.get("elevation_deg", content["frames"][0]["elevation_deg"]))


def unpack_orbits(packed: Mapping[str, Any]) -> dict[str, Any]:
    """Turn integers into floats, on their device; for one orbit or a batch of them.

    Args:
        packed: `rgba` [..., V, H, W, 4] uint8, optionally `depth` [..., V, H, W] uint16 and
            `normals` [..., V, H, W, 3] uint8; other entries are passed on.

    Returns:
        - `rgb` [..., V, 3, H, W] in [0, 1], over white
        - `alpha` [..., V, 1, H, W] in [0, 1]
        - `depth` [..., V, H, W] along the camera's z axis, 0 where there is no surface
        - `normals` [..., V, 3, H, W] of length 1 in world space, 0 where there is nothing
    """
    rgba = packed["rgba"].movedim(-1, -3)
    unpacked: dict[str, Any] = {
        "rgb": _contiguous_float(rgba[..., :3, :, :]) / 255,
        "alpha": _contiguous_float(rgba[..., 3:, :, :]) / 255,
    }
    for name, value in packed.items():
        if name == "depth":
            unpacked[name] = decode_depth(value)
        elif name == "normals":
            unpacked[name] = _unpack_normals(_contiguous_float(value.movedim(-1, -3)))
        elif name != "rgba":
            unpacked[name] = value
    return unpacked


def _contiguous_float(values: Tensor) -> Tensor:
    return values.contiguous().float()


def _unpack_normals(levels: Tensor) -> Tensor:
    """Unit vectors of levels in [0, 255]; gray 128 and its neighbors are nothing."""
    vectors = levels / 127.5 - 1
    length = vectors.norm(dim=-3, keepdim=True)
    return torch.where(length > 0.1, vectors / length.clamp_min(0.1), torch.zeros_like(vectors))


def check_alike(packed: PackedOrbit, shape: Sequence[int], name: str) -> None:
    """Orbits of one data set must batch.

    Args:
        packed: an orbit.
        shape: [V, H, W, 4] of the first orbit.
        name: of the orbit, for the error.

    Raises:
        BrokenOrbitError: views, height and width are not those of `shape` [V, H, W, 4].
    """
    if packed.rgba.shape != tuple(shape):
        raise BrokenOrbitError(
            WRONG_SIZE,
            f"{name}: views, height, width and channels are {packed.rgba.shape} where the first "
            f"orbit has {tuple(shape)}: render all alike, or give a resolution and num_views",
        )
