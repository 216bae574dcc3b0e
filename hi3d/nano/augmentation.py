"""Orbits of other objects made from an orbit: of its mirror image, of its colors exchanged."""

from collections.abc import Sequence

import torch
from torch import Tensor

from hi3d.training.module import Batch


def augment_orbits(
    batch: Batch,
    mirror_probability: float,
    permute_colors_probability: float,
    generators: Sequence[torch.Generator],
) -> Batch:
    """Mirror some orbits and exchange the colors of some.

    Args:
        batch: `rgb` [B, V, 3, H, W], V views evenly around, and what goes with them.
        mirror_probability: share of orbits that are mirrored.
        permute_colors_probability: share of orbits whose channels are put in a random order.
        generators: one for each orbit, on the CPU.

    Returns:
        A new batch with new `rgb`, `alpha` and `depth`; `elevation_deg` stays true.
    """
    names = [name for name in ("rgb", "alpha", "depth") if name in batch]
    views: Batch = {name: batch[name].clone() for name in names}
    for i, generator in enumerate(generators):
        if torch.rand((), generator=generator) < mirror_probability:
            for value in views.values():
                value[i] = mirror_orbit(value[i])
        if torch.rand((), generator=generator) < permute_colors_probability:
            views["rgb"][i] = views["rgb"][i][:, torch.randperm(3, generator=generator)]
    return {**batch, **views}


def mirror_orbit(views: Tensor) -> Tensor:
    """The orbit of the object mirrored across the plane of view 0's axis and the up axis.

    View k of it is view V - k of the object, flipped.

    Args:
        views: [V, ..., W], V views evenly around.
    """
    return torch.cat([views[:1], views[1:].flip(0)]).flip(-1)
