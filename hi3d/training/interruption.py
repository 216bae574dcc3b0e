"""Stopping a training: by a signal, at the end of a batch; or since its numbers are no numbers."""

import signal
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback


class Interrupted(BaseException):
    """A signal asked the training to stop."""

    def __init__(self, number: int):
        """Args: number: of the signal."""
        super().__init__(signal.Signals(number).name)
        self.number = number


class NonFiniteError(RuntimeError):
    """Loss or gradient were NaN or infinite in too many steps in a row."""


class StopOnSignal(Callback):
    """SIGINT and SIGTERM end the training after the batch, also of a validation.

    A second signal of the same kind acts at once, as if there were no training.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Take the signals over."""
        if trainer.received_sigterm:
            self.received = signal.SIGTERM
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._receive)

    def _receive(self, number: int, _: Any) -> None:
        if self.received is not None:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.received = number

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Stop between batches."""
        self._stop(trainer)

    def on_validation_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Stop within a validation."""
        self._stop(trainer)

    def _stop(self, trainer: pl.Trainer) -> None:
        received = self.received
        if trainer.world_size > 1:  # all processes stop in the same place
            anywhere = trainer.strategy.reduce_boolean_decision(received is not None, all=False)
            received = (received or signal.SIGTERM) if anywhere else None
        if received is not None:
            raise Interrupted(received)

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Give the signals back."""
        self._give_back()

    def on_exception(self, trainer: pl.Trainer, *_: Any) -> None:
        """Give the signals back."""
        self._give_back()

    def _give_back(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
