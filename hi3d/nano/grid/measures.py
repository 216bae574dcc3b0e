"""Whether an orbit turns its object: measures that blurring does not satisfy."""

import torch
from torch import Tensor

MIN_SQUARED_ERROR = 1e-5  # 50 dB: white objects on white would be infinite


def psnr(predicted: Tensor, true: Tensor) -> Tensor:
    """PSNR in dB, at most 50, of images in [0, 1]. [...]

    Args:
        predicted: [..., 3, H, W].
        true: broadcast against them.
    """
    squared = (predicted - true).square().mean((-1, -2, -3))
    return -10 * squared.clamp_min(MIN_SQUARED_ERROR).log10()


def own_azimuth(predicted: Tensor, true: Tensor) -> Tensor:
    """Share of views 1 to T - 1 that are nearest, in squared error, to their own true view. [B]

    Chance is 1 / T; views that repeat the photo, or the mean of all views, stay there.

    Args:
        predicted: [B, T, 3, H, W] in [0, 1].
        true: the same shape.
    """
    distance = (predicted[:, :, None] - true[:, None]).square().mean((-1, -2, -3))
    own = distance.argmin(-1) == torch.arange(true.shape[1], device=true.device)
    return own[:, 1:].float().mean(1)


def orbit_measures(predicted: Tensor, true: Tensor) -> dict[str, Tensor]:
    """Means over B orbits, without view 0.

    Args:
        predicted: [B, T, 3, H, W] in [0, 1].
        true: the same shape; view 0 is the photo.

    Returns:
        `psnr`, `psnr_gain` over repeating the photo, `own_azimuth`.
    """
    ours, repeated = psnr(predicted, true), psnr(true[:, :1], true)
    return {
        "psnr": ours[:, 1:].mean(),
        "psnr_gain": (ours - repeated)[:, 1:].mean(),
        "own_azimuth": own_azimuth(predicted, true).mean(),
    }
