"""Opacity of generated views, which the diffusion model paints over white."""

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor


def alpha_from_white(rgb: Tensor, tolerance: float = 0.08) -> Tensor:
    """Opacity of an object on white: what is not near-white or is enclosed by the object.

    Near-white pixels that connect to the image border are background, so a white spot inside the
    object stays opaque. Specks of fewer than 0.1 % of the pixels are dropped.

    Args:
        rgb: [V, 3, H, W] in [0, 1].
        tolerance: largest difference from white, in any channel, that is still background.

    Returns:
        alpha [V, 1, H, W], 0 or 1.
    """
    height, width = rgb.shape[-2:]
    min_pixels = max(1, height * width // 1000)
    near_white = ((1 - rgb).amax(1) <= tolerance).cpu().numpy()
    alpha = np.zeros((len(rgb), 1, height, width), dtype=np.float32)
    for view, white in enumerate(near_white):
        padded = np.pad(white, 1, constant_values=True)
        labels, _ = ndimage.label(padded)
        object_mask = (labels != labels[0, 0])[1:-1, 1:-1]
        labels, count = ndimage.label(object_mask)
        sizes = ndimage.sum_labels(object_mask, labels, np.arange(1, count + 1))
        kept = 1 + np.flatnonzero(sizes >= min_pixels)
        alpha[view, 0] = np.isin(labels, kept)
    return torch.from_numpy(alpha).to(rgb.device)
