"""Rendered orbits on disk: a folder per orbit, or WebDataset shards with an index."""

import io
import json
import os
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hi3d.errors import InputError
from hi3d.files import make_folder, write_json
from hi3d.views import DEPTH_NEAR, DEPTH_RANGE, Views, cameras_to_json

SHARD_NAME = "orbits-{:06d}.tar"
INDEX_NAME = "index.json"
PNG_COMPRESS_LEVEL = 1  # 4x as fast as Pillow's default for files about a tenth larger


@dataclass(frozen=True)
class EncodedOrbit:
    """One orbit as the bytes of its files."""

    uid: str
    """Name of the orbit; holds no dot, since WebDataset groups by what precedes the first one."""
    rgba: list[bytes]
    """V 8-bit RGBA PNGs, RGB over white."""
    depth: list[bytes]
    """V 16-bit depth PNGs (see `hi3d.views.save_depth`), or none."""
    cameras: bytes
    """The content of `cameras.json` with `elevation_deg` and `source` added."""

    @property
    def num_bytes(self) -> int:
        """Size of all files together."""
        return sum(map(len, (*self.rgba, *self.depth, self.cameras)))


def encode_orbit(
    uid: str,
    views: Views,
    depth: Tensor | None,  # [V, H, W]
    elevation_deg: float,
    source: str,
) -> EncodedOrbit:
    """Turn a rendered orbit into files.

    Args:
        uid: name of the orbit, without a dot.
        views: V rendered views.
        depth: [V, H, W] along the camera's z axis, 0 where there is no surface; or None.
        elevation_deg: of the orbit.
        source: file name of the object.

    Raises:
        ValueError: the uid holds a dot or a slash.
    """
    if not uid or "." in uid or "/" in uid:
        raise ValueError(f"uid {uid!r} must be a file name without a dot")
    rgba = (torch.cat([views.rgb, views.alpha], dim=1).clamp(0, 1) * 255).round()
    pixels = rgba.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    values: list[np.ndarray] = []
    if depth is not None:
        scaled = ((depth.cpu() - DEPTH_NEAR) / DEPTH_RANGE).clamp(0, 1) * 65535
        values = list(scaled.round().numpy().astype(np.uint16))
    cameras = cameras_to_json(views.cameras) | {"elevation_deg": elevation_deg, "source": source}
    return EncodedOrbit(
        uid, [_png(p) for p in pixels], [_png(v) for v in values], json.dumps(cameras).encode()
    )


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=PNG_COMPRESS_LEVEL)
    return buffer.getvalue()


class OrbitWriter(Protocol):
    """Where orbits go. A context: leaving it completes what is open."""

    finished: set[str]
    """uids of the orbits that are complete on disk or in the open shard."""

    def __enter__(self) -> "OrbitWriter": ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def add(self, orbit: EncodedOrbit) -> None:
        """Write one orbit."""


class FolderWriter:
    """A folder per orbit, as `hi3d.views.Views.save` writes it, plus `NNN-depth.png`."""

    def __init__(self, output: Path):
        self.output = output
        for partial in output.glob(".*.part"):
            shutil.rmtree(partial)
        self.finished = {path.parent.name for path in output.glob("*/cameras.json")}

    def __enter__(self) -> "FolderWriter":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def add(self, orbit: EncodedOrbit) -> None:
        """Write the folder under another name, then rename it."""
        partial = make_folder(self.output / f".{orbit.uid}.part")
        for i, data in enumerate(orbit.rgba):
            (partial / f"{i:03d}.png").write_bytes(data)
        for i, data in enumerate(orbit.depth):
            (partial / f"{i:03d}-depth.png").write_bytes(data)
        (partial / "cameras.json").write_bytes(orbit.cameras)
        folder = self.output / orbit.uid
        if folder.exists():  # without cameras.json, so it never was complete
            shutil.rmtree(folder)
        os.replace(partial, folder)
        self.finished.add(orbit.uid)


class ShardWriter:
    """WebDataset tar files; `index.json` lists each shard's orbits and size.

    A shard is written under another name and renamed when it is complete, so every `*.tar` that is
    there can be read while the next one is being written. A killed run loses the open shard only;
    after an exception the open shard is completed with the orbits it has.
    """

    def __init__(self, output: Path, objects_per_shard: int, max_shard_bytes: int):
        """Args:
        output: folder of the shards.
        objects_per_shard: orbits a shard holds at most.
        max_shard_bytes: a shard is closed before it would grow beyond this.
        """
        self.output = output
        self.objects_per_shard = objects_per_shard
        self.max_shard_bytes = max_shard_bytes
        for partial in output.glob(".orbits-*.part"):
            partial.unlink()
        self.shards = _existing_shards(output)
        self.finished = {uid for shard in self.shards for uid in shard["uids"]}
        numbers = [int(shard["file"].removesuffix(".tar").split("-")[-1]) for shard in self.shards]
        self._next_number = max(numbers, default=-1) + 1
        self._open: tarfile.TarFile | None = None
        self._uids: list[str] = []
        self._num_bytes = 0
        self._within_orbit = False

    def __enter__(self) -> "ShardWriter":
        self._write_index()
        return self

    def __exit__(self, *_: object) -> None:
        if self._within_orbit and self._open is not None:
            self._open.close()
            self._partial.unlink()
        else:
            self._close_shard()

    @property
    def _partial(self) -> Path:
        return self.output / f".{SHARD_NAME.format(self._next_number)}.part"

    def add(self, orbit: EncodedOrbit) -> None:
        """Append an orbit to the open shard, or to a fresh one if it does not fit."""
        full = len(self._uids) == self.objects_per_shard
        if self._uids and (full or self._num_bytes + orbit.num_bytes > self.max_shard_bytes):
            self._close_shard()
        if self._open is None:
            self._open = tarfile.open(self._partial, "w")  # noqa: SIM115
        self._within_orbit = True
        for i, data in enumerate(orbit.rgba):
            self._append(f"{orbit.uid}.{i:03d}.png", data)
        for i, data in enumerate(orbit.depth):
            self._append(f"{orbit.uid}.{i:03d}.depth.png", data)
        self._append(f"{orbit.uid}.json", orbit.cameras)
        self._within_orbit = False
        self._uids.append(orbit.uid)
        self._num_bytes += orbit.num_bytes
        self.finished.add(orbit.uid)
        if len(self._uids) == self.objects_per_shard:
            self._close_shard()

    def _append(self, name: str, data: bytes) -> None:
        assert self._open is not None
        member = tarfile.TarInfo(name)
        member.size = len(data)
        self._open.addfile(member, io.BytesIO(data))

    def _close_shard(self) -> None:
        if self._open is None:
            return
        self._open.close()
        path = self.output / SHARD_NAME.format(self._next_number)
        os.replace(self._partial, path)
        self.shards.append(_shard_entry(path, self._uids))
        self._open, self._uids, self._num_bytes = None, [], 0
        self._next_number += 1
        self._write_index()

    def _write_index(self) -> None:
        totals = {key: sum(s[key] for s in self.shards) for key in ("num_orbits", "num_bytes")}
        write_json(self.output / INDEX_NAME, totals | {"shards": self.shards})


def _shard_entry(path: Path, uids: list[str]) -> dict:
    return {
        "file": path.name,
        "num_orbits": len(uids),
        "num_bytes": path.stat().st_size,
        "uids": uids,
    }


def _existing_shards(output: Path) -> list[dict]:
    """Index entries of the shards in a folder; those the index does not know are read.

    Raises:
        InputError: a shard is no tar file.
    """
    try:
        known = {s["file"]: s for s in json.loads((output / INDEX_NAME).read_text())["shards"]}
    except (OSError, ValueError, KeyError, TypeError):
        known = {}
    entries = []
    for path in sorted(output.glob("orbits-*.tar")):
        entry = known.get(path.name)
        if entry is None or entry["num_bytes"] != path.stat().st_size:
            try:
                with tarfile.open(path) as tar:
                    names = [name for name in tar.getnames() if name.endswith(".json")]
            except (tarfile.TarError, OSError) as error:
                raise InputError(f"cannot read shard {path} ({error}): delete it") from error
            entry = _shard_entry(path, [name.removesuffix(".json") for name in names])
        entries.append(entry)
    return entries
