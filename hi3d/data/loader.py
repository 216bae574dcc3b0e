"""Batches of orbits for one process of a training, from any position on."""

import hashlib
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, default_collate

from hi3d.data.dataset import OrbitDataset
from hi3d.data.epoch_order import Share, shuffled
from hi3d.data.stream import OrbitStream
from hi3d.errors import InputError
from hi3d.orbits.broken_orbits import BrokenOrbitCounts
from hi3d.progress import console


class OrbitLoader:
    """Iterates over one epoch of packed batches, or over what is left of it.

    The order is a function of seed, epoch and process alone, so `state_dict` needs only the epoch
    and the number of batches seen, and the batches after `load_state_dict` are those that an
    uninterrupted run would have seen. With `train`, an iteration that was broken off is continued
    by the next one, and a finished one is followed by the next epoch. Without, every iteration is
    the whole set in stored order.
    """

    def __init__(
        self,
        orbits: OrbitDataset | OrbitStream,
        share: Share,
        train: bool,
        num_workers: int = 0,
        seed: int = 0,
        strict: bool = False,
    ):
        """Args:
        orbits: the data set, which gives packed items and is not strict itself.
        share: this process's part; its batch size is lowered to what every process can fill.
        train: shuffle, and go on from iteration to iteration.
        num_workers: loader processes.
        seed: of the order; the same on all processes.
        strict: an orbit that cannot be read is an `InputError`; otherwise it is counted, with a
            message for the first of each kind and a line for each kind at the end of an epoch.

        Raises:
            InputError: there are fewer orbits than processes.
        """
        self.orbits = orbits
        self.num_orbits = orbits.num_orbits if isinstance(orbits, OrbitStream) else len(orbits)
        if self.num_orbits < share.world_size:
            raise InputError(
                f"{self.num_orbits} orbits are too few for {share.world_size} processes: "
                "use fewer devices, or more orbits"
            )
        batch_size = min(share.batch_size, self.num_orbits // share.world_size)
        if train and batch_size < share.batch_size and share.rank == 0:
            console.print(
                f"{self.num_orbits} orbits on {share.world_size} processes fill no batch of "
                f"{share.batch_size}: batches of {batch_size} are used"
            )
        self.share = Share(share.rank, share.world_size, batch_size, share.drop_last)
        self.train = train
        self.num_workers = num_workers
        self.seed = seed
        self.strict = strict
        self.epoch = 0
        self.batches_done = 0
        self.batches_in_flight: Callable[[], int] = lambda: 0
        """How many of the batches handed out have not been trained on, at the time of a save."""
        self._epoch_workers = num_workers
        names = "\n".join(orbits.uids).encode()
        self._orbits_digest = f"{self.num_orbits} ({hashlib.sha256(names).hexdigest()[:8]})"
        self._sampler = _EpochSampler(self)
        self._random_access: DataLoader | None = None
        self._iterator: Any = None
        where = f"process {share.rank}: " if share.world_size > 1 else ""
        self._broken = BrokenOrbitCounts(where)

    def __len__(self) -> int:
        """Batches of a whole epoch, the same on every process."""
        return self.share.num_batches(self.num_orbits)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if not self.train:
            self.batches_done = 0
        try:
            for batch in self._batches():
                for error in batch.pop("broken", ()):
                    if self.strict:
                        raise InputError(str(error))
                    self._broken.add(error)
                self.batches_done += 1
                if self.batches_done == len(self):  # before the batch: nobody may ask for another
                    self._end_epoch()
                yield batch
        except InputError as error:
            # From a worker it comes with its traceback; the last line is the message.
            message = str(error).strip().splitlines()[-1]
            raise InputError(message.removeprefix("hi3d.errors.InputError: ")) from error

    def _end_epoch(self) -> None:
        self._broken.report(f"epoch {self.epoch}" if self.train else "validation")
        self.batches_done = 0
        if self.train:
            self.epoch += 1

    def _batches(self) -> Iterator[dict[str, Any]]:
        if isinstance(self.orbits, OrbitDataset):
            if self._random_access is None:
                self._random_access = self._loader(
                    self.num_workers, batch_sampler=self._sampler, persistent=True
                )
            self._iterator = iter(self._random_access)
            yield from self._iterator
            return
        # Workers start afresh every epoch, since that is how they learn epoch and position.
        if self.batches_done == 0:
            self._epoch_workers = self.num_workers
        self.orbits.begin(self.epoch, self.batches_done, self.share, self.train)
        self._iterator = iter(self._loader(self._epoch_workers, batch_size=self.share.batch_size))
        yield from self._iterator

    def close(self) -> None:
        """End the loader processes; the next iteration starts others.

        An iterator that somebody still holds would keep them as long as this process lives.
        """
        iterator, self._iterator, self._random_access = self._iterator, None, None
        if self.num_workers and iterator is not None:
            iterator._shutdown_workers()

    def _loader(self, workers: int, persistent: bool = False, **kwargs: Any) -> DataLoader:
        return DataLoader(
            self.orbits,
            num_workers=workers,
            persistent_workers=persistent and workers > 0,
            pin_memory=torch.cuda.is_available(),
            collate_fn=collate_orbits,
            generator=torch.Generator().manual_seed(self.seed),  # leaves torch's own alone
            **kwargs,
        )

    def state_dict(self) -> dict[str, Any]:
        """Where the next iteration begins, and of which data and settings that holds."""
        trained_on = self.epoch * len(self) + self.batches_done - self.batches_in_flight()
        epoch, batches_done = divmod(trained_on, len(self))
        return {
            "epoch": epoch,
            "batches_done": batches_done,
            "num_workers": self._epoch_workers,
            "order": self._order_settings(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved position.

        The epoch is finished with the number of workers it was begun with. With other orbits, batch
        size, seed or processes the position has no meaning: the next epoch begins.
        """
        if not state:
            return
        self.epoch, self.batches_done = state["epoch"], state["batches_done"]
        self._epoch_workers = max(state["num_workers"], min(self.num_workers, 1))
        theirs, ours = state["order"], self._order_settings()
        changed = [name for name in ours if theirs.get(name) != ours[name]]
        if changed and self.batches_done:
            console.print(
                f"{changed[0]} was {theirs.get(changed[0])} and is {ours[changed[0]]}: "
                f"epoch {self.epoch} is not finished, the next one begins"
            )
            self.epoch, self.batches_done = self.epoch + 1, 0

    def _order_settings(self) -> dict[str, Any]:
        buffer = self.orbits.shuffle_buffer if isinstance(self.orbits, OrbitStream) else None
        return {
            "orbits": self._orbits_digest,
            "batch_size": self.share.batch_size,
            "world_size": self.share.world_size,
            "drop_last": self.share.drop_last,
            "seed": self.seed,
            "shuffle_buffer": buffer,
        }


class _EpochSampler:
    """Batches of (index, epoch) of a data set with random access."""

    def __init__(self, loader: OrbitLoader):
        # In a circle of references the collector closes the queues before the workers are told to
        # end, and each is waited for five seconds.
        self.loader = weakref.proxy(loader)

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        loader = self.loader
        size, epoch = loader.share.batch_size, loader.epoch
        order = np.arange(loader.num_orbits)
        if loader.train:
            order = shuffled(loader.num_orbits, loader.seed, epoch)
        indices = loader.share.deal(order).tolist()
        for first in range(loader.batches_done * size, len(indices), size):
            yield [(index, epoch) for index in indices[first : first + size]]


def collate_orbits(items: list[dict[str, Any]]) -> dict[str, Any]:
    """Torch's collation, with the errors of all items in one list `broken`, if there are any."""
    broken = [error for item in items for error in item.pop("broken", ())]
    batch = default_collate(items)
    return batch | {"broken": broken} if broken else batch
