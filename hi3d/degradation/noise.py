"""Gaussian and Poisson noise, the same on every device for one seed.

Poisson counts come from 16-bit random numbers through a table of quantiles for the 256 brightness
levels, which takes half the time of `torch.poisson` on a CPU and gives a GPU the same counts. The
tails end at a probability of 1 in 65,536.
"""

import math
from functools import lru_cache

import torch
from torch import Tensor

NUM_QUANTILES = 65_536
NUM_LEVELS = 256
GREY_WEIGHTS = (0.2989, 0.587, 0.114)
"""Luma (ITU-R BT.601)."""


def random_bits(count: int, generator: torch.Generator) -> Tensor:
    """Draws [count] int32 from 0, ..., 65535, on the CPU."""
    words = torch.empty(-(-count // 4), dtype=torch.int64)
    words.random_(-(2**63), None, generator=generator)
    return words.view(torch.int16)[:count].to(torch.int32).add_(NUM_QUANTILES // 2)


def add_gaussian_noise(
    image: Tensor,  # [3, H, W]
    sigma: float,
    is_grey: bool,
    generator: torch.Generator,
) -> Tensor:
    """Add normal noise and clamp.

    Args:
        image: [3, H, W].
        sigma: standard deviation in the image's unit.
        is_grey: the same noise in all channels.
        generator: on the CPU.

    Returns:
        [3, H, W] in [0, 1].
    """
    shape = (1 if is_grey else 3, *image.shape[1:])
    noise = torch.randn(shape, generator=generator).to(image)
    return noise.mul_(sigma).add(image).clamp_(0, 1)


def add_poisson_noise(
    image: Tensor,  # [3, H, W]
    scale: float,
    is_grey: bool,
    generator: torch.Generator,
    photons: float | None = None,
) -> Tensor:
    """Add `scale` times the shot noise of the 8-bit image, and clamp.

    Args:
        image: [3, H, W].
        scale: 1 gives the noise that counting photons has.
        is_grey: noise of the gray image, the same in all channels.
        generator: on the CPU.
        photons: mean count at white; None takes the number of distinct 8-bit values of the image,
            rounded up to a power of two, as Real-ESRGAN does.

    Returns:
        [3, H, W] in [0, 1].
    """
    counted = image
    if is_grey:
        counted = torch.einsum("c,chw->hw", torch.tensor(GREY_WEIGHTS).to(image), image)[None]
    levels = (counted.clamp(0, 1) * (NUM_LEVELS - 1)).round_().to(torch.int32)
    if photons is None:
        distinct = int(torch.bincount(levels.flatten(), minlength=NUM_LEVELS).count_nonzero())
        photons = float(2 ** math.ceil(math.log2(distinct)))
    bits = random_bits(levels.numel(), generator).to(image.device)
    table = _poisson_quantiles(photons, str(image.device))
    counts = table.index_select(0, bits.add_(levels.flatten() * NUM_QUANTILES)).view(levels.shape)
    noise = counts.to(image).div_(photons).sub_(levels.to(image).div_(NUM_LEVELS - 1))
    return noise.mul_(scale).add(image).clamp_(0, 1)


@lru_cache(maxsize=4)
def _poisson_quantiles(photons: float, device: str) -> Tensor:
    """Poisson counts by level and share: entry `level * 65536 + share` (33 MB).

    The mean of level i is `i / 255 * photons`.
    """
    means = torch.arange(NUM_LEVELS, dtype=torch.float64)[:, None] / (NUM_LEVELS - 1) * photons
    counts = torch.arange(int(photons + 10 * math.sqrt(photons) + 20), dtype=torch.float64)
    cumulative = torch.special.gammaincc(counts + 1, means)  # P(X <= count)
    bounds = (cumulative * NUM_QUANTILES).round().long()
    bounds[:, -1] = NUM_QUANTILES
    shares = bounds.diff(dim=1, prepend=torch.zeros(NUM_LEVELS, 1, dtype=torch.long))
    values = counts.to(torch.int16).expand(NUM_LEVELS, -1)
    return values.flatten().repeat_interleave(shares.flatten()).to(device)
