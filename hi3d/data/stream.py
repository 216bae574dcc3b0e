"""Orbits streamed from shards, for collections larger than a disk (paper, Section 5.1: 300,000)."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import IterableDataset, get_worker_info

from hi3d.data.epoch_order import (
    Share,
    buffer_shuffled,
    draw_start,
    lane_batches,
    lane_bounds,
    shard_tape,
)
from hi3d.data.shards import ShardOrbit, find_shards, local_members, stream_orbits
from hi3d.errors import InputError
from hi3d.orbits.broken_orbits import MISSING_SHARD, BrokenOrbitError
from hi3d.orbits.decoding import OrbitReading, PackedOrbit, check_alike, decode_orbit_files

OPEN_TABLES = 8
"""Local shards whose tables of contents a worker keeps; a shuffle buffer spans one or two."""


class OrbitStream(IterableDataset):
    """One process's orbits of one epoch, from local shards or URLs; items as of `OrbitDataset`.

    The epoch's tape (shards in the epoch's order, end to end) is cut into one stretch per process
    and this into one piece per worker. A worker reads its piece from shard to shard, a shard that
    is cut is read by two, and lets orbits go through a shuffle buffer of undecoded files. `begin`
    says which epoch and how many batches are behind; these are neither decoded nor, in local
    shards, read.

    In place of an orbit that cannot be read comes the next one again, with an additional entry
    `broken`, a list of the error, so that all processes keep step.
    """

    def __init__(
        self,
        source: str | Path | Sequence[str | Path],
        reading: OrbitReading,
        random_start: bool = False,
        shuffle_buffer: int = 0,
        strict: bool = True,
        seed: int = 0,
        allow_missing_shards: bool = False,
    ):
        """Args:
        source: of shards, as `hi3d.data.shards.find_shards` takes it.
        reading: what of each orbit, and at what size.
        random_start: rotate each ring so that a random view becomes view 0.
        shuffle_buffer: orbits among which each worker shuffles, beside the order of the shards;
            of remote shards they are held in memory, encoded.
        strict: a shard that is known to be broken from the start is an error.
        seed: of shuffling and random starts.
        allow_missing_shards: the orbits of a shard that is not there, or that its server does not
            give, count as broken; otherwise it is an error.

        Raises:
            InputError: there are no shards, or not one orbit, or a shard is missing.
        """
        self.shards = find_shards(source, strict, allow_missing_shards)
        self.allow_missing_shards = allow_missing_shards
        self.reading = reading
        self.random_start = random_start
        self.shuffle_buffer = shuffle_buffer
        self.seed = seed
        self._sizes = [len(shard.uids) for shard in self.shards]
        self._starts = np.concatenate([[0], np.cumsum(self._sizes)])
        self.begin(0, 0, Share(), shuffle=False)

    @property
    def num_orbits(self) -> int:
        """In all shards."""
        return int(self._starts[-1])

    @property
    def uids(self) -> list[str]:
        """Name of every orbit, in stored order."""
        return [uid for shard in self.shards for uid in shard.uids]

    def begin(self, epoch: int, batches_done: int, share: Share, shuffle: bool) -> None:
        """Set what the next iteration yields.

        Args:
            epoch: counted from 0.
            batches_done: batches of the epoch that the process has seen already.
            share: the process's part.
            shuffle: whether shards and buffers are shuffled.
        """
        self._epoch = epoch
        self._batches_done = batches_done
        self._share = share
        self._shuffle = shuffle

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = get_worker_info()
        index, num_lanes = (worker.id, worker.num_workers) if worker else (0, 1)
        # The loader asks worker 0 first, whichever made the batch before the interruption.
        lane = (index + self._batches_done) % num_lanes
        return self._items(self._lane_order(lane, num_lanes))

    def _lane_order(self, lane: int, num_lanes: int) -> "_LaneOrder":
        share = self._share
        tape = shard_tape(self._sizes, self.seed, self._epoch, self._shuffle)
        stretch = share.cut(tape)
        first, end = lane_bounds(len(stretch), share.batch_size, lane, num_lanes)
        piece = stretch[first:end]
        buffer = self.shuffle_buffer if self._shuffle else 0
        key = (self.seed, self._epoch, share.rank, lane)
        order = buffer_shuffled(len(piece), buffer, key)
        done = lane_batches(self._batches_done, lane, num_lanes) * share.batch_size
        return _LaneOrder(piece, order[done:])

    def _items(self, lane: "_LaneOrder") -> Iterator[dict[str, Any]]:
        """The lane's orbits; in place of broken ones the next good one, or the last at the end."""
        broken: list[BrokenOrbitError] = []
        last: tuple[str, PackedOrbit] | None = None
        shape: tuple[int, ...] | None = None
        for files in self._files(lane):
            try:
                if isinstance(files, BrokenOrbitError):
                    raise files
                start = draw_start(self.seed, self._epoch, files.uid) if self.random_start else 0
                packed = decode_orbit_files(files, self.reading, start)
                shape = shape or packed.rgba.shape
                check_alike(packed, shape, files.label("000.png"))
            except BrokenOrbitError as error:
                if error.kind == MISSING_SHARD and not self.allow_missing_shards:
                    raise InputError(
                        f"{error}; or set data.allow_missing_shards=true to go on without"
                    ) from error
                broken.append(error)
                continue
            last = (files.uid, packed)
            for reason in broken:
                yield packed.item(files.uid) | {"broken": [reason]}
            broken.clear()
            yield packed.item(files.uid)
        if broken and last is None:
            raise InputError(f"not one of {len(broken)} orbits can be read; the first: {broken[0]}")
        for reason in broken:
            assert last is not None
            yield last[1].item(last[0]) | {"broken": [reason]}

    def _files(self, lane: "_LaneOrder") -> Iterator[ShardOrbit | BrokenOrbitError]:
        """Files of the orbits to come, in their order."""
        remote = self._remote_orbits(lane)
        held: dict[int, ShardOrbit | BrokenOrbitError] = {}
        tables: OrderedDict[str, dict[str, dict[str, tuple[int, int]]]] = OrderedDict()
        for number in lane.orbits():
            shard = self.shards[self._shard_of(number)]
            if not shard.is_local:
                while number not in held:
                    found, orbit = next(remote)
                    held[found] = orbit
                yield held.pop(number)
                continue
            if shard.url not in tables:
                tables[shard.url], _ = local_members(shard.url)
                if len(tables) > OPEN_TABLES:
                    tables.popitem(last=False)
            uid = self._uid(number)
            yield ShardOrbit(uid, shard.url, tables[shard.url].get(uid, {}))

    def _remote_orbits(
        self, lane: "_LaneOrder"
    ) -> Iterator[tuple[int, ShardOrbit | BrokenOrbitError]]:
        """Number and files of the lane's remote orbits that are still to come, in stored order."""
        for index, numbers in self._by_shard(lane.left_in_stored_order()):
            shard = self.shards[index]
            if shard.is_local:
                continue
            left = {self._uid(number): number for number in numbers}
            try:
                for orbit in stream_orbits(shard, left):
                    yield left.pop(orbit.uid), orbit
            except BrokenOrbitError as error:
                for uid, number in left.items():
                    yield number, BrokenOrbitError(error.kind, f"{error} ({uid} is lost)")

    def _by_shard(self, numbers: np.ndarray) -> Iterator[tuple[int, list[int]]]:
        """Neighboring orbits of one shard together."""
        shards = np.searchsorted(self._starts, numbers, side="right") - 1
        cuts = np.flatnonzero(np.diff(shards)) + 1
        for group in np.split(numbers, cuts):
            if len(group):
                yield self._shard_of(int(group[0])), group.tolist()

    def _shard_of(self, number: int) -> int:
        return int(np.searchsorted(self._starts, number, side="right")) - 1

    def _uid(self, number: int) -> str:
        shard = self._shard_of(number)
        return self.shards[shard].uids[number - int(self._starts[shard])]


class _LaneOrder:
    """Which orbits a worker reads, and in which order it gives them."""

    def __init__(self, piece: np.ndarray, order: np.ndarray):
        """Args:
        piece: numbers of the orbits, in the order of the shards.
        order: indices into `piece`, of those that are still to come.
        """
        self.piece = piece
        self.order = order

    def orbits(self) -> list[int]:
        """Numbers, in the order in which they are given."""
        return self.piece[self.order].tolist()

    def left_in_stored_order(self) -> np.ndarray:
        """The same numbers [N], in the order of the shards."""
        return self.piece[np.sort(self.order)]
