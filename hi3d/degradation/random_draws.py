"""Random numbers of a video: one for all frames or one per frame, from one generator."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hi3d.errors import InputError

Range = tuple[float, float]
MAX_WEIGHT = 1e6


@dataclass
class SharedDraws:
    """What is drawn once per video (true) and what per frame (false), as the released code does."""

    masks: bool = False
    """Which frames are masked, and the regions."""
    steps: bool = True
    """Whether a pass blurs, adds noise, compresses."""
    kernels: bool = False
    """Size, kind, widths, angle and shape of the blur kernels."""
    resize_factor: bool = True
    """Enlarging, shrinking or keeping, and how much."""
    resize_mode: bool = True
    """Interpolation of each resize."""
    noise_kind: bool = True
    """Gaussian or Poisson."""
    noise_strength: bool = False
    """Sigma of Gaussian and scale of Poisson noise. The noise itself is always per frame."""
    grey_noise: bool = False
    """Whether the noise is the same in all channels."""
    jpeg_quality: bool = False
    """Quality of each compression."""
    order: bool = True
    """Whether the second compression comes before or after the bottleneck and final sinc."""
    final_sinc: bool = False
    """Whether there is a final sinc filter, its size and cutoff."""


class Draws:
    """Draws [V] for the frames of one video; a shared kind takes one number for all of them."""

    def __init__(self, num_views: int, shared: SharedDraws, generator: torch.Generator):
        """Args:
        num_views: V.
        shared: which kinds are shared.
        generator: on the CPU.
        """
        self.num_views = num_views
        self.shared = shared
        self.generator = generator

    def uniform(self, kind: str, limits: Range = (0.0, 1.0)) -> Tensor:
        """Draws [V] from U[limits]; `kind` is a field of `SharedDraws`, here and below."""
        count = 1 if getattr(self.shared, kind) else self.num_views
        low, high = limits
        values = low + (high - low) * torch.rand(count, generator=self.generator)
        return values.expand(self.num_views)

    def happens(self, kind: str, probability: float) -> Tensor:
        """Booleans [V], true with the given chance in [0, 1]."""
        return self.uniform(kind) < probability

    def choice(self, kind: str, weights: list[float]) -> Tensor:
        """Indices [V] int64 into `weights`, drawn in proportion to them."""
        bounds = torch.tensor(weights, dtype=torch.float64).cumsum(0)
        index = torch.searchsorted(bounds, self.uniform(kind).double() * bounds[-1], right=True)
        return index.clamp_max(len(weights) - 1)

    def integer(self, kind: str, low: int, high: int) -> Tensor:
        """Draws [V] int64 from low, ..., high."""
        return low + self.choice(kind, [1.0] * (high - low + 1))


def check_range(name: str, limits: tuple[float, float], minimum: float, maximum: float) -> None:
    """Check the two ends of a range, both included.

    Args:
        name: of the setting, for the message.
        limits: low and high.
        minimum: of `low`.
        maximum: of `high`.

    Raises:
        InputError: not minimum <= low <= high <= maximum.
    """
    if len(limits) != 2 or not minimum <= limits[0] <= limits[1] <= maximum:
        raise InputError(
            f"{name} {list(limits)}: give two numbers in [{minimum:g}, {maximum:g}], the smaller "
            "one first"
        )


def check_probability(name: str, value: float) -> None:
    """Check a probability.

    Args:
        name: of the setting, for the message.
        value: in [0, 1].

    Raises:
        InputError: it is not.
    """
    if not 0 <= value <= 1:
        raise InputError(f"{name} {value}: give a probability in [0, 1]")


def check_weights(name: str, weights: Mapping[str, float], choices: Sequence[str]) -> None:
    """Check the weights of a choice; a choice without a weight is never taken.

    Args:
        name: of the setting, for the message.
        weights: by choice, in any unit.
        choices: the valid keys.

    Raises:
        InputError: a key is unknown, a weight is negative, or none is positive.
    """
    values = weights.values()
    in_range = all(0 <= value <= MAX_WEIGHT for value in values)
    if set(weights) - set(choices) or not in_range or not any(values):
        raise InputError(
            f"{name} {dict(weights)}: give weights from 0 to {MAX_WEIGHT:g}, one of them positive, "
            f"to {', '.join(choices)}"
        )
