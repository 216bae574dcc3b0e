"""How far the views of several seeds are from each other."""

import math
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

FRONT_DEG = 90.0
"""Views nearer to the photo's azimuth are its front, the others lie behind."""


def diversity(rgb: Tensor, azimuth_deg: Tensor) -> dict[str, Any]:
    """PSNR of the views of every two seeds to each other: the lower, the more the seeds differ.

    Args:
        rgb: [S, V, 3, H, W] in [0, 1], views of S seeds, at least 2.
        azimuth_deg: [V] of the cameras; 0 is the photo's.

    Returns:
        `by_azimuth_db`, `front_db` (within 90 degrees of the photo) and `behind_db`. Errors are
        averaged before the logarithm is taken; None where views are equal to the last bit.
    """
    pairs = list(combinations(range(len(rgb)), 2))
    errors = torch.stack([(rgb[a] - rgb[b]).square().mean((1, 2, 3)) for a, b in pairs]).mean(0)
    turned = (azimuth_deg.to(errors) + 180) % 360 - 180
    front = turned.abs() < FRONT_DEG
    by_azimuth = {
        f"{float(a) % 360:g}": psnr_db(e) for a, e in zip(azimuth_deg, errors, strict=True)
    }
    return {
        "pairs": len(pairs),
        "by_azimuth_db": by_azimuth,
        "front_db": psnr_db(errors[front]),
        "behind_db": psnr_db(errors[~front]),
    }


def psnr_db(squared_errors: Tensor) -> float | None:
    """PSNR of mean squared errors in [0, 1] units; None of none and of zero."""
    mean = float(squared_errors.double().mean()) if squared_errors.numel() else 0.0
    return None if mean == 0 else round(-10 * math.log10(mean), 2)
