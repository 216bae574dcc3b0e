"""Checkpoints that survive kills and full disks, and that hold no code."""

import errno
import functools
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from pytorch_lightning.callbacks import Checkpoint
from torch import nn

from hi3d.errors import InputError
from hi3d.files import PACKAGE, atomic_path
from hi3d.progress import console
from hi3d.training.interruption import Interrupted, NonFiniteError

LAST = "last.ckpt"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Files that are there whole or not at all, read as tensors and plain values only."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Write beside `path`, bring it to the disk, and move it there.

        Raises:
            OSError: the disk is full.
        """
        path = Path(path)
        with atomic_path(path) as partial:
            try:
                with partial.open("wb") as file:
                    torch.save(checkpoint, file)
                    file.flush()
                    os.fsync(file.fileno())
            except RuntimeError as error:  # torch's writer does not say why
                if shutil.disk_usage(path.parent).free > 1 << 20:
                    raise
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        sync_folder(path.parent)

    def load_checkpoint(
        self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        """What `save_checkpoint` wrote; anything that would have to be executed is refused."""
        return torch.load(path, map_location=map_location, weights_only=True)


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:  # file systems that cannot
        pass
    finally:
        os.close(descriptor)


class KeepCheckpoints(Checkpoint):
    """Writes last.ckpt every so many steps, at the end and when stopped; keeps the one before."""

    def __init__(self, folder: Path, every_steps: int):
        """Args:
        folder: of the checkpoints.
        every_steps: optimizer steps between them.
        """
        self.folder = folder
        self.every_steps = every_steps
        self.saved_step = 0

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """What a resumed run begins with is saved already; what a kill left half is removed."""
        self.saved_step = trainer.global_step
        if trainer.is_global_zero:
            for partial in self.folder.glob(".*.part.ckpt"):
                partial.unlink()

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        """Save every `every_steps`."""
        if trainer.global_step % self.every_steps == 0:
            self.save(trainer)

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Save the last step."""
        self.save(trainer)

    def on_exception(
        self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Save what was trained, where all processes stop and neither step nor disk is at fault."""
        alone = trainer.world_size == 1 and isinstance(exception, Exception)
        if isinstance(exception, Interrupted) or (
            alone and not isinstance(exception, OSError | NonFiniteError)
        ):
            module.on_validation_end()  # within one, the network holds the average
            self.save(trainer)

    def save(self, trainer: pl.Trainer) -> None:
        """Write last.ckpt if there are new steps; the one before becomes `step=N.ckpt`."""
        if trainer.global_step == self.saved_step:
            return
        last = self.folder / LAST
        previous = self.folder / f"step={self.saved_step:08d}.ckpt"
        if trainer.is_global_zero and last.exists() and self.saved_step:
            previous.unlink(missing_ok=True)
            try:
                os.link(last, previous)
            except OSError:  # a folder of a sharded strategy, or a file system without links
                os.replace(last, previous)
        trainer.save_checkpoint(last)
        if trainer.is_global_zero:
            for old in self.folder.glob("*.ckpt"):
                if old not in (last, previous) and old.name.startswith(("step=", "epoch=")):
                    shutil.rmtree(old) if old.is_dir() else old.unlink()
        self.saved_step = trainer.global_step


def find_checkpoints(folder: Path) -> list[Path]:
    """What a training left: last.ckpt, then the others, the newest first."""
    found = [path for path in folder.glob("*.ckpt") if not path.name.startswith(".")]
    return sorted(found, key=lambda path: (path.name != LAST, -path.stat().st_mtime))


def find_checkpoint(
    resume: str | None, folder: Path, network: nn.Module, sharded: bool = False
) -> str | None:
    """The checkpoint to go on from.

    Args:
        resume: None, a path, or `last`: the newest of the folder that can be read and is of this
            network. None where the folder holds none at all: killed before the first.
        folder: of the checkpoints.
        network: that was trained.
        sharded: checkpoints are folders that their strategy reads.

    Raises:
        InputError: the path, or every checkpoint of the folder, is missing, damaged or foreign.
    """
    if resume is None:
        return None
    if resume != "last":
        if not Path(resume).exists():
            raise InputError(f"no checkpoint at {resume}: leave resume out to start afresh")
        candidates = [Path(resume)]
    else:
        candidates = find_checkpoints(folder)
        if not candidates:
            console.print(f"no checkpoint in {folder} yet: starting afresh", markup=False)
            return None
    faults = {path: None if sharded else fault(path, network) for path in candidates}
    good = next((path for path in candidates if faults[path] is None), None)
    first = candidates[0]
    if good is None:
        raise InputError(f"{first} {faults[first]}: leave resume out and use another output folder")
    if good != first:
        console.print(f"{first} {faults[first]}: going on from {good}", markup=False)
    return str(good)


def fault(path: Path, network: nn.Module) -> str | None:
    """Why a training of `network` cannot go on from a file, or None if it can."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch raises many kinds, also for what would be executed
        kind = "holds code" if "WeightsUnpickler error" in str(error) else "cannot be read"
        return f"{kind} ({type(error).__name__})"
    needed = ("state_dict", "optimizer_states", "global_step")
    if not isinstance(checkpoint, dict) or any(name not in checkpoint for name in needed):
        return "is no checkpoint of a training"
    expected = {f"network.{k}": v.shape for k, v in network.state_dict().items()}
    found = checkpoint["state_dict"]
    found = {k: v.shape for k, v in found.items() if k.startswith("network.")}
    return None if found == expected else "is of another network"


@functools.cache
def git_revision() -> str | None:
    """Commit of the checkout that runs, with `-dirty` where files differ; None if there is none."""
    command = ["git", "-C", str(PACKAGE.parent), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
