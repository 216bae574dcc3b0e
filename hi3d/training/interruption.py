"""Stopping a training: by a signal, between two batches; or since its numbers are no numbers."""

import os
import signal
import subprocess
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from hi3d.progress import console

SLURM_JOB = "SLURM_JOB_ID"
"""Set within a SLURM job, where SIGUSR1 asks for the training to be put in the queue again."""


class Interrupted(BaseException):
    """A signal asked the training to stop."""

    def __init__(self, number: int):
        """Args: number: of the signal."""
        super().__init__(signal.Signals(number).name)
        self.number = number


class NonFiniteError(RuntimeError):
    """Loss or gradient were NaN or infinite in too many steps in a row."""


class StopOnSignal(Callback):
    """SIGINT, SIGTERM and in a SLURM job SIGUSR1 end the training between two batches.

    A validation ends after its batch, a training after its optimizer step, where nothing is half
    done. All processes stop in the same place, whichever of them got the signal. The same signal
    once more acts at once, as if there were no training.
    """

    def __init__(self, accumulate: int = 1) -> None:
        """Args: accumulate: batches of an optimizer step."""
        self.accumulate = accumulate
        self.received = 0

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Take the signals over."""
        if trainer.received_sigterm:
            self.received = signal.SIGTERM
        in_slurm = [signal.SIGUSR1] if SLURM_JOB in os.environ else []
        for number in (signal.SIGINT, signal.SIGTERM, *in_slurm):
            signal.signal(number, self._receive)  # the trainer restores those before it

    def _receive(self, number: int, _: Any) -> None:
        if self.received == number != signal.SIGUSR1:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.received = self.received or number

    def on_train_batch_start(
        self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Stop between optimizer steps."""
        if batch_idx % self.accumulate == 0:
            self._stop(trainer)

    def on_validation_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Stop within a validation."""
        self._stop(trainer)

    def _stop(self, trainer: pl.Trainer) -> None:
        received = int(self.received)
        if trainer.world_size > 1:
            number = torch.tensor(received, device=trainer.strategy.root_device)
            received = int(trainer.strategy.reduce(number, reduce_op="max"))
        if received:
            raise Interrupted(received)


def was_requeued() -> bool:
    """Whether SLURM has started this job before, so that the same command means going on."""
    return SLURM_JOB in os.environ and int(os.environ.get("SLURM_RESTART_COUNT") or 0) > 0


def requeue() -> None:
    """Put this SLURM job in the queue again; one line says whether that went well."""
    job = os.environ[SLURM_JOB]
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        subprocess.run(["scontrol", "requeue", job], check=True, capture_output=True, timeout=120)
    except (OSError, subprocess.SubprocessError) as error:
        console.print(f"scontrol requeue {job} failed ({error}): submit it again", markup=False)
    else:
        console.print(f"job {job} waits in the queue again and goes on by itself", markup=False)
