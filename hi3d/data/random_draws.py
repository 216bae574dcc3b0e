"""Random numbers of a video: one for all frames or one per frame, from one generator."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hi3d.errors import InputError

Range = tuple[float, float]


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
        """[V] draws from U[limits]."""
        count = 1 if getattr(self.shared, kind) else self.num_views
        low, high = limits
        values = low + (high - low) * torch.rand(count, generator=self.generator)
        return values.expand(self.num_views)

    def happens(self, kind: str, probability: float) -> Tensor:
        """[V] bool, true with the given chance."""
        return self.uniform(kind) < probability

    def choice(self, kind: str, weights: list[float]) -> Tensor:
        """[V] int64 indices into `weights`, drawn in proportion to them."""
        bounds = torch.tensor(weights, dtype=torch.float64).cumsum(0)
        index = torch.searchsorted(bounds, self.uniform(kind).double() * bounds[-1], right=True)
        return index.clamp_max(len(weights) - 1)

    def integer(self, kind: str, low: int, high: int) -> Tensor:
        """[V] int64 draws from low, ..., high."""
        return low + self.choice(kind, [1.0] * (high - low + 1))


def check_range(
    name: str, limits: tuple[float, float], minimum: float, maximum: float | None = None
) -> None:
    """Raise `InputError` unless minimum <= low <= high <= maximum."""
    low, high = limits
    if not minimum <= low <= high or (maximum is not None and high > maximum):
        bounds = f"from {minimum:g}" if maximum is None else f"in [{minimum:g}, {maximum:g}]"
        raise InputError(f"{name} {list(limits)}: give two numbers {bounds}, the smaller one first")


def check_probability(name: str, value: float) -> None:
    """Raise `InputError` unless the value lies in [0, 1]."""
    if not 0 <= value <= 1:
        raise InputError(f"{name} {value}: give a probability in [0, 1]")
