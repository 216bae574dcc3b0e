"""What a training will take, from two steps of it: memory by purpose, seconds, days."""

import time
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn

from hi3d.progress import console
from hi3d.training.experiment import Experiment
from hi3d.training.module import TrainingModule
from hi3d.training.watching.metrics import memory_gb
from hi3d.training.watching.throughput import CountOperations, peak_tflops

USED_SHARE = 0.4
"""Of the peak, that video UNets of this kind reach in training; what is projected rests on it."""
NUM_STEPS = 2
BYTES_OF_MOMENTS = {"adamw": 8, "adamw_8bit": 2}
"""Of an optimizer, for each trained parameter."""


@dataclass
class Forecast:
    """What two steps of a training told."""

    memory_gb: dict[str, float]
    """By purpose, on one device without sharding."""
    measured_gb: float
    """Largest use during both steps, here."""
    seconds_per_step: float
    """Of the second step, here."""
    tflop_per_step: float
    """Forward and backward passes of an optimizer step on one device."""


def planned_memory_gb(module: TrainingModule, optimizer: str) -> dict[str, float]:
    """Memory that a training holds all the time, by purpose (GB)."""

    def size(network: nn.Module | None, trained: bool = False) -> float:
        parameters = network.parameters() if network is not None else ()
        wanted = [p for p in parameters if p.requires_grad or not trained]
        return sum(p.numel() * p.element_size() for p in wanted) / 1e9

    trained = sum(p.numel() for p in module.network.parameters() if p.requires_grad)
    gradients = size(module.network, trained=True)
    return {
        "weights": size(module.network),
        "gradients": gradients,
        "optimizer": trained * BYTES_OF_MOMENTS[optimizer] / 1e9,
        "moving average": gradients if module.average is not None else 0.0,
        "frozen networks": size(module.frozen),
    }


class MeasureSteps(CountOperations):
    """Counts the operations of the first step and times the second."""

    def __init__(self, accumulate: int) -> None:
        """Args: accumulate: batches of an optimizer step."""
        super().__init__(accumulate)
        self.seconds = 0.0
        self._start = 0.0

    def on_train_batch_start(
        self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Start the count with the first batch, the clock with each step."""
        super().on_train_batch_start(trainer, module, batch, batch_idx)
        if batch_idx % self.accumulate == 0:
            self._start = time.perf_counter()

    def on_train_batch_end(self, *_: Any) -> None:
        """Stop both."""
        super().on_train_batch_end()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds = time.perf_counter() - self._start


def forecast(module: TrainingModule, steps: MeasureSteps, experiment: Experiment) -> Forecast:
    """Put together what was planned and measured."""
    return Forecast(
        planned_memory_gb(module, experiment.optim.optimizer),
        memory_gb(),
        steps.seconds,
        steps.tflop_per_step,
    )


def projected_days(found: Forecast, max_steps: int, hardware: str) -> float:
    """Days of a training on devices of one kind, by its operations and `USED_SHARE`."""
    seconds = found.tflop_per_step / (peak_tflops(hardware) * USED_SHARE)
    return seconds * max_steps / 86400


def print_forecast(found: Forecast, experiment: Experiment) -> None:
    """A table for people."""
    trainer = experiment.trainer
    lines = [f"{name:>16} {size:8.2f} GB" for name, size in found.memory_gb.items()]
    lines += [
        f"{'together':>16} {sum(found.memory_gb.values()):8.2f} GB, and activations",
        f"{'measured here':>16} {found.measured_gb:8.2f} GB",
        f"{found.tflop_per_step:.3g} TFLOP a step and device; here {found.seconds_per_step:.3g} s "
        f"a step, {found.seconds_per_step * trainer.max_steps / 86400:.3g} days for "
        f"{trainer.max_steps} steps",
        f"on {trainer.hardware} at {USED_SHARE:.0%} of its peak: "
        f"{projected_days(found, trainer.max_steps, trainer.hardware):.3g} days",
    ]
    console.print("\n".join(lines), markup=False, highlight=False)
