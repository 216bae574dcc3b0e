"""Random numbers of a training, each a function of where it stands and of nothing that ran before.

A resumed run draws what the whole run would have drawn, processes draw differently, and what else
draws (validation, a longer first epoch) changes nothing.
"""

import hashlib

import torch


def draw_seed(seed: int, stream: str, *position: int | str) -> int:
    """A seed of 63 bits for one purpose at one place.

    Args:
        seed: of the experiment.
        stream: what is drawn: `sigma`, `noise`, ...
        position: global step, rank and number of the micro-batch; or another place.
    """
    key = repr((seed, stream, *position)).encode()
    return int.from_bytes(hashlib.sha256(key).digest()[:8], "big") >> 1


def draw_generator(seed: int, stream: str, *position: int | str) -> torch.Generator:
    """A fresh generator on the CPU, seeded by `draw_seed`, so every device draws alike."""
    return torch.Generator().manual_seed(draw_seed(seed, stream, *position))
