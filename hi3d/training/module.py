"""What every training shares: optimiser, schedule, moving average, lean checkpoints."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from diffusers.training_utils import EMAModel
from torch import nn

from hi3d.config import config_to_dict
from hi3d.errors import InputError
from hi3d.training.checkpoints import git_revision
from hi3d.training.experiment import Experiment, OptimConfig
from hi3d.training.interruption import NonFiniteError
from hi3d.training.random_state import draw_generator, draw_seed

Batch = dict[str, Any]
"""rgb [B, V, 3, H, W], alpha [B, V, 1, H, W], elevation_deg [B], uid, depth?."""


def learning_rate_factor(step: int, optim: OptimConfig, max_steps: int) -> float:
    """Factor on the learning rate: linear warm-up, then constant or cosine to zero.

    Raises:
        InputError: the schedule is unknown.
    """
    warmup = min(1.0, (step + 1) / (optim.warmup_steps + 1))
    if optim.schedule == "constant":
        return warmup
    if optim.schedule == "cosine":
        return warmup * 0.5 * (1 + math.cos(math.pi * min(step / max_steps, 1.0)))
    raise InputError(f"optim.schedule is '{optim.schedule}': choose constant or cosine")


class TrainingModule(pl.LightningModule, ABC):
    """A LightningModule that trains `network` and keeps frozen networks out of its checkpoints."""

    def __init__(self, experiment: Experiment, network: nn.Module):
        """Args:
        experiment: its `optim` and `trainer` say how.
        network: all its parameters are trained.
        """
        super().__init__()
        self.experiment = experiment
        self.network = network
        self.frozen: Any = nn.ModuleDict()
        self.strict_loading = False  # checkpoints hold the trained network only
        decay = experiment.optim.ema_decay
        self.use_ema = decay > 0
        self.ema: Any = None
        if self.use_ema:
            self.ema = EMAModel(network.parameters(), decay=decay, use_ema_warmup=True, power=0.75)
        self.average_is_in = False
        self.num_skipped = 0
        self.skipped_in_a_row = 0
        self._losses_are_finite = True
        self._position: tuple[int | str, ...] = (0, 0, 0)

    @abstractmethod
    def export(self, folder: Path) -> None:
        """Write the trained networks as a model folder."""

    def freeze(self, **networks: nn.Module) -> None:
        """Keep networks that are used and not trained."""
        for name, network in networks.items():
            self.frozen[name] = network.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "TrainingModule":
        """Frozen networks stay in evaluation mode."""
        super().train(mode)
        self.frozen.eval()
        return self

    def configure_optimizers(self) -> Any:
        """AdamW over the network, the schedule stepped every optimiser step."""
        optim, max_steps = self.experiment.optim, self.experiment.trainer.max_steps
        optimizer = torch.optim.AdamW(
            self.network.parameters(),
            lr=optim.lr,
            betas=(optim.betas[0], optim.betas[1]),
            weight_decay=optim.weight_decay,
        )
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate_factor(step, optim, max_steps)
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def generator(self, stream: str) -> torch.Generator:
        """A fresh generator for what is drawn in this batch; the same for the same `stream`."""
        return draw_generator(self.experiment.seed, stream, *self._position)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Key the draws by step, process and micro-batch; dropout draws with torch's generators."""
        micro_batch = batch_idx % self.experiment.trainer.accumulate
        self._position = (self.trainer.global_step, self.trainer.global_rank, micro_batch)
        torch.manual_seed(draw_seed(self.experiment.seed, "dropout", *self._position))

    def on_validation_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Key the draws by the batch, so that every validation draws alike."""
        self._position = ("validation", batch_idx, self.trainer.global_rank)

    def on_fit_start(self) -> None:
        """Put the moving average where the network is."""
        if self.use_ema:
            self.ema.to(self.device)

    def on_before_backward(self, loss: torch.Tensor) -> None:
        """Note whether the loss is a number."""
        self._losses_are_finite &= bool(loss.isfinite().all())

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Without gradients an optimiser leaves weights and moments alone: skip bad steps so.

        Raises:
            NonFiniteError: `optim.max_skipped` steps in a row were skipped.
        """
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        finite = self._losses_are_finite and bool(norm.isfinite())
        if self.trainer.world_size > 1:
            finite = self.trainer.strategy.reduce_boolean_decision(finite)
        self._losses_are_finite = True
        if finite:
            self.skipped_in_a_row = 0
            return
        self.num_skipped += 1
        self.skipped_in_a_row += 1
        for parameter in self.network.parameters():
            parameter.grad = None
        limit = self.experiment.optim.max_skipped
        if self.skipped_in_a_row >= limit:
            raise NonFiniteError(
                f"loss or gradient was NaN or infinite in {limit} steps in a row, the last of them "
                f"step {self.trainer.global_step}: lower optim.lr or check the data"
            )

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """One step, then the moving average over the weights after it."""
        super().optimizer_step(*args, **kwargs)
        if self.use_ema and not self.skipped_in_a_row:
            self.ema.step(self.network.parameters())

    def on_validation_start(self) -> None:
        """Validate the moving average."""
        self._swap_average_in()

    def on_validation_end(self) -> None:
        """Go back to the trained weights."""
        self._swap_average_out()

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """The network holds its moving average within the block, if there is an average."""
        swapped = self._swap_average_in()
        try:
            yield
        finally:
            if swapped:
                self._swap_average_out()

    def _swap_average_in(self) -> bool:
        if not self.use_ema or self.average_is_in:
            return False
        self.ema.store(self.network.parameters())
        self.ema.copy_to(self.network.parameters())
        self.average_is_in = True
        return True

    def _swap_average_out(self) -> None:
        if self.average_is_in:
            self.ema.restore(self.network.parameters())
            self.average_is_in = False

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave the frozen networks out and put the moving average in."""
        state = checkpoint["state_dict"]
        for key in [key for key in state if key.startswith("frozen.")]:
            del state[key]
        if self.average_is_in:  # within a validation the trained weights are put by
            names = [name for name, _ in self.network.named_parameters()]
            for name, value in zip(names, self.ema.temp_stored_params, strict=True):
                state[f"network.{name}"] = value
        if self.use_ema:
            checkpoint["ema"] = self.ema.state_dict()
        checkpoint["hi3d"] = {
            "config": config_to_dict(self.experiment),
            "git_revision": git_revision(),
            "seed": self.experiment.seed,
            "step": checkpoint["global_step"],
            "num_skipped": self.num_skipped,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the moving average back."""
        self.num_skipped = checkpoint.get("hi3d", {}).get("num_skipped", 0)
        if self.use_ema and "ema" in checkpoint:
            self.ema.load_state_dict(checkpoint["ema"])

    def log_losses(self, stage: str, losses: dict[str, torch.Tensor], batch_size: int) -> None:
        """Log each loss as `train/loss_x` or `val/loss_x`."""
        for name, value in losses.items():
            self.log(
                f"{stage}/{name}", value.detach(), batch_size=batch_size, sync_dist=stage == "val"
            )
