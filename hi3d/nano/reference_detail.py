"""Fine detail of the reference image for the views that look like it."""

import torch
import torch.nn.functional as F
from torch import Tensor

from hi3d.nano.base_orbit import repeat_around

CELL = 8
"""Pixels a side over which colors are averaged: what is finer is detail."""
WINDOW = 3
"""Cells a side over which agreement is measured."""
TOLERANCE = 0.05
"""Root mean square difference of the averages, of 1, at which the weight has fallen to 1/e."""


def add_reference_detail(orbit: Tensor, reference: Tensor) -> Tensor:
    """Exchange an orbit's detail for the reference image's, where both agree in the large.

    Not in the paper, where the refiner learns by itself what to take from the reference image. A
    view of an object that looks alike from many sides is known in more detail from the photo than
    from the low-resolution orbit: `orbit + w (detail of reference - detail of orbit)` with
    `w = exp(-d^2 / TOLERANCE^2)`, where d is the difference of the averages over cells. Behind the
    object the mirrored reference image takes its place.

    Args:
        orbit: [B, T, 3, H, W] in [0, 1], brought to the reference's size; T even, H and W at least
            one cell.
        reference: [B, 3, H, W] in [0, 1].

    Returns:
        [B, T, 3, H, W] in [0, 1]; a frame that equals the reference stays as it is.
    """
    frames = orbit.flatten(0, 1)
    around = repeat_around(reference, orbit.shape[1]).flatten(0, 1).to(frames)
    size = frames.shape[-2:]
    cells = (max(1, size[0] // CELL), max(1, size[1] // CELL))
    averages, reference_averages = (F.interpolate(x, cells, mode="area") for x in (frames, around))
    difference = averages - reference_averages
    squared = F.avg_pool2d(
        difference.square().mean(1, keepdim=True),
        WINDOW,
        stride=1,
        padding=WINDOW // 2,
        count_include_pad=False,
    )
    weight = F.interpolate(torch.exp(-squared / TOLERANCE**2), size, mode="bilinear")
    exchange = around - frames + F.interpolate(difference, size, mode="bicubic")
    return (frames + weight * exchange).clamp(0, 1).unflatten(0, orbit.shape[:2])
