"""Progress with time left, and the export of a model folder."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from rich.progress import Progress, TaskID

from hi3d.diffusion.folders.model_card import write_model_card
from hi3d.progress import console, progress_bar
from hi3d.training.module import TrainingModule
from hi3d.training.watching.model_card import training_card


class StepProgress(Callback):
    """One bar over all steps, with the running loss and the time left; of the first process."""

    def __init__(self) -> None:
        self.bar: Progress | None = None
        self.task = TaskID(0)
        self.loss: float | None = None

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Open the bar."""
        if not trainer.is_global_zero:
            return
        self.bar = progress_bar()
        self.bar.start()
        self.task = self.bar.add_task(
            "training", total=trainer.max_steps, completed=trainer.global_step, status=""
        )

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, *_: Any
    ) -> None:
        """Advance, with an average of the loss over about 50 steps."""
        loss = float(outputs["loss"])
        self.loss = loss if self.loss is None else 0.98 * self.loss + 0.02 * loss
        if self.bar is not None:
            status = f"loss {self.loss:.4f}"
            self.bar.update(self.task, completed=trainer.global_step, status=status)

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Print the validation scores."""
        scores = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
        if scores and trainer.is_global_zero and not trainer.sanity_checking:
            text = ", ".join(f"{name[4:]} {value:.4f}" for name, value in sorted(scores.items()))
            console.print(f"step {trainer.global_step} validation: {text}")

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Close the bar."""
        if self.bar is not None:
            self.bar.stop()

    def on_exception(self, trainer: pl.Trainer, *_: Any) -> None:
        """Close the bar so that the message after it is readable."""
        if self.bar is not None:
            self.bar.stop()


class ExportModel(Callback):
    """Writes `model/` with the averaged weights at every validation and at the end."""

    def __init__(self, folder: Path):
        """Args: folder: the model folder."""
        self.folder = folder

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Export what was just validated, to look at while training goes on."""
        if not trainer.sanity_checking:
            self._export(trainer, module)

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Export the final weights."""
        self._export(trainer, module)

    def _export(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if not isinstance(module, TrainingModule):
            return
        with module.averaged_weights():
            network = module.exported_network()  # of all processes
            if trainer.is_global_zero:
                with replaced_folder(self.folder) as folder:
                    module.export(folder, network)
                    card = training_card(module.experiment, trainer.global_step, trainer.world_size)
                    write_model_card(folder, card)


@contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """A new folder that takes the place of `folder` when the block ends well.

    Until then, and after an error or a kill, the one before is unharmed.
    """
    partial, before = (folder.with_name(f".{folder.name}.{end}") for end in ("part", "before"))
    for leftover in (partial, before):
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    if folder.exists():
        folder.rename(before)
    partial.rename(folder)
    shutil.rmtree(before, ignore_errors=True)
