"""Views of an uncertain object with the edges of a certain one."""

import torch
from torch import Tensor

LEVEL = 0.6  # of opacity at the middle of the edge: what is opaque stays so, haze goes
WIDTH = 0.8  # of opacity, over which the edge goes from 0 to 1
MIN_ALPHA = 0.05  # below it a pixel's own color is not known


def with_crisp_edges(rgb: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
    """Replace a wide, half transparent rim by an edge, and take the white out of its colors.

    A mean over possible objects has a rim of haze, to which splats and surface add spikes. Not in
    the paper, whose model samples one object.

    Args:
        rgb: [V, 3, H, W] over white, in [0, 1].
        alpha: [V, 1, H, W] in [0, 1].

    Returns:
        rgb and alpha of the same shapes; what is opaque stays as it is.
    """
    color = ((rgb - (1 - alpha)) / alpha.clamp_min(MIN_ALPHA)).clamp(0, 1)
    edge = ((alpha - LEVEL) / WIDTH + 0.5).clamp(0, 1)
    return color * edge + 1 - edge, edge


def crisp_but_first(rgb: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
    """As `with_crisp_edges`, all views but the first, which is the photo."""
    crisp_rgb, crisp_alpha = with_crisp_edges(rgb[1:], alpha[1:])
    return torch.cat([rgb[:1], crisp_rgb]), torch.cat([alpha[:1], crisp_alpha])
