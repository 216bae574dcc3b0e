"""Shards that survive a kill at any moment: WebDataset tar files with an index.

The open shard is `.<name>.part`, a complete tar file after every orbit. Its last member of an orbit
is the json, so whatever a kill leaves behind the last json is cut off when the run goes on. A full
disk is cut off at once. A shard is flushed to the device when it is complete, before it gets its
name; a power cut can cost orbits of the open shard that the system had not written yet.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hi3d.errors import InputError
from hi3d.files import write_json
from hi3d.orbits.encoded_orbit import EncodedOrbit
from hi3d.orbits.shards import (
    END_OF_TAR,
    complete_orbits,
    known_shards,
    shard_entry,
    tar_bytes,
    totals,
)


class ShardWriter:
    """Writes `orbits<tag>-NNNNNN.tar` and `index<tag>.json`, and goes on where a run ended."""

    def __init__(
        self, output: Path, objects_per_shard: int, max_shard_bytes: int, part_tag: str = ""
    ):
        """Args:
            output: folder of the shards.
            objects_per_shard: orbits a shard holds at most.
            max_shard_bytes: a shard is closed before it would grow beyond this.
            part_tag: differs between runs that write to `output` at the same time.

        Raises:
            InputError: a shard is no tar file.
        """
        self.output = output
        self.objects_per_shard = objects_per_shard
        self.max_shard_bytes = max_shard_bytes
        self.part_tag = part_tag
        self.shards = self._existing_shards()
        self.finished = {uid for shard in self.shards for uid in shard["uids"]}
        names = [shard["file"] for shard in self.shards]
        partials = [path.name[1:-5] for path in output.glob(".orbits-*.tar.part")]
        numbers = [self._parse_number(name) for name in (*names, *partials)]
        self._number = max((n for n in numbers if n is not None), default=-1)
        if (output / self._name).exists() or self._number < 0:
            self._number += 1
        self._file: int | None = None
        self._uids: list[str] = []
        self._size = 0
        """Bytes of the open shard without its end of tar."""

    def __enter__(self) -> "ShardWriter":
        self._write_index(complete=False)
        if self._partial.exists():
            self._uids, self._size = complete_orbits(self._partial)
            self.finished.update(self._uids)
            self._open()
            self._end_tar()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # After an exception the orbits that are there are completed to a shard as well.
        self._close_shard()
        self._write_index(complete=kind is None)

    @property
    def _name(self) -> str:
        return f"orbits{self.part_tag}-{self._number:06d}.tar"

    @property
    def _partial(self) -> Path:
        return self.output / f".{self._name}.part"

    def add(self, uid: str, orbits: Sequence[EncodedOrbit]) -> None:
        """Append orbits to the open shard, or to a fresh one where they do not fit.

        Raises:
            OSError: an orbit could not be written; the shard holds the orbits before it.
        """
        for orbit in orbits:
            data = tar_bytes(orbit)
            if self._uids and self._size + len(data) + len(END_OF_TAR) > self.max_shard_bytes:
                self._close_shard()
            if self._file is None:
                self._open()
            try:
                self._write(data + END_OF_TAR)
            except OSError:
                self._end_tar()  # overwrites blocks that the file has, so a full disk allows it
                raise
            self._size += len(data)
            self._uids.append(orbit.uid)
            self.finished.add(orbit.uid)
            if len(self._uids) >= self.objects_per_shard:
                self._close_shard()

    def _open(self) -> None:
        self._file = os.open(self._partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def _write(self, data: bytes) -> None:
        """Write at the end of the last orbit."""
        assert self._file is not None
        view, offset = memoryview(data), self._size
        while view:
            written = os.pwrite(self._file, view, offset)
            view, offset = view[written:], offset + written

    def _end_tar(self) -> None:
        """Cut off what follows the last orbit and end the tar there."""
        assert self._file is not None
        if not self._uids:
            os.ftruncate(self._file, 0)
            return
        os.ftruncate(self._file, self._size + len(END_OF_TAR))
        self._write(END_OF_TAR)

    def _close_shard(self) -> None:
        if self._file is None:
            return
        try:
            self._end_tar()
            os.fsync(self._file)
        finally:
            os.close(self._file)
            self._file = None
        if not self._uids:
            self._partial.unlink()
            return
        path = self.output / self._name
        os.replace(self._partial, path)
        self.shards.append(shard_entry(path, self._uids))
        self._uids, self._size = [], 0
        self._number += 1
        self._write_index(complete=False)

    def _write_index(self, complete: bool) -> None:
        content = totals(self.shards) | {"complete": complete, "shards": self.shards}
        write_json(self.output / f"index{self.part_tag}.json", content)

    def _existing_shards(self) -> list[dict[str, Any]]:
        """Index entries of this part's shards; those the index does not know are read.

        Raises:
            InputError: a shard is no tar file.
        """
        known = known_shards(self.output / f"index{self.part_tag}.json")
        entries = []
        for path in sorted(self.output.glob("orbits-*.tar")):
            if self._parse_number(path.name) is None:
                continue
            entry = known.get(path.name)
            if entry is None or entry["num_bytes"] != path.stat().st_size:
                uids, end = complete_orbits(path)
                with path.open("rb") as shard:
                    shard.seek(end)
                    if not uids or shard.read(len(END_OF_TAR)) != END_OF_TAR:
                        raise InputError(f"shard {path} is broken: move it away and run again")
                entry = shard_entry(path, uids)
            entries.append(entry)
        return entries

    def _parse_number(self, name: str) -> int | None:
        """The number of a shard of this part; None for the shards of others."""
        match = re.fullmatch(rf"orbits{re.escape(self.part_tag)}-(\d+)\.tar", name)
        return int(match[1]) if match else None
