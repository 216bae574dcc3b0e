"""Operations of a training step, and the share of the device's peak that they use."""

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch.utils.flop_counter import FlopCounterMode

from hi3d.errors import InputError

PEAK_TFLOPS = {"V100": 125.0, "A100": 312.0, "H100": 989.0, "H200": 989.0, "B200": 2250.0}
"""Dense 16-bit matrix products per second, 10^12, by the vendor's data sheets."""


def peak_tflops(hardware: str) -> float:
    """Of a device by its name.

    Raises:
        InputError: it is not in the table.
    """
    if hardware not in PEAK_TFLOPS:
        raise InputError(f"trainer.hardware={hardware}: choose {', '.join(PEAK_TFLOPS)}")
    return PEAK_TFLOPS[hardware]


def device_peak_tflops(device: torch.device) -> float | None:
    """Of the device at hand; None for a CPU, or one that is not in the table."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for key, peak in PEAK_TFLOPS.items() if key in name), None)


class CountOperations(Callback):
    """Counts the operations of the first optimizer step, forward and backward passes."""

    def __init__(self, accumulate: int, recomputed: bool = False) -> None:
        """Args:
        accumulate: batches of an optimizer step.
        recomputed: the backward pass repeats the forward pass (gradient checkpointing): a third of
            its operations, which are not the model's.
        """
        self.accumulate = accumulate
        self.recomputed = recomputed
        self.tflop_per_step = 0.0
        """All that are done."""
        self.model_tflop_per_step = 0.0
        """Without those that are done again."""
        self._counter: FlopCounterMode | None = None
        self._forward = 0.0

    def on_train_batch_start(
        self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Start the count with the first batch."""
        if self._counter is None and not self.tflop_per_step:
            self._counter = FlopCounterMode(display=False)
            self._counter.__enter__()

    def on_before_backward(self, *_: Any) -> None:
        """Tell both passes apart."""
        if self._counter is not None:
            self._forward = self._counter.get_total_flops() / 1e12

    def on_train_batch_end(self, *_: Any) -> None:
        """Stop it."""
        if self._counter is None:
            return
        self._counter.__exit__(None, None, None)
        total = self._counter.get_total_flops() / 1e12
        again = (total - self._forward) / 3 if self.recomputed else 0.0
        self.tflop_per_step = total * self.accumulate
        self.model_tflop_per_step = (total - again) * self.accumulate
        self._counter = None
