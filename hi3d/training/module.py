"""What every training shares: optimizer, schedule, moving average, lean checkpoints."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn

from hi3d.config import config_to_dict
from hi3d.errors import InputError
from hi3d.training.average import MovingAverage, is_sharded, whole
from hi3d.training.checkpoints import git_revision
from hi3d.training.experiment import Experiment, OptimConfig
from hi3d.training.interruption import NonFiniteError
from hi3d.training.random_state import BatchPosition, draw_seed
from hi3d.training.scaling.strategies import ShardedStrategy, can_skip, shard
from hi3d.training.scaling.trainable import build_optimizer

Batch = dict[str, Any]
"""rgb [B, V, 3, H, W], alpha [B, V, 1, H, W], elevation_deg [B], uid, depth?."""


def take_orbits(batch: Batch, indices: Sequence[int]) -> Batch:
    """A batch of some of a batch's orbits."""
    taken: Batch = {}
    for name, value in batch.items():
        taken[name] = (
            value[list(indices)] if isinstance(value, torch.Tensor) else [value[i] for i in indices]
        )
    return taken


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
        network: its parameters that require gradients are trained.
        """
        super().__init__()
        self.experiment = experiment
        self.network = network
        self.network_class: Any = type(network)
        self.frozen: Any = nn.ModuleDict()
        self.strict_loading = False  # checkpoints hold the trained network only
        decay = experiment.optim.ema_decay
        self.average = MovingAverage(network, decay) if decay > 0 else None
        self.num_skipped = 0
        self.skipped_in_a_row = 0
        self._losses_are_finite = True
        self.position = BatchPosition()

    @abstractmethod
    def export(self, folder: Path, network: Any) -> None:
        """Write a model folder with the trained network, as `exported_network` gives it."""

    def exported_network(self) -> Any:
        """The network as pipelines load it: whole on every process, without adapters."""
        if not is_sharded(self.network):
            return self.network
        return self.rebuilt({name: whole(v) for name, v in self.network.state_dict().items()})

    def rebuilt(self, state: dict[str, torch.Tensor]) -> Any:
        """A network of the trained one's class and size that holds the tensors of `state`."""
        with torch.device("meta"):
            network = self.network_class.from_config(self.network.config)
        network.load_state_dict(state, assign=True)
        return network.eval()

    def freeze(self, **networks: nn.Module) -> None:
        """Keep networks that are used and not trained."""
        for name, network in networks.items():
            self.frozen[name] = network.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "TrainingModule":
        """Frozen networks stay in evaluation mode."""
        super().train(mode)
        self.frozen.eval()
        return self

    def configure_model(self) -> None:
        """Cut the network over the devices, where the strategy does."""
        if isinstance(self.trainer.strategy, ShardedStrategy):
            shard(self.network, self.trainer.strategy.device_mesh)
            if self.average is not None:
                self.average.restart()

    def configure_optimizers(self) -> Any:
        """AdamW over the network, the schedule stepped every optimizer step."""
        optim, max_steps = self.experiment.optim, self.experiment.trainer.max_steps
        optimizer = build_optimizer(
            [p for p in self.network.parameters() if p.requires_grad],
            optim.optimizer,
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

    def generators(self, stream: str, batch_size: int) -> list[torch.Generator]:
        """A fresh generator for each orbit of the batch; the same for the same `stream`."""
        return self.position.generators(self.experiment.seed, stream, batch_size)

    def generator(self, stream: str) -> torch.Generator:
        """A fresh generator for what a batch draws once."""
        return self.generators(stream, 1)[0]

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Key the draws by step, process and micro-batch; dropout draws with torch's generators."""
        trainer, experiment = self.trainer, self.experiment
        self.position = BatchPosition.of_training(
            trainer.global_step,
            batch_idx % experiment.trainer.accumulate,
            trainer.global_rank,
            trainer.world_size,
            experiment.data.batch_size,
        )
        position = self.position
        torch.manual_seed(draw_seed(experiment.seed, "dropout", position.step, position.first))

    def on_validation_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Key the draws by the orbits, so that every validation draws alike."""
        rank, world_size = self.trainer.global_rank, self.trainer.world_size
        batch_size = self.experiment.data.batch_size
        self.position = BatchPosition.of_validation(batch_idx, rank, world_size, batch_size)

    def on_fit_start(self) -> None:
        """Put the moving average where the network is."""
        if self.average is not None:
            self.average.to(self.device)

    def on_before_backward(self, loss: torch.Tensor) -> None:
        """Note whether the loss is a number."""
        self._losses_are_finite &= bool(loss.isfinite().all())

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Without gradients an optimizer leaves weights and moments alone: skip bad steps so.

        Raises:
            NonFiniteError: `optim.max_skipped` steps in a row were skipped.
        """
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        norm = whole(torch.nn.utils.get_total_norm(gradients))
        self.log("train/gradient_norm", norm)
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
        if not can_skip(self.trainer.strategy):
            limit = 1
        if self.skipped_in_a_row >= limit:
            raise NonFiniteError(
                f"loss or gradient was NaN or infinite in {limit} steps in a row, the last of them "
                f"step {self.trainer.global_step}: lower optim.lr or check the data"
            )

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """One step, then the moving average over the weights after it."""
        super().optimizer_step(*args, **kwargs)
        if self.average is not None and not self.skipped_in_a_row:
            self.average.update()

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
        if self.average is None or self.average.is_in:
            return False
        self.average.exchange()
        return True

    def _swap_average_out(self) -> None:
        if self.average is not None and self.average.is_in:
            self.average.exchange()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave the frozen networks out and put the moving average in."""
        state = checkpoint["state_dict"]
        for key in [key for key in state if key.startswith("frozen.")]:
            del state[key]
        if self.average is not None:
            checkpoint["ema"] = self.average.state_dict()
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
        if self.average is not None and "ema" in checkpoint:
            self.average.load_state_dict(checkpoint["ema"])

    def log_losses(self, stage: str, losses: dict[str, torch.Tensor], batch_size: int) -> None:
        """Log each loss as `train/loss_x` or `val/loss_x`."""
        for name, value in losses.items():
            self.log(
                f"{stage}/{name}", value.detach(), batch_size=batch_size, sync_dist=stage == "val"
            )
