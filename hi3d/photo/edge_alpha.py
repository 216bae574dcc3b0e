"""Opacity of the pixels at an object's edge, in which its color is mixed with the background's.

A pixel there is I = a F + (1 - a) B (Porter and Duff 1984). F is the color a little further inside
and B that a little further outside, so a black edge and a nearly white one are equally soft.
"""

import numpy as np
from scipy import ndimage

THIN_WINDOW = 13  # pixels, around a thin part, whose darkest pixel has its color


def edge_alpha(
    absorption: np.ndarray, foreground: np.ndarray, width: int, outside: bool
) -> np.ndarray:
    """Opacity that is 1 inside, 0 outside and at the edge the object's share of the color.

    Args:
        absorption: [H, W, 3], white less the image.
        foreground: [H, W] bool.
        width: mixed pixels on one side of the edge, 1 or more.
        outside: whether as many pixels outside are mixed as well, as where a threshold lies in the
            middle of a blurred edge; otherwise the background there is exactly white.

    Returns:
        [H, W] float32 in [0, 1].
    """
    depth = _layer(foreground)
    mixed = foreground & (depth <= width)
    color, distance = _nearest(absorption, depth > width)
    reach = np.full(mixed.shape, width + 1)
    background = np.zeros_like(absorption)
    if outside:
        height = _layer(~foreground)
        fringe = ~foreground & (height <= width)
        reach[fringe] += width
        mixed |= fringe
        background, _ = _nearest(absorption, height > width)
    thin = mixed & (distance > reach)
    color[thin] = _darkest(absorption, thin)
    seen, full = absorption - background, color - background
    share = (seen * full).sum(-1) / np.maximum((full * full).sum(-1), 1e-8)
    return np.where(mixed, share.clip(0, 1), foreground).astype(np.float32)


def _layer(mask: np.ndarray) -> np.ndarray:
    """How many pixels deep each pixel lies in a mask, diagonals included; 0 outside. [H, W]"""
    if mask.all():
        return np.full(mask.shape, max(mask.shape))
    return ndimage.distance_transform_cdt(mask, "chessboard")


def _nearest(values: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The value [H, W, C] of the nearest pixel of a mask, and how far away it is [H, W]."""
    if not mask.any():
        return np.zeros_like(values), np.full(mask.shape, np.inf)
    distance, (y, x) = ndimage.distance_transform_edt(~mask, return_indices=True)
    return values[y, x], distance


def _darkest(absorption: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The color of the darkest pixel around each of a mask's. [N, 3]"""
    height, width = mask.shape
    y, x = np.nonzero(mask)
    reach = range(-(THIN_WINDOW // 2), THIN_WINDOW // 2 + 1)
    rows = [(y + offset).clip(0, height - 1) for offset in reach]
    columns = [(x + offset).clip(0, width - 1) for offset in reach]
    colors = np.stack([absorption[row, column] for row in rows for column in columns])
    return colors[colors.max(-1).argmax(0), np.arange(len(y))]
