"""Opacity of generated views, which the diffusion model paints over a nearly white ground.

White alone does not tell background: objects are white, and haze around an object is not. So the
threshold is found in each view by the contour that it draws, which is a step in brightness for an
object's edge and a slope for haze, whatever the object's own brightness is.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from hi3d.cameras import Cameras
from hi3d.photo.edge_alpha import edge_alpha
from hi3d.photo.hull_silhouettes import hull_silhouettes

NUM_THRESHOLDS = 22
BORDER_SHARE = 0.02  # width of the border that is taken for background, of the image's side
BORDER_PIECES = 4  # to each side; an object that leaves the image covers some of them
CONTRAST_WIDTH = 2  # pixels to each side of a contour over which its step is measured
SHARP_STEP = math.log(4)  # at a contour on exact white: three gray levels
AREA_EXPONENT = 0.15  # a small part of sharp contrast does not outweigh a large one
MIN_AREA = 1e-3  # of the image; below it a contour is noise
MIN_HOLE = 6  # pixels
SHARP_HOLE = 0.5  # of the object's median deviation around a smaller hole; a gleam fades to white
MIN_ISLAND_SHARE = 0.03  # islands below this share of the largest are dropped
BLURRED_EDGE = 2  # pixels on each side of a contour that does not stand on exact white
MIN_AGREED = 0.85  # of hazy views' objects in the median; below it the views contradict
SEARCH_SIZE = 256  # pixels; larger images are shrunk to it for the search of a threshold
GREY_LEVEL = 1 / 255
WHITE_PARTS_SHARE = 0.02
"""Of the photo's object; where more of it looks like background, so may its other sides."""


def views_alpha(
    rgb: Tensor, reference_alpha: Tensor | None = None, cameras: Cameras | None = None
) -> Tensor:
    """Opacity of the views of an orbit.

    Args:
        rgb: [V, 3, H, W] in [0, 1] over white, on the CPU; view 0 is that of the photo.
        reference_alpha: [1, H', W'] in [0, 1], the photo's own: view 0's opacity, and the evidence
            of whether the object has parts as white as the background. None: view 0 is one as the
            others, and what looks like background through the object is a hole.
        cameras: of the V views around an object whose longest side is 1.

    Returns:
        [V, 1, H, W] in [0, 1]. With the photo's opacity no view is empty: one in which nothing
        stands out takes the silhouette that the other views leave, or without cameras the photo's
        opacity, mirrored behind the object. Haze is cut where the others see background.
    """
    if reference_alpha is None:
        return torch.stack([view_alpha(view) for view in rgb])
    size = rgb.shape[-2:]
    front = F.interpolate(reference_alpha[None].float().cpu(), size, mode="area")[0]
    with_holes = view_alpha(rgb[0])
    lost = ((front > 0.5) & (with_holes < 0.5)).sum() / (front > 0.5).sum().clamp_min(1)
    open_holes = bool(lost <= WHITE_PARTS_SHARE)
    found = [_found_alpha(view, open_holes) for view in rgb[1:]]
    alpha = torch.stack([front, *(opacity for opacity, _ in found)])
    empty = [view for view in range(1, len(rgb)) if not (alpha[view] > 0.5).any()]
    if cameras is not None:
        hazy = [view for view, (_, blurred) in enumerate(found, start=1) if blurred]
        alpha = _agreed(alpha, cameras, empty, hazy)
    for view in empty:
        behind = len(rgb) <= 4 * view <= 3 * len(rgb)
        if not (alpha[view] > 0.5).any():
            alpha[view] = front.flip(-1) if behind else front
    return alpha


def _agreed(alpha: Tensor, cameras: Cameras, empty: list[int], hazy: list[int]) -> Tensor:
    """Empty views filled with the others' hull, hazy ones cut to it; others are evidence enough.

    Where the views contradict each other their hull loses parts in most of them: none is cut.
    """
    hull = hull_silhouettes(alpha, cameras.to(alpha.device), empty + hazy)
    agreed = alpha.clone()
    for view in set(empty) & set(hull):
        agreed[view] = hull[view]
    cut = {view: torch.where(hull[view] > 0, alpha[view], 0) for view in hazy if view in hull}
    shares = [(cut[view] > 0.5).sum() / (alpha[view] > 0.5).sum() for view in cut]
    if shares and torch.stack(shares).median() >= MIN_AGREED:
        for view in cut:
            agreed[view] = cut[view] if (cut[view] > 0.5).any() else alpha[view]
    return agreed


def view_alpha(rgb: Tensor, open_holes: bool = True) -> Tensor:
    """Opacity of one view over a nearly white ground.

    Args:
        rgb: [3, H, W] in [0, 1], on the CPU.
        open_holes: whether what looks like background inside the object is a hole; otherwise it is
            a part as white as the background.

    Returns:
        [1, H, W] in [0, 1]; 0 everywhere if nothing stands out.
    """
    return _found_alpha(rgb, open_holes)[0]


def _found_alpha(rgb: Tensor, open_holes: bool) -> tuple[Tensor, bool]:
    """`view_alpha`, and whether the object's edge lies in haze or blur, not on exact white."""
    absorption = (1 - rgb).permute(1, 2, 0).numpy()
    deviation = absorption.max(-1)
    noise = _background_noise(deviation)
    threshold = _best_threshold(_shrunk(deviation), noise)
    if threshold is None:
        return torch.zeros_like(rgb[:1]), False
    background = _without_islands(_joined_to_border(deviation < threshold))
    if open_holes:
        background = background | _holes(deviation, background, threshold)
    blurred = max(noise, threshold) > GREY_LEVEL
    width = BLURRED_EDGE if blurred else 1
    alpha = edge_alpha(absorption, ~background, width, blurred)
    return torch.from_numpy(alpha)[None], blurred


def _background_noise(deviation: np.ndarray) -> float:
    """What the second lightest piece of the border deviates in the median."""
    width = max(2, round(BORDER_SHARE * deviation.shape[1]))
    rows, columns = deviation, deviation.T
    strips = [rows[:width], rows[-width:], columns[:width], columns[-width:]]
    pieces = [piece for strip in strips for piece in np.array_split(strip, BORDER_PIECES, axis=1)]
    return float(np.sort([np.median(piece) for piece in pieces])[1])


def _shrunk(deviation: np.ndarray) -> np.ndarray:
    scale = SEARCH_SIZE / max(deviation.shape)
    if scale >= 1:
        return deviation
    size = [max(1, round(scale * side)) for side in deviation.shape]
    return F.interpolate(torch.from_numpy(deviation)[None, None], size, mode="area")[0, 0].numpy()


def _best_threshold(deviation: np.ndarray, noise: float) -> float | None:
    """The threshold whose contour is the sharpest step; None where nothing stands out.

    On exact white the lowest is taken if it already stands at a step rather than in fading haze:
    then every pixel that is not white is the object's, also white parts beside black ones.
    """
    logarithm = np.log(deviation + max(noise, GREY_LEVEL))
    best, found = -math.inf, None
    for threshold in np.geomspace(_lowest_threshold(noise), 0.5, NUM_THRESHOLDS):
        background = _joined_to_border(deviation < threshold)
        area = 1 - background.mean()
        if area < MIN_AREA:
            continue
        steps = _steps(logarithm, background)
        if not len(steps):  # the object fills the image
            continue
        if threshold < GREY_LEVEL and np.quantile(steps, 0.25) > SHARP_STEP:
            return float(threshold)
        score = steps.mean() + AREA_EXPONENT * math.log(area)
        if score > best:
            best, found = score, float(threshold)
    return found


def _lowest_threshold(noise: float) -> float:
    return max(1.5 * noise, 0.6 * GREY_LEVEL)


def _joined_to_border(mask: np.ndarray) -> np.ndarray:
    labels, _ = ndimage.label(mask)
    edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    return np.isin(labels, np.unique(edge[edge > 0]))


def _steps(logarithm: np.ndarray, background: np.ndarray) -> np.ndarray:
    """Step of the logarithm across the contour, inside less outside, along it. [N]"""
    foreground = ~background
    contour = foreground & ndimage.binary_dilation(background)
    inside, outside = (
        _local_mean(logarithm, side, 2 * CONTRAST_WIDTH + 1) for side in (foreground, background)
    )
    return (inside - outside)[contour]


def _local_mean(values: np.ndarray, mask: np.ndarray, width: int) -> np.ndarray:
    """Mean of the values inside a mask, over boxes of a width; 0 where there are none."""
    share = ndimage.uniform_filter(mask.astype(np.float32), width)
    total = ndimage.uniform_filter(np.where(mask, values, 0).astype(np.float32), width)
    return total / np.maximum(share, 1e-6)


def _without_islands(background: np.ndarray) -> np.ndarray:
    labels, count = ndimage.label(~background, np.ones((3, 3)))
    if count < 2:
        return background
    sizes = np.bincount(labels.ravel())[1:]
    kept = np.flatnonzero(sizes >= MIN_ISLAND_SHARE * sizes.max()) + 1
    return ~np.isin(labels, kept)


def _holes(deviation: np.ndarray, background: np.ndarray, threshold: float) -> np.ndarray:
    """Regions inside the object that are as white as the background. [H, W] bool"""
    labels, count = ndimage.label(~background & (deviation < threshold))
    if count == 0:
        return np.zeros_like(background)
    sizes = np.bincount(labels.ravel())
    around = ndimage.maximum_filter(labels, 3) * (labels == 0)
    edges = np.bincount(around.ravel(), deviation.ravel(), count + 1)
    edges = edges / np.bincount(around.ravel(), minlength=count + 1).clip(1)
    sharp = edges > SHARP_HOLE * np.median(deviation[~background])
    hole = (sizes >= MIN_HOLE) | (sharp & (threshold < GREY_LEVEL))
    hole[0] = False
    return np.asarray(hole[labels])
