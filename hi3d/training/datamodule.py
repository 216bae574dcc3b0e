"""Orbits for Lightning."""

import pytorch_lightning as pl
from torch.utils.data import DataLoader

from hi3d.data.orbit_dataset import OrbitDataset
from hi3d.training.experiment import DataConfig


class OrbitDataModule(pl.LightningDataModule):
    """Training and validation loaders over folders of orbits or shards."""

    def __init__(self, config: DataConfig, load_depth: bool):
        """Args:
        config: what to read and how.
        load_depth: also read the depth maps.
        """
        super().__init__()
        self.config = config
        self.load_depth = load_depth

    def setup(self, stage: str) -> None:
        """Open the data sets, so that a wrong path is told before any network is built."""
        self.train_orbits = self._open(self.config.train, self.config.random_start)
        self.val_orbits = self._open(self.config.val, False) if self.config.val else None

    def train_dataloader(self) -> DataLoader:
        """Shuffled; an incomplete last batch is left out."""
        return self._loader(self.train_orbits, shuffle=True)

    def val_dataloader(self) -> DataLoader | list:
        """In order; empty where there is no validation set."""
        return self._loader(self.val_orbits, shuffle=False) if self.val_orbits else []

    def _open(self, path: str, random_start: bool) -> OrbitDataset:
        return OrbitDataset(
            path,
            resolution=self.config.resolution,
            random_start=random_start,
            load_depth=self.load_depth,
            cache_in_memory=self.config.cache_in_memory,
            num_views=self.config.num_views,
        )

    def _loader(self, orbits: OrbitDataset, shuffle: bool) -> DataLoader:
        workers = self.config.num_workers
        return DataLoader(
            orbits,
            batch_size=min(self.config.batch_size, len(orbits)),
            shuffle=shuffle,
            drop_last=shuffle,
            num_workers=workers,
            persistent_workers=workers > 0,
        )
