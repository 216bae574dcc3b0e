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

from hi3d.errors import InputError
from hi3d.training.experiment import Experiment, OptimConfig

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
        self.ema = EMAModel(network.parameters(), decay=decay, use_ema_warmup=True, power=0.75)
        self.use_ema = decay > 0
        self.average_is_in = False

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

    def on_fit_start(self) -> None:
        """Put the moving average where the network is."""
        self.ema.to(self.device)

    def on_before_zero_grad(self, optimizer: torch.optim.Optimizer) -> None:
        """Update the moving average once per optimiser step."""
        if self.use_ema and self.trainer.state.fn == "fit":
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
        if self.use_ema:
            checkpoint["ema"] = self.ema.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the moving average back."""
        if self.use_ema and "ema" in checkpoint:
            self.ema.load_state_dict(checkpoint["ema"])

    def log_losses(self, stage: str, losses: dict[str, torch.Tensor], batch_size: int) -> None:
        """Log each loss as `train/loss_x` or `val/loss_x`."""
        for name, value in losses.items():
            self.log(
                f"{stage}/{name}", value.detach(), batch_size=batch_size, sync_dist=stage == "val"
            )
