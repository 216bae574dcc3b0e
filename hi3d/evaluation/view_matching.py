"""Which predicted view shows what a true view does: the one with the nearest camera."""

import torch
from torch import Tensor

from hi3d.cameras import Cameras
from hi3d.errors import InputError
from hi3d.evaluation.view_metrics import ViewMetricsConfig, score_views
from hi3d.views import Views

MAX_ANGLE_DEG = 20.0
"""Elevations are estimated from photos to within this; 16 views are 22.5 degrees apart."""


def score_matched_views(
    pred: Views, gt: Views, cameras_known: bool, config: ViewMetricsConfig
) -> tuple[dict[str, float], str]:
    """Score views of two folders.

    Args:
        pred: V views.
        gt: V views, in any order where cameras are known.
        cameras_known: whether both have cameras that mean something.
        config: settings.

    Returns:
        The mean scores, and one line that says how the views were matched.

    Raises:
        InputError: the two do not belong together.
    """
    how = "matched by number"
    if config.match == "camera" and cameras_known:
        pred, how = matched_by_camera(pred, gt)
    how = f"straight alpha is composited over white; {how}"
    return score_views(pred, gt, config).means(), how


def matched_by_camera(pred: Views, gt: Views) -> tuple[Views, str]:
    """The predicted views in the order of the true ones.

    Args:
        pred: V views.
        gt: V views.

    Returns:
        The views, and one line that says how they were matched.

    Raises:
        InputError: the numbers differ, or a true view has no camera near it.
    """
    from scipy.optimize import linear_sum_assignment

    if len(pred) != len(gt):
        raise InputError(
            f"{len(pred)} predicted views and {len(gt)} of the ground truth: give the same cameras"
        )
    angles = angles_between(gt.cameras, pred.cameras)
    # Squares: many small differences rather than a large one.
    _, order = linear_sum_assignment(angles.square().numpy())
    largest = angles[torch.arange(len(gt)), torch.from_numpy(order)].max().item()
    if largest > MAX_ANGLE_DEG:
        raise InputError(
            f"the cameras of the two folders differ by up to {largest:.0f} degrees: give views of "
            "the same cameras, or match=number to compare them by number"
        )
    line = f"matched by camera, at most {largest:.1f} degrees apart"
    if (order == range(len(gt))).all():
        return pred, line
    return pred[torch.from_numpy(order)], f"{line}; the folders' orders differ"


def angles_between(first: Cameras, second: Cameras) -> Tensor:
    """Angles between where cameras stand, seen from the origin, in degrees. [V, W]"""
    places = [cameras.positions.double().cpu() for cameras in (first, second)]
    directions = [torch.nn.functional.normalize(place, dim=-1) for place in places]
    return torch.rad2deg((directions[0] @ directions[1].T).clamp(-1, 1).acos())
