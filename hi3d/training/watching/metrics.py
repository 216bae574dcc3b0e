"""Scalars of a training: loss by noise level, throughput, memory, time left."""

import resource
import time
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger
from torch import Tensor

from hi3d.config import config_to_dict
from hi3d.errors import InputError
from hi3d.training.experiment import Experiment
from hi3d.training.watching.throughput import CountOperations, device_peak_tflops

SIGMA_EDGES = (0.5, 2.0, 8.0, 32.0)
"""Between the buckets of noise levels whose losses are logged apart."""
SIGMA_BUCKETS = ("0_to_0.5", "0.5_to_2", "2_to_8", "8_to_32", "above_32")


def build_logger(experiment: Experiment, output: Path) -> Logger:
    """TensorBoard's files in `logs/`, or Weights & Biases.

    Raises:
        InputError: the logger is unknown, or wandb is missing.
    """
    kind = experiment.trainer.logger
    if kind == "tensorboard":
        return TensorBoardLogger(output, name="", version="logs")
    if kind != "wandb":
        raise InputError(f"trainer.logger={kind}: choose tensorboard or wandb")
    if find_spec("wandb") is None:
        raise InputError("trainer.logger=wandb needs wandb: pip install 'hi3d[wandb]'")
    return WandbLogger(
        name=output.name, save_dir=output, project="hi3d", config=config_to_dict(experiment)
    )


def losses_by_sigma(sigma: Tensor, losses: Tensor) -> dict[str, float]:
    """Mean loss of each bucket of noise levels that has any.

    Args:
        sigma: [N].
        losses: [N] of the same videos.
    """
    bucket = torch.bucketize(sigma, torch.tensor(SIGMA_EDGES).to(sigma), right=True)
    return {
        f"train/loss_sigma_{SIGMA_BUCKETS[i]}": float(losses[bucket == i].mean())
        for i in bucket.unique().tolist()
    }


def memory_gb() -> float:
    """Largest memory so far: of the device's tensors with CUDA, else of the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


class LogScalars(Callback):
    """Logs what has happened since the last line of the log, every so many optimizer steps.

    Loss by noise level, orbits per second of all processes, memory, hours left, and for a device
    whose peak is known the model's operations per second and their share of it (MFU). What steps
    leave stays on the device until then.
    """

    def __init__(self, experiment: Experiment):
        """Args: experiment: its batch size, and how often."""
        self.batch_size = experiment.data.batch_size
        self.every_steps = experiment.trainer.log_every
        self.collected: dict[str, list[Tensor]] = defaultdict(list)
        self.peak_tflops = experiment.trainer.peak_tflops
        recomputed = bool(getattr(experiment, "gradient_checkpointing", False))
        self.operations = CountOperations(experiment.trainer.accumulate, recomputed)

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Start the clock."""
        self.peak_tflops = self.peak_tflops or device_peak_tflops(module.device)
        self._begin(trainer)

    def on_train_batch_start(
        self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Count the first step's operations, where it is known what the device can do."""
        if self.peak_tflops and not hasattr(trainer.strategy, "device_mesh"):
            self.operations.on_train_batch_start(trainer, module, batch, batch_idx)

    def on_before_backward(self, *_: Any) -> None:
        """The forward pass is done."""
        self.operations.on_before_backward()

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, *_: Any
    ) -> None:
        """Collect, and log at the end of an optimizer step."""
        self.operations.on_train_batch_end()
        for name, value in getattr(module, "losses_of_videos", {}).items():
            self.collected[name].append(value)
        self.num_orbits += self.batch_size * trainer.world_size
        if trainer.global_step - self.step >= self.every_steps:
            for logger in trainer.loggers:
                logger.log_metrics(self.scalars(trainer), trainer.global_step)
            self._begin(trainer)

    def scalars(self, trainer: pl.Trainer) -> dict[str, float]:
        """All of them, by name."""
        seconds = time.monotonic() - self.start
        pace = seconds / (trainer.global_step - self.step)
        found = {
            "speed/orbits_per_second": self.num_orbits / seconds,
            "speed/seconds_per_step": pace,
            "speed/hours_left": pace * (trainer.max_steps - trainer.global_step) / 3600,
            "speed/memory_gb": memory_gb(),
        }
        if self.peak_tflops and self.operations.model_tflop_per_step:
            used = self.operations.model_tflop_per_step / pace
            found |= {"speed/model_tflops": used, "speed/mfu": used / self.peak_tflops}
        if self.collected:
            sigma, losses = (torch.cat(self.collected[name]) for name in ("sigma", "loss"))
            found |= losses_by_sigma(sigma, losses)
        return found

    def _begin(self, trainer: pl.Trainer) -> None:
        self.collected.clear()
        self.num_orbits = 0
        self.step = trainer.global_step
        self.start = time.monotonic()
