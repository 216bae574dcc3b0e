"""One seed, or a list of them for several results of one photo."""

from collections.abc import Sequence
from typing import Any

from hi3d.config import check_seed, shortened
from hi3d.errors import InputError

MAX_SEEDS = 64


def seeds_in(seed: Any) -> list[int]:
    """The seeds of a setting.

    Args:
        seed: a whole number, or a list of 1 to 64 different ones, each 0 to 2^63 - 1.

    Raises:
        InputError: anything else.
    """
    seeds = list(seed) if isinstance(seed, Sequence) and not isinstance(seed, str) else [seed]
    for one in seeds:
        if isinstance(one, bool) or not isinstance(one, int):
            raise InputError(
                f"seed is {shortened(seed)}: give a whole number, or a list such as [0,1,2,3]"
            )
        check_seed(one)
    if not 1 <= len(seeds) <= MAX_SEEDS or len(set(seeds)) < len(seeds):
        raise InputError(f"seed is {shortened(seed)}: give 1 to {MAX_SEEDS} different seeds")
    return seeds


def one_seed(seed: Any) -> int:
    """The only seed of a setting.

    Raises:
        InputError: it is no seed, or there are several.
    """
    seeds = seeds_in(seed)
    if len(seeds) > 1:
        raise InputError(
            f"seed is {shortened(seed)}: one result has one seed; scripts/generate.py takes several"
        )
    return seeds[0]
