"""Scores of views against ground truth, as SyncDreamer's evaluation defines them.

Images are over white and scored whole; an object's score is the mean over its views.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hi3d.config import check_choice, check_number
from hi3d.errors import InputError
from hi3d.views import Views

MAX_PSNR = 100.0
"""In dB, in means: one view equal to the truth has an infinite value."""


@dataclass
class ViewMetricsConfig:
    """What is averaged, and how SSIM is scaled."""

    exclude_first: bool = False
    """Leave out view 0, the reference image, which lifts the mean."""
    data_range: float | None = None
    """Range of the image values for SSIM. None takes each image pair's own range, as the
    SyncDreamer protocol does; 1.0 is the nominal one, 1e-6 to 1e6 are allowed."""
    match: str = "camera"
    """Of files: each true view is compared with the predicted one of the nearest camera, or with
    that of the same number. Folders without cameras are compared by number."""

    def __post_init__(self) -> None:
        if self.data_range is not None:
            check_number("data_range", self.data_range, 1e-6, 1e6)
        check_choice("match", self.match, ("camera", "number"))


@dataclass(frozen=True)
class ViewScores:
    """One object's scores per view."""

    psnr: Tensor  # [V]
    """Over all pixels, in dB."""
    ssim: Tensor  # [V]
    """In [-1, 1]."""
    foreground_psnr: Tensor  # [V]
    """Over the pixels where the ground truth is not transparent, in dB; NaN where none is."""

    def means(self) -> dict[str, float]:
        """The mean over the views of every score; views without foreground do not count.

        A PSNR counts as at most `MAX_PSNR`.
        """
        return {
            name: (values.clamp_max(MAX_PSNR) if "psnr" in name else values).nanmean().item()
            for name, values in vars(self).items()
        }


def psnr(
    pred: Tensor,  # [V, 3, H, W]
    gt: Tensor,  # [V, 3, H, W]
    mask: Tensor | None = None,  # [V, 1, H, W] bool
) -> Tensor:
    """Peak signal-to-noise ratio of every image: -10 log10 of the mean squared error.

    Args:
        pred: [V, 3, H, W] in [0, 1].
        gt: [V, 3, H, W] in [0, 1].
        mask: [V, 1, H, W] pixels that count; all of them by default.

    Returns:
        [V] in dB: infinity for equal images, NaN for an empty mask.
    """
    error = (pred - gt).double().square().mean(dim=1, keepdim=True)
    counts = torch.ones_like(error) if mask is None else mask.double()
    mse = (error * counts).sum(dim=(1, 2, 3)) / counts.sum(dim=(1, 2, 3))
    return (-10 * mse.log10()).float()


def ssim(
    pred: Tensor,  # [V, 3, H, W]
    gt: Tensor,  # [V, 3, H, W]
    data_range: float | None = None,
) -> Tensor:
    """Structural similarity of every image: 11x11 Gaussian window, sigma 1.5, k1 .01, k2 .03.

    The mean is over all pixels, with images mirrored at their borders (torchmetrics).

    Args:
        pred: [V, 3, H, W] in [0, 1], at least 11 pixels high and wide.
        gt: [V, 3, H, W] in [0, 1].
        data_range: of the values; None takes the larger range of each image pair.

    Returns:
        [V]
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    scores = [
        structural_similarity_index_measure(p[None], g[None], data_range=data_range)
        for p, g in zip(pred, gt, strict=True)
    ]
    return torch.stack([score for score in scores if isinstance(score, Tensor)])


def score_views(pred: Views, gt: Views, config: ViewMetricsConfig | None = None) -> ViewScores:
    """Score every view of one object.

    Args:
        pred: V views.
        gt: V views from the same cameras, in the same order.
        config: defaults to `ViewMetricsConfig()`.

    Returns:
        Scores of V views, or of V - 1 with `exclude_first`.

    Raises:
        InputError: the numbers or sizes of the images differ, or no view is left.
    """
    config = config or ViewMetricsConfig()
    if len(pred) != len(gt):
        raise InputError(
            f"{len(pred)} predicted views and {len(gt)} of the ground truth: give the same cameras"
        )
    if pred.rgb.shape != gt.rgb.shape:
        sizes = [f"{views.cameras.width}x{views.cameras.height}" for views in (pred, gt)]
        raise InputError(f"predicted views are {sizes[0]}, ground truth {sizes[1]}: resize one")
    if config.exclude_first:
        pred, gt = pred[slice(1, None)], gt[slice(1, None)]
    if len(gt) == 0:
        raise InputError("no views to score: give at least one, two with exclude_first=true")
    if min(gt.cameras.width, gt.cameras.height) < 11:
        raise InputError("SSIM needs images of at least 11x11 pixels: render larger views")
    return ViewScores(
        psnr(pred.rgb, gt.rgb),
        ssim(pred.rgb, gt.rgb, config.data_range),
        psnr(pred.rgb, gt.rgb, mask=gt.alpha > 0),
    )
