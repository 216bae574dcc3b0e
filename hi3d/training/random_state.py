"""Random numbers of a training, each a function of where it stands and of nothing that ran before.

A resumed run draws what the whole run would have drawn, processes draw differently, and what else
draws (validation, a longer first epoch) changes nothing. Orbits are counted through all processes
and micro-batches of a step, and each has its own numbers: two processes with B orbits each draw
what one process draws for 2 B.
"""

import hashlib
from dataclasses import dataclass

import torch


def draw_seed(seed: int, stream: str, *position: int | str) -> int:
    """A seed of 63 bits for one purpose at one place.

    Args:
        seed: of the experiment.
        stream: what is drawn: `sigma`, `noise`, ...
        position: phase, step and number of the orbit within the step; or another place.
    """
    key = repr((seed, stream, *position)).encode()
    return int.from_bytes(hashlib.sha256(key).digest()[:8], "big") >> 1


def draw_generator(seed: int, stream: str, *position: int | str) -> torch.Generator:
    """A fresh generator on the CPU, seeded by `draw_seed`, so every device draws alike."""
    return torch.Generator().manual_seed(draw_seed(seed, stream, *position))


@dataclass(frozen=True)
class BatchPosition:
    """Which orbits of a training a batch holds."""

    phase: str = "train"
    """`train`, `validation` or `samples`."""
    step: int = 0
    """Optimizer steps done; 0 in a validation, so that every one draws alike."""
    first: int = 0
    """Number of the batch's first orbit within the step (of all processes and micro-batches) or
    within the validation set."""

    @classmethod
    def of_training(
        cls, step: int, micro_batch: int, rank: int, world_size: int, batch_size: int
    ) -> "BatchPosition":
        """Of one micro-batch of a step on one process; all have `batch_size` orbits."""
        return cls("train", step, (micro_batch * world_size + rank) * batch_size)

    @classmethod
    def of_validation(
        cls, batch: int, rank: int, world_size: int, batch_size: int
    ) -> "BatchPosition":
        """Of one batch of a validation on one process."""
        return cls("validation", 0, (batch * world_size + rank) * batch_size)

    def generators(self, seed: int, stream: str, count: int) -> list[torch.Generator]:
        """A fresh generator for each of the batch's `count` orbits."""
        return [
            draw_generator(seed, stream, self.phase, self.step, self.first + i)
            for i in range(count)
        ]
