"""Orbits with random access, for collections on local disks or in memory."""

import mmap
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from hi3d.data.epoch_order import draw_start, fold_of
from hi3d.data.shard_urls import is_url
from hi3d.data.shards import ShardOrbit, find_shards, local_members
from hi3d.errors import InputError
from hi3d.orbits.broken_orbits import BrokenOrbitError
from hi3d.orbits.decoding import (
    OrbitFiles,
    OrbitReading,
    PackedOrbit,
    check_alike,
    decode_orbit_files,
    unpack_orbits,
)
from hi3d.orbits.folders import find_orbit_folders


class OrbitDataset(Dataset):
    """Orbits by index, from a folder of orbit folders, of the official layout, or of shards.

    An item is a dict that the default collation batches:

    - `rgb` [V, 3, H, W] in [0, 1], over white; view 0 is the reference image
    - `alpha` [V, 1, H, W] in [0, 1]
    - `depth` [V, H, W] along the camera's z axis, 0 where there is no surface (with `load_depth`)
    - `normals` [V, 3, H, W] unit vectors in world space, 0 where there is nothing (`load_normals`)
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
        *,
        load_normals: bool = False,
        strict: bool = True,
        packed: bool = False,
        seed: int = 0,
        held_out_fold: tuple[int, int] | None = None,
        allow_missing_shards: bool = False,
    ):
        """Args:
        folder: of orbit folders, or of shards (one shard is accepted too). Shards that are added
            later are not seen.
        resolution: image side that images are resized to; None keeps the stored one.
        random_start: rotate the ring so that a random view becomes view 0.
        load_depth: also give depth.
        cache_in_memory: keep decoded orbits as integers, 64 KiB for a 128 x 128 view and half as
            much again with depth. Forked workers share the memory; spawned ones fill their own.
        num_views: give only the first views of the (rotated) ring; None gives all.
        load_normals: also give normals.
        strict: False gives the following orbit in place of one that cannot be read, with an
            additional entry `broken`, a list of the error.
        packed: give integers, for `hi3d.orbits.decoding.unpack_orbits`.
        seed: of random starts, where the epoch is part of the index.
        held_out_fold: leave out the orbits of fold k of K, see `hi3d.data.epoch_order.fold_of`.
        allow_missing_shards: shards that an index names and that are not there are told, and no
            error.

        Raises:
            InputError: the folder holds no orbit, or the first one cannot be read (not `strict`:
                none can).
        """
        self.random_start = random_start
        self.num_views = num_views
        self.strict = strict
        self.packed = packed
        self.seed = seed
        self._orbits = _find_orbits(folder, strict, allow_missing_shards)
        if held_out_fold is not None:
            fold, num_folds = held_out_fold
            found, where = len(self._orbits), str(folder)
            self._orbits = [o for o in self._orbits if fold_of(o.uid, num_folds) != fold]
            if not self._orbits:
                raise InputError(f"fold {fold} holds all {found} orbits of {where}: give more")
        self._reading = OrbitReading(resolution, load_depth, load_normals, num_views)
        self._shape: tuple[int, ...] | None = None
        self._cache: _Cache | None = None
        self._cached = cache_in_memory
        if cache_in_memory:
            self._reading = replace(self._reading, num_views=None)
        first = self._first_readable()
        self._shape = first.rgba.shape
        if cache_in_memory:
            self._cache = _Cache(len(self), first)

    def __len__(self) -> int:
        return len(self._orbits)

    @property
    def uids(self) -> list[str]:
        """Name of every orbit, in index order."""
        return [orbit.uid for orbit in self._orbits]

    def __getitem__(self, index: int | tuple[int, int]) -> dict[str, Any]:
        """One orbit, as the class describes.

        Args:
            index: of the orbit, with torch's generator drawing a random start; or index and epoch,
                which decide the start.

        Raises:
            BrokenOrbitError: a view is missing, broken or of another size than the first orbit's.
        """
        index, epoch = index if isinstance(index, tuple) else (index, None)
        if not -len(self) <= index < len(self):
            raise IndexError(f"orbit {index} of {len(self)}")
        broken: list[BrokenOrbitError] = []
        for candidate in range(index, index + len(self)):
            orbit = self._orbits[candidate % len(self)]
            try:
                packed = self._load(candidate % len(self), self._draw_start(orbit.uid, epoch))
            except BrokenOrbitError as error:
                if self.strict:
                    raise
                broken.append(error)
            else:
                item = packed.item(orbit.uid)
                item = item if self.packed else unpack_orbits(item)
                return item | {"broken": broken[:1]} if broken else item
        raise InputError(f"no orbit can be read any more; the first: {broken[0]}")

    def _draw_start(self, uid: str, epoch: int | None) -> int:
        """A number whose remainder by the ring is the start view."""
        if not self.random_start:
            return 0
        if epoch is None:
            return int(torch.randint(2**31, ()))
        return draw_start(self.seed, epoch, uid)

    def _load(self, index: int, start: int) -> PackedOrbit:
        if not self._cached:
            return self._decode(index, start)
        if self._cache is None:
            self._cache = _Cache(len(self), self._decode(index))
        orbit = self._cache.get(index, self._decode)
        return orbit.rotated(start, self.num_views)

    def _decode(self, index: int, start: int = 0) -> PackedOrbit:
        files = self._orbits[index]
        packed = decode_orbit_files(files, self._reading, start)
        if self._shape is not None:
            check_alike(packed, self._shape, files.label("000.png"))
        return packed

    def _first_readable(self) -> PackedOrbit:
        errors = []
        for index in range(len(self)):
            try:
                return self._decode(index)
            except BrokenOrbitError as error:
                if self.strict:
                    raise
                errors.append(error)
        raise InputError(f"not one of {len(self)} orbits can be read; the first: {errors[0]}")

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_cache": None}  # spawned workers cannot inherit the memory map


class _Cache:
    """Decoded orbits in anonymous memory, which is taken page by page and survives a fork."""

    def __init__(self, num_orbits: int, like: PackedOrbit):
        self.rgba = _shared_zeros((num_orbits, *like.rgba.shape), np.uint8)
        self.depth = self.normals = None
        if like.depth is not None:
            self.depth = _shared_zeros((num_orbits, *like.depth.shape), np.uint16)
        if like.normals is not None:
            self.normals = _shared_zeros((num_orbits, *like.normals.shape), np.uint8)
        self.elevation_deg = _shared_zeros((num_orbits,), np.float64)
        self.filled = _shared_zeros((num_orbits,), np.uint8)

    def get(self, index: int, decode: Callable[[int], PackedOrbit]) -> PackedOrbit:
        if not self.filled[index]:
            orbit = decode(index)
            self.rgba[index] = orbit.rgba
            if self.depth is not None:
                self.depth[index] = orbit.depth
            if self.normals is not None:
                self.normals[index] = orbit.normals
            self.elevation_deg[index] = orbit.elevation_deg
            self.filled[index] = 1  # last: another process may read the same orbit
        depth = None if self.depth is None else self.depth[index]
        normals = None if self.normals is None else self.normals[index]
        return PackedOrbit(self.rgba[index], depth, normals, float(self.elevation_deg[index]))


def _shared_zeros(shape: tuple[int, ...], dtype: type) -> np.ndarray:
    num_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer(mmap.mmap(-1, num_bytes), dtype=dtype).reshape(shape)


def _find_orbits(source: str | Path, strict: bool, allow_missing: bool) -> Sequence[OrbitFiles]:
    """Every orbit of a folder, sorted by name within its shard.

    Raises:
        InputError: there are none.
    """
    if is_url(source):
        raise InputError(f"{source} is no folder: set streaming=true to read shards by their URL")
    folder = Path(source)
    if not folder.is_dir() or any(p.name[0] != "." for p in folder.glob("*.tar")):
        orbits: list[OrbitFiles] = []
        for shard in find_shards(source, strict, allow_missing):
            members, _ = local_members(shard.url)
            orbits += [ShardOrbit(u, shard.url, members.get(u, {})) for u in sorted(shard.uids)]
        return orbits
    folders = find_orbit_folders(folder)
    if not folders:
        raise InputError(
            f"{folder} holds neither orbit folders nor shards: run scripts/render_orbits.py"
        )
    return folders
