"""Orbits with random access, for collections that fit on one disk or in memory."""

import mmap
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from hi3d.data.shards import (
    decode_depth,
    decode_rgba,
    depth_to_float,
    find_shards,
    parse_cameras,
    rgba_to_float,
    stored_elevation_deg,
)
from hi3d.errors import InputError


@dataclass(frozen=True)
class _StoredOrbit:
    """Where the files of one orbit lie."""

    uid: str
    container: Path
    """The orbit's folder, or the shard."""
    members: Mapping[str, tuple[int, int]] | None = field(default=None, repr=False)
    """In a shard: offset and size in bytes of `json`, `000.png`, `000.depth.png`, ..."""

    def read(self, name: str) -> bytes:
        """A file by its name within the shard."""
        if self.members is None:
            path = self.container / _folder_name(name)
            if not path.is_file():
                raise InputError(f"{self.label(name)} is missing: render the orbit again")
            return path.read_bytes()
        if name not in self.members:
            raise InputError(f"{self.label(name)} is missing: render the shard again")
        offset, size = self.members[name]
        with self.container.open("rb") as shard:
            shard.seek(offset)
            return shard.read(size)

    def label(self, name: str) -> str:
        """How errors name a file."""
        if self.members is None:
            return str(self.container / _folder_name(name))
        return f"{self.container}: {self.uid}.{name}"


def _folder_name(name: str) -> str:
    return "cameras.json" if name == "json" else name.replace(".depth.png", "-depth.png")


class OrbitDataset(Dataset):
    """Orbits by index, from a folder of orbit folders or a folder of shards.

    An item is a dict that the default collation batches:

    - `rgb` [V, 3, H, W] in [0, 1], over white; view 0 is the reference image
    - `alpha` [V, 1, H, W] in [0, 1]
    - `depth` [V, H, W] along the camera's z axis, 0 where there is no surface (with `load_depth`)
    - `elevation_deg` scalar float32
    - `uid` str
    """

    def __init__(
        self,
        folder: str | Path,
        resolution: int | None = None,
        random_start: bool = False,
        load_depth: bool = False,
        cache_in_memory: bool = False,
        num_views: int | None = None,
    ):
        """Args:
        folder: of orbit folders, or of shards (one shard is accepted too). Shards that are added
            later are not seen.
        resolution: image side that square images are resized to; None keeps the stored one.
        random_start: rotate the ring so that a random view, drawn by torch's generator, becomes
            view 0.
        load_depth: also give depth.
        cache_in_memory: keep decoded orbits as integers, 64 KiB for a 128 x 128 view and half as
            much again with depth. Forked workers share the memory; spawned ones fill their own.

        num_views: give only the first views of the (rotated) ring; None gives all.

        Raises:
            InputError: the folder holds no orbit.
        """
        self.num_views = num_views
        self.resolution = resolution
        self.random_start = random_start
        self.load_depth = load_depth
        self.cache_in_memory = cache_in_memory
        self._orbits = _find_orbits(Path(folder))
        self._cache: _Cache | None = None
        self._rgba_shape: tuple[int, ...] | None = None
        self._rgba_shape = self._decode(0).rgba.shape

    def __len__(self) -> int:
        return len(self._orbits)

    @property
    def uids(self) -> list[str]:
        """Name of every orbit, in index order."""
        return [orbit.uid for orbit in self._orbits]

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One orbit, as the class describes.

        Raises:
            InputError: a view is missing, broken or of another size than the first orbit's.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"orbit {index} of {len(self)}")
        index %= len(self)
        orbit = self._load(index)
        ring = len(orbit.rgba)
        start = int(torch.randint(ring, ())) if self.random_start else 0
        views = (start + np.arange(self.num_views or ring)) % ring
        rgb, alpha = rgba_to_float(orbit.rgba[views])
        item: dict[str, Any] = {"rgb": rgb, "alpha": alpha}
        if orbit.depth is not None:
            item["depth"] = depth_to_float(orbit.depth[views])
        item["elevation_deg"] = torch.tensor(orbit.elevation_deg, dtype=torch.float32)
        item["uid"] = self._orbits[index].uid
        return item

    def _load(self, index: int) -> "_DecodedOrbit":
        if not self.cache_in_memory:
            return self._decode(index)
        if self._cache is None:
            assert self._rgba_shape is not None
            self._cache = _Cache(len(self), self._rgba_shape, self.load_depth)
        return self._cache.get(index, self._decode)

    def _decode(self, index: int) -> "_DecodedOrbit":
        orbit = self._orbits[index]
        content = parse_cameras(orbit.read("json"), orbit.label("json"))
        names = [f"{i:03d}" for i in range(len(content["frames"]))]
        rgba = [decode_rgba(orbit.read(f"{n}.png"), orbit.label(f"{n}.png")) for n in names]
        depth = []
        if self.load_depth:
            depth = [
                decode_depth(orbit.read(f"{n}.depth.png"), orbit.label(f"{n}.depth.png"))
                for n in names
            ]
        sizes = {image.shape[:2] for image in (*rgba, *depth)}
        if len(sizes) > 1:
            raise InputError(f"{orbit.label('000.png')}: its orbit mixes image sizes {sizes}")
        pixels = resize_rgba(np.stack(rgba), self.resolution)
        values = resize_depth(np.stack(depth), self.resolution) if depth else None
        expected = self._rgba_shape
        if expected is not None and pixels.shape != expected:
            raise InputError(
                f"{orbit.label('000.png')}: views, height, width and channels are {pixels.shape} "
                f"where the first orbit has {expected}: render all alike, or give a resolution"
            )
        return _DecodedOrbit(pixels, values, stored_elevation_deg(content))

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_cache": None}  # spawned workers cannot inherit the memory map


@dataclass(frozen=True)
class _DecodedOrbit:
    """An orbit at the resolution asked for, as integers."""

    rgba: np.ndarray  # [V, H, W, 4] uint8
    depth: np.ndarray | None  # [V, H, W] uint16
    elevation_deg: float


class _Cache:
    """Decoded orbits in anonymous memory, which is taken page by page and survives a fork."""

    def __init__(self, num_orbits: int, rgba_shape: tuple[int, ...], with_depth: bool):
        self.rgba = _shared_zeros((num_orbits, *rgba_shape), np.uint8)
        self.depth = _shared_zeros((num_orbits, *rgba_shape[:3]), np.uint16) if with_depth else None
        self.elevation_deg = _shared_zeros((num_orbits,), np.float64)
        self.filled = _shared_zeros((num_orbits,), np.uint8)

    def get(self, index: int, decode: Callable[[int], _DecodedOrbit]) -> _DecodedOrbit:
        if not self.filled[index]:
            orbit = decode(index)
            self.rgba[index] = orbit.rgba
            if self.depth is not None:
                self.depth[index] = orbit.depth
            self.elevation_deg[index] = orbit.elevation_deg
            self.filled[index] = 1  # last: another process may read the same orbit
        depth = None if self.depth is None else self.depth[index]
        return _DecodedOrbit(self.rgba[index], depth, float(self.elevation_deg[index]))


def _shared_zeros(shape: tuple[int, ...], dtype: type) -> np.ndarray:
    num_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer(mmap.mmap(-1, num_bytes), dtype=dtype).reshape(shape)


def resize_rgba(pixels: np.ndarray, resolution: int | None) -> np.ndarray:
    """Resize [V, H, W, 4] uint8, RGB over white, to [V, resolution, resolution, 4] uint8.

    Pixel areas are averaged where the size shrinks by a whole factor, otherwise the filter is
    bicubic with antialiasing. RGB over white is linear in coverage, so edges stay right.
    """
    height, width = pixels.shape[1:3]
    if resolution is None or (height, width) == (resolution, resolution):
        return pixels
    rgba = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
    if height % resolution == 0 and width % resolution == 0:
        resized = functional.interpolate(rgba, size=(resolution, resolution), mode="area")
    else:
        resized = functional.interpolate(
            rgba, size=(resolution, resolution), mode="bicubic", antialias=True
        )
    return resized.round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous().numpy()


def resize_depth(values: np.ndarray, resolution: int | None) -> np.ndarray:
    """Resize [V, H, W] uint16 depth values to [V, resolution, resolution] uint16.

    A pixel is the mean of the surface within its area, 0 (no surface) where less than half of it
    is covered; where the size grows, pixels are repeated.
    """
    height, width = values.shape[1:]
    if resolution is None or (height, width) == (resolution, resolution):
        return values
    stored = torch.from_numpy(values.astype(np.float32))[:, None]
    size = (resolution, resolution)
    if resolution > min(height, width):
        resized = functional.interpolate(stored, size=size, mode="nearest-exact")
        return resized[:, 0].numpy().astype(np.uint16)
    surface = ((stored > 0) & (stored < 65535)).float()
    coverage: Tensor = functional.interpolate(surface, size=size, mode="area")
    total = functional.interpolate(stored * surface, size=size, mode="area")
    resized = torch.where(coverage >= 0.5, total / coverage.clamp_min(1e-6), torch.zeros(()))
    return resized[:, 0].round().numpy().astype(np.uint16)


def _find_orbits(folder: Path) -> list[_StoredOrbit]:
    """Every orbit of a folder, sorted by name within its shard.

    Raises:
        InputError: there are none, or a shard is broken.
    """
    folders = sorted(p.parent for p in folder.glob("*/cameras.json") if p.parent.name[0] != ".")
    has_shards = folder.is_file() or any(p.name[0] != "." for p in folder.glob("*.tar"))
    if has_shards:
        return [orbit for shard in find_shards(folder) for orbit in _index_shard(shard)]
    if not folders:
        raise InputError(
            f"{folder} holds neither orbit folders nor shards: run scripts/render_orbits.py"
        )
    return [_StoredOrbit(path.name, path) for path in folders]


def _index_shard(shard: Path) -> list[_StoredOrbit]:
    table: dict[str, dict[str, tuple[int, int]]] = {}
    try:
        with tarfile.open(shard) as tar:
            for member in tar:
                uid, _, name = member.name.partition(".")
                table.setdefault(uid, {})[name] = (member.offset_data, member.size)
    except (tarfile.TarError, OSError) as error:
        raise InputError(f"cannot read shard {shard} ({error}): render it again") from error
    return [_StoredOrbit(uid, shard, members) for uid, members in sorted(table.items())]
