"""Scores of one object's views under a protocol."""

import functools

import numpy as np
import torch
from torch import Tensor

from hi3d.errors import InputError
from hi3d.evaluation.protocols.features_over_white import object_box
from hi3d.evaluation.protocols.lpips_over_white import LpipsOverWhite
from hi3d.evaluation.protocols.protocol import Protocol
from hi3d.evaluation.view_metrics import MAX_PSNR, psnr, ssim
from hi3d.images.lpips import FeatureDistance, Lpips, lpips_of
from hi3d.images.st_lpips import StLpips, st_lpips_of

SSIM_REACH = 10
"""Pixels: windows reach 5 from their center, and the border's are mirrored over 5 more."""

Scores = dict[str, float | None]
"""By name; None where one cannot be computed."""


def perceptual_distance(protocol: Protocol) -> FeatureDistance | None:
    """The protocol's network, loaded once per process; None where LPIPS' package is missing.

    Raises:
        InputError: the protocol asks for ST-LPIPS, whose package is not installed.
    """
    return st_lpips_of() if protocol.shift_tolerant else lpips_of(protocol.lpips_network)


def view_names(distance: FeatureDistance | None) -> list[str]:
    """Names of the scores of views."""
    return ["psnr", "ssim", *([] if distance is None else [distance_name(distance)])]


def distance_name(distance: FeatureDistance) -> str:
    """Under which a distance stands in tables."""
    return "st_lpips" if isinstance(distance, StLpips) else "lpips"


def score_views(
    protocol: Protocol,
    views: Tensor | None,
    truth: Tensor,
    distance: FeatureDistance | None,
    notes: list[str],
) -> Scores:
    """Scores of one object's views.

    Args:
        protocol: what is measured and how.
        views: [V, 3, H, W] in [0, 1], over white.
        truth: [V, 3, H, W] in [0, 1], over white.
        distance: of `perceptual_distance`, or None.
        notes: lines are added for what is unusual.

    Raises:
        InputError: views are missing, or values are not finite.
    """
    if views is None or len(views) != len(truth):
        have = 0 if views is None else len(views)
        raise InputError(f"{have} of {len(truth)} views: give one for each camera")
    if not torch.isfinite(views).all():
        raise InputError("views with values that are not finite: nothing is scored")
    views, truth = (
        at_size(images, protocol.view_size, name, notes)
        for name, images in (("predicted", views), ("true", truth))
    )
    if not protocol.first_view_counts:
        views, truth = views[1:], truth[1:]
    if protocol.pooled:
        error = (views - truth).double().square().mean().item()
        measured = -10 * np.log10(error) if error else np.inf
        similarity = _pooled_ssim(views, truth)
    else:
        measured = psnr(views, truth).clamp_max(MAX_PSNR).double().mean().item()
        pairs = zip(views, truth, strict=True)
        similarity = float(np.mean([ssim_around(view, true) for view, true in pairs]))
    scores: Scores = {"psnr": min(float(measured), MAX_PSNR), "ssim": similarity}
    if isinstance(distance, Lpips):
        scores["lpips"] = over_white(distance, *views.shape[-2:])(views, truth).mean().item()
    elif distance is not None:
        pairs = zip(views.split(1), truth.split(1), strict=True)
        values = [distance(view, true).item() for view, true in pairs]
        scores[distance_name(distance)] = float(np.mean(values))
    return scores


@functools.lru_cache(maxsize=1)
def over_white(lpips: Lpips, height: int, width: int) -> LpipsOverWhite:
    """The network for images of one size, with what it keeps of the last truth."""
    return LpipsOverWhite(lpips, height, width)


def ssim_around(view: Tensor, truth: Tensor) -> float:
    """SSIM of two images, computed where windows are not white in both: elsewhere it is 1.

    Args:
        view: [3, H, W] in [0, 1].
        truth: [3, H, W] in [0, 1].
    """
    height, width = view.shape[-2:]
    top, bottom, left, right = object_box(((view < 1) | (truth < 1)).any(0)[None])
    if bottom == 0:
        return 1.0
    rows = slice(max(0, top - SSIM_REACH), bottom + SSIM_REACH)
    columns = slice(max(0, left - SSIM_REACH), right + SSIM_REACH)
    part, true_part = (image[None, :, rows, columns] for image in (view, truth))
    data_range = max((image.max() - image.min()).item() for image in (view, truth))
    share = part[0, 0].numel() / (height * width)
    return share * ssim(part, true_part, data_range).item() + 1 - share


def _pooled_ssim(views: Tensor, truth: Tensor) -> float:
    from torchmetrics.functional.image import structural_similarity_index_measure

    similarity = structural_similarity_index_measure(views, truth)
    return float(similarity if isinstance(similarity, Tensor) else similarity[0])


def at_size(images: Tensor, size: int, name: str, notes: list[str]) -> Tensor:
    """Images [V, 3, H, W] at the protocol's size; what is resized is said in `notes`."""
    if images.shape[-2:] == (size, size):
        return images
    height, width = images.shape[-2:]
    notes.append(f"{name} views resized from {width}x{height} to {size}x{size}")
    resized = torch.nn.functional.interpolate(
        images, (size, size), mode="bicubic", antialias=True, align_corners=False
    )
    return resized.clamp(0, 1)
