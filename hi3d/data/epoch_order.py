"""In which order an epoch's orbits are seen, as pure functions of seed, epoch, rank and worker.

Nothing is drawn while data are read, so a training can be interrupted anywhere and go on with
exactly the orbits that it has not seen: what lies before a position is known without opening a
file.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Share:
    """What part of an epoch one process of a distributed training gets.

    An epoch is a tape of N orbits that is cut into `world_size` equal stretches, so every process
    takes the same number of steps, however the orbits are spread over shards.
    """

    rank: int = 0
    """Of this process, in [0, world_size)."""
    world_size: int = 1
    """Processes in the training."""
    batch_size: int = 1
    """Orbits per process and step."""
    drop_last: bool = True
    """True leaves the at most `world_size * batch_size - 1` orbits out that fill no step on all
    processes, others in every epoch where it is shuffled. False sees every orbit: the last batch is
    smaller, and up to `world_size - 1` orbits of the tape's beginning fill the stretches up."""

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world_size or self.batch_size < 1:
            raise ValueError(f"no process has {self}")

    def num_orbits(self, total: int) -> int:
        """Orbits of an epoch that each process sees, of `total` in the epoch."""
        if not self.drop_last:
            return -(-total // self.world_size)
        return total // self.world_size // self.batch_size * self.batch_size

    def num_batches(self, total: int) -> int:
        """Steps of an epoch, the same on every process."""
        return -(-self.num_orbits(total) // self.batch_size)

    def cut(self, tape: np.ndarray) -> np.ndarray:
        """The stretch of an epoch's `tape` [N] that is this process's."""
        length = self.num_orbits(len(tape))
        first = self.rank * length
        return tape[np.arange(first, first + length) % max(len(tape), 1)]

    def deal(self, tape: np.ndarray) -> np.ndarray:
        """This process's orbits where step after step is dealt from an epoch's `tape` [N].

        All processes together see in each step what one with their batches' sum would see.
        """
        length = self.num_orbits(len(tape))
        dealt = tape[np.arange(self.world_size * length) % max(len(tape), 1)]
        whole = length // self.batch_size * self.batch_size
        steps = dealt[: self.world_size * whole].reshape(-1, self.world_size, self.batch_size)
        rest = dealt[self.world_size * whole :].reshape(self.world_size, -1)
        return np.concatenate([steps[:, self.rank].ravel(), rest[self.rank]])


def shuffled(count: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation of `count` orbits for random access [count]."""
    return np.random.default_rng((seed, epoch)).permutation(count)


def shard_tape(shard_sizes: Sequence[int], seed: int, epoch: int, shuffle: bool) -> np.ndarray:
    """Orbits, numbered through all shards, in the order of one epoch: shard after shard.

    Args:
        shard_sizes: orbits in each shard.
        seed: of the training.
        epoch: counted from 0.
        shuffle: permute the shards, otherwise they come in the given order.

    Returns:
        [N] numbers of orbits; those of one shard are neighbors and in stored order.
    """
    starts = np.concatenate([[0], np.cumsum(shard_sizes)]).astype(np.int64)
    count = len(shard_sizes)
    order = shuffled(count, seed, epoch) if shuffle else np.arange(count)
    pieces = [np.arange(starts[i], starts[i + 1]) for i in order]
    return np.concatenate(pieces) if pieces else np.zeros(0, np.int64)


def lane_bounds(num_orbits: int, batch_size: int, lane: int, num_lanes: int) -> tuple[int, int]:
    """First orbit and end of a worker's part of its process's stretch.

    A `DataLoader` takes batches from its workers in turn, so worker `lane` makes batches `lane`,
    `lane + num_lanes`, ... of the stretch; it makes them of neighboring orbits.
    """
    num_batches = -(-num_orbits // batch_size)

    def end(lanes: int) -> int:
        """Orbits of the first so many lanes; the last batch, which may be short, is of one lane."""
        batches = sum(lane_batches(num_batches, i, num_lanes) for i in range(lanes))
        short = num_batches * batch_size - num_orbits
        has_last = lanes > (num_batches - 1) % num_lanes
        return batches * batch_size - (short if has_last and num_batches else 0)

    return end(lane), end(lane + 1)


def lane_batches(num_batches: int, lane: int, num_lanes: int) -> int:
    """How many of the first `num_batches` batches of a process worker `lane` makes."""
    return max(0, -(-(num_batches - lane) // num_lanes))


def buffer_shuffled(count: int, buffer: int, key: tuple[int, ...]) -> np.ndarray:
    """The order in which a shuffle buffer lets `count` orbits go.

    The buffer holds the first `buffer` orbits; one at random leaves, the next takes its place.

    Args:
        count: orbits that pass.
        buffer: orbits held; 0 or 1 keeps the order.
        key: of the random numbers.

    Returns:
        [count] positions; none leaves more than `buffer` places early.
    """
    rng = np.random.default_rng(key)
    held = list(range(min(max(buffer, 1), count)))
    order = np.empty(count, np.int64)
    picks = rng.random(count)
    for i in range(count):
        slot = int(picks[i] * len(held))
        order[i] = held[slot]
        following = i + max(buffer, 1)
        if following < count:
            held[slot] = following
        else:
            held[slot] = held[-1]
            held.pop()
    return order


def draw_start(seed: int, epoch: int, uid: str) -> int:
    """A number whose remainder by the ring is the view that becomes the reference.

    Uniform over epochs, and the same whoever reads the orbit.
    """
    digest = hashlib.blake2b(f"{seed}/{epoch}/{uid}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little")


def fold_of(uid: str, num_folds: int) -> int:
    """The fold of an orbit in cross-fitting, from its name alone: in [0, num_folds)."""
    digest = hashlib.blake2b(uid.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % num_folds
