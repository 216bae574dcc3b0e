"""Orbits for Lightning."""

import os
from typing import Any

import pytorch_lightning as pl
import torch

from hi3d.data.dataset import OrbitDataset
from hi3d.data.epoch_order import Share
from hi3d.data.loader import OrbitLoader
from hi3d.data.stream import OrbitStream
from hi3d.errors import InputError
from hi3d.orbits.decoding import OrbitReading, unpack_orbits
from hi3d.training.experiment import DataConfig


class OrbitDataModule(pl.LightningDataModule):
    """Training and validation loaders over folders of orbits or shards.

    The loaders split the orbits over the processes of a training themselves, and the position
    within the epoch is part of the checkpoint. Batches travel as integers and are unpacked on the
    device; see `hi3d.orbits.decoding.unpack_orbits` for what the networks get.
    """

    def __init__(self, config: DataConfig, load_depth: bool, seed: int | None = None):
        """Args:
        config: what to read and how.
        load_depth: also read the depth maps.
        seed: of the order and of random starts, the same on all processes; None takes torch's.
        """
        super().__init__()
        self.config = config
        self.load_depth = load_depth
        self.seed = (torch.initial_seed() if seed is None else seed) % 2**32
        self._position: dict[str, Any] = {}
        self._loaders: list[OrbitLoader] = []

    def setup(self, stage: str) -> None:
        """Open the data sets, so that a wrong path is told before any network is built."""
        if not hasattr(self, "train_orbits"):
            self.train_orbits = self._open(self.config.train, train=True)
            self.val_orbits = self._open(self.config.val, train=False) if self.config.val else None

    def train_dataloader(self) -> OrbitLoader:
        """Shuffled, from the position of the checkpoint on."""
        loader = self._loader(self.train_orbits, train=True)
        loader.load_state_dict(self._position)
        if self._position and self.trainer is not None:
            # A checkpoint from the end of an epoch has Lightning count on in that epoch.
            done = self.trainer.fit_loop.epoch_loop.batch_progress.current
            done.ready = done.started = done.processed = done.completed = loader.batches_done
        loader.batches_in_flight = self._batches_in_flight
        return loader

    def in_order(self) -> OrbitLoader:
        """The training orbits of this process, once and in stored order."""
        orbits = self._open(self.config.train, train=False)
        return self._loader(orbits, train=False)

    def val_dataloader(self) -> OrbitLoader | list:
        """In order; empty where there is no validation set."""
        return self._loader(self.val_orbits, train=False) if self.val_orbits else []

    def teardown(self, stage: str) -> None:
        """End the loader processes."""
        for loader in self._loaders:
            loader.close()
        self._loaders = []

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Unpack on the device."""
        return unpack_orbits(batch)

    def state_dict(self) -> dict[str, Any]:
        """The position within the epoch."""
        loader = self.trainer.train_dataloader if self.trainer is not None else None
        return loader.state_dict() if isinstance(loader, OrbitLoader) else self._position

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Let the next training loader go on from a checkpoint."""
        self._position = state_dict

    def _batches_in_flight(self) -> int:
        """1 while a step is interrupted, since its batch has been handed out and not trained on."""
        if self.trainer is None:
            return 0
        progress = self.trainer.fit_loop.epoch_loop.batch_progress.current
        return progress.ready - progress.processed

    def _open(self, path: str, train: bool) -> OrbitDataset | OrbitStream:
        config = self.config
        random_start = config.random_start and train
        held_out_fold = self._held_out_fold() if train else None
        if config.streaming:
            reading = OrbitReading(
                config.resolution, load_depth=self.load_depth, num_views=config.num_views
            )
            return OrbitStream(
                path,
                reading,
                random_start,
                config.shuffle_buffer,
                config.strict,
                self.seed,
                config.allow_missing_shards,
            )
        return OrbitDataset(
            path,
            resolution=config.resolution,
            random_start=random_start,
            load_depth=self.load_depth,
            cache_in_memory=config.cache_in_memory,
            num_views=config.num_views,
            strict=False,
            packed=True,
            seed=self.seed,
            held_out_fold=held_out_fold,
            allow_missing_shards=config.allow_missing_shards,
        )

    def _held_out_fold(self) -> tuple[int, int] | None:
        """Number of the fold that is not trained on, and of all folds."""
        fold, num_folds = self.config.held_out_fold, self.config.num_folds
        if fold is None:
            return None
        if not 0 <= fold < num_folds or num_folds < 2:
            raise InputError(
                f"data.held_out_fold={fold} of data.num_folds={num_folds}: folds are counted from "
                "0, and there are at least 2"
            )
        if self.config.streaming:
            raise InputError("data.held_out_fold needs data.streaming=false")
        return fold, num_folds

    def _loader(self, orbits: OrbitDataset | OrbitStream, train: bool) -> OrbitLoader:
        rank, world_size = self._process()
        drop_last = train and self.config.drop_last
        share = Share(rank, world_size, self.config.batch_size, drop_last)
        config = self.config
        loader = OrbitLoader(orbits, share, train, config.num_workers, self.seed, config.strict)
        self._loaders.append(loader)
        return loader

    def _process(self) -> tuple[int, int]:
        """Rank and number of processes: Lightning's (which knows SLURM), else torchrun's."""
        if self.trainer is not None:
            return self.trainer.global_rank, self.trainer.world_size
        return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
