"""Colors at vertices and faces as the many programs write them, brought to [0, 1]."""

import numpy as np

FULL_SCALES = (1, 255, 65535)
SLIGHTLY_OVER = 2.0
"""Colors up to here are taken as over-exposed ones of scale 1, and clipped."""


def unit_colors(colors: np.ndarray) -> np.ndarray:
    """RGB or RGBA of any type and scale as float32 RGBA in [0, 1]. [N, 4]

    8-bit integers are of scale 255, whichever their sign; other integers of 255 or, where a value
    is larger, of 65535. Floats are of scale 1, and where values are far larger of 255 or 65535.

    Args:
        colors: [N, 3 or 4].
    """
    colors = np.asarray(colors)
    if colors.dtype == np.int8:
        colors = colors.view(np.uint8)
    integer = colors.dtype.kind in "iu"
    values = np.nan_to_num(colors.astype(np.float64))
    largest = values.max(initial=0)
    scales = FULL_SCALES[1:] if integer else FULL_SCALES
    limit = SLIGHTLY_OVER
    scale = scales[-1]
    for candidate in scales:
        if largest <= max(candidate, limit):
            scale = candidate
            break
    rgba = np.ones((len(values), 4), np.float32)
    rgba[:, : values.shape[1]] = (values / scale).clip(0, 1)
    return rgba
