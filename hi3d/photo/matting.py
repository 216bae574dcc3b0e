"""Cutting the object out of its background: U-2-Net, or a white background keyed out."""

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hi3d.errors import InputError
from hi3d.files import shipped

WEIGHTS_SHA256 = "309c8469258dda742793dce0ebea8e6dd393174f89934733ecc8b14c76f4ddd8"
NETWORK_SIDE = 320  # U-2-Net, Section 4.2
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MIN_CONFIDENCE = 0.5
"""Where the network's largest probability is smaller, it saw no object."""
MIN_ISLAND_SHARE = 0.05
"""Islands of the matte below this share of the largest are dropped."""


def default_weights_path() -> Path:
    """data/weights/u2netp.onnx, which the project ships."""
    return shipped("data/weights/u2netp.onnx")


def predict_matte(rgb: Tensor, weights: Path, second_look: bool = True) -> Tensor:
    """Opacity of the salient object by U-2-Net (Qin et al. 2020), its edge fitted to the photo.

    Args:
        rgb: [3, H, W] in [0, 1].
        weights: u2netp.onnx.
        second_look: run again on a crop around the first answer where that is much smaller.

    Returns:
        alpha [1, H, W] in [0, 1]; all 0 where the network sees no object.

    Raises:
        InputError: the weights are missing or broken.
    """
    probability = _run_network(rgb, weights)
    if second_look:
        box = _box_around(probability[0] > 0.5, margin=0.25)
        if box is not None and _area(box) < 0.6 * probability[0].numel():
            top, bottom, left, right = box
            closer = _run_network(rgb[:, top:bottom, left:right], weights)
            looked_again = torch.zeros_like(probability)
            looked_again[:, top:bottom, left:right] = closer
            # The crop can lose an object that filled the photo: keep the first answer then.
            if _iou(looked_again > 0.5, probability > 0.5) > 0.6:
                probability = looked_again
    height, width = rgb.shape[1:]
    radius = max(2, round(max(height, width) / NETWORK_SIDE * 2))
    fitted = guided_filter(rgb, probability, radius, eps=1e-4)
    # The step from 0.3 to 0.7 becomes the whole range: no gray haze outside, no holes inside.
    return clean_matte(((fitted - 0.3) / 0.4).clamp(0, 1))


def key_white_background(rgb: Tensor, tolerance: float = 0.04) -> Tensor:
    """Opacity [1, H, W] of what is not joined to the border by white; rgb [3, H, W] in [0, 1]."""
    from scipy import ndimage

    distance = 1 - rgb.amin(dim=0)
    labels, _ = ndimage.label((distance < tolerance).numpy())
    edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    background = torch.from_numpy(np.isin(labels, np.unique(edge[edge > 0])))
    # Pixels beside the background are mixtures: as opaque as they are dark, full at 0.25.
    beside = F.max_pool2d(background[None].float(), 3, stride=1, padding=1)[0] > 0
    alpha = torch.where(beside, (distance / 0.25).clamp(0, 1), torch.ones_like(distance))
    return clean_matte(torch.where(background, torch.zeros_like(alpha), alpha)[None])


def clean_matte(alpha: Tensor) -> Tensor:
    """Drop specks: islands much smaller than the largest one, and opacity below 2 %.

    Args:
        alpha: [1, H, W] in [0, 1].
    """
    from scipy import ndimage

    alpha = torch.where(alpha < 0.02, torch.zeros_like(alpha), alpha)
    labels, count = ndimage.label((alpha[0] > 0.1).numpy(), structure=np.ones((3, 3)))
    if count == 0:
        return torch.zeros_like(alpha)
    sizes = np.bincount(labels.ravel())[1:]
    kept = np.flatnonzero(sizes >= MIN_ISLAND_SHARE * sizes.max()) + 1
    return alpha * torch.from_numpy(np.isin(labels, kept))[None]


def estimate_foreground(rgb: Tensor, alpha: Tensor) -> Tensor:
    """The object's own color where it is mixed with the background, I = a F + (1 - a) B.

    Blurred estimates of F and B corrected by the residual, first wide and then narrow
    (Forte 2021, "Approximate Fast Foreground Color Estimation").

    Args:
        rgb: [3, H, W] in [0, 1].
        alpha: [1, H, W] in [0, 1].

    Returns:
        F [3, H, W] in [0, 1].
    """
    foreground, background = rgb, rgb
    for radius in (max(16, max(rgb.shape[1:]) // 16), 3):
        weight_f, weight_b = _box_mean(alpha, radius), _box_mean(1 - alpha, radius)
        blurred_f = _box_mean(foreground * alpha, radius) / (weight_f + 1e-5)
        blurred_b = _box_mean(background * (1 - alpha), radius) / (weight_b + 1e-5)
        residual = rgb - alpha * blurred_f - (1 - alpha) * blurred_b
        foreground = (blurred_f + alpha * residual).clamp(0, 1)
        background = blurred_b.clamp(0, 1)
    return torch.where(alpha > 0.99, rgb, foreground)


def guided_filter(guide: Tensor, signal: Tensor, radius: int, eps: float) -> Tensor:
    """Fit `signal` to the guide's edges (He et al. 2010, eq. 11-14, with the guide's luminance).

    Args:
        guide: [3, H, W] in [0, 1].
        signal: [1, H, W].
        radius: of the box window, in pixels.
        eps: squared contrast below which the guide counts as flat.
    """
    luma = guide.mean(dim=0, keepdim=True)
    mean_guide, mean_signal = _box_mean(luma, radius), _box_mean(signal, radius)
    covariance = _box_mean(luma * signal, radius) - mean_guide * mean_signal
    variance = _box_mean(luma * luma, radius) - mean_guide**2
    a = covariance / (variance.clamp_min(0) + eps)
    b = mean_signal - a * mean_guide
    return _box_mean(a, radius) * luma + _box_mean(b, radius)


def _run_network(rgb: Tensor, weights: Path) -> Tensor:
    """Probability of the object [1, H, W]; zeros where the network is not confident anywhere."""
    size = (NETWORK_SIDE, NETWORK_SIDE)
    small = F.interpolate(rgb[None], size=size, mode="bicubic", antialias=True).clamp(0, 1)
    small = small / small.max().clamp_min(1e-6)
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    batch = (small - mean[:, None, None]) / std[:, None, None]
    session = _session(str(weights), weights.stat().st_mtime_ns if weights.is_file() else 0)
    output = session.run(None, {session.get_inputs()[0].name: batch.numpy()})[0]
    probability = torch.from_numpy(output)[:, :1]
    if float(probability.max()) < MIN_CONFIDENCE:
        return torch.zeros_like(rgb[:1])
    low, high = probability.min(), probability.max()
    probability = (probability - low) / (high - low).clamp_min(1e-6)
    return F.interpolate(probability, size=rgb.shape[1:], mode="bilinear", align_corners=False)[0]


@lru_cache(maxsize=1)
def _session(weights: str, modified_ns: int) -> Any:
    """The network, loaded once for each version of the file."""
    path = Path(weights)
    fix = (
        "restore data/weights/u2netp.onnx (data/weights/README.md says from where), give its path "
        "as weights=PATH, or give a PNG with a transparent background"
    )
    if not path.is_file():
        raise InputError(f"no matting weights at {path}: {fix}")
    content = path.read_bytes()
    is_u2netp = path.name == "u2netp.onnx"
    if is_u2netp and hashlib.sha256(content).hexdigest() != WEIGHTS_SHA256:
        raise InputError(f"matting weights {path} are damaged (wrong SHA-256): {fix}")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no public base class
        raise InputError(f"matting weights {path} are no ONNX network: {fix}") from error


def _box_mean(planes: Tensor, radius: int) -> Tensor:
    """Mean over the (2 radius + 1)² window of [C, H, W], cut off at the border."""
    for axis in (1, 2):
        length = planes.shape[axis]
        sums = planes.double().cumsum(dim=axis)
        sums = torch.cat([torch.zeros_like(sums.narrow(axis, 0, 1)), sums], dim=axis)
        index = torch.arange(length)
        high, low = (index + radius + 1).clamp(max=length), (index - radius).clamp(min=0)
        counts = (high - low).view(-1, 1) if axis == 1 else (high - low)
        planes = (sums.index_select(axis, high) - sums.index_select(axis, low)) / counts
    return planes.float()


def _box_around(mask: Tensor, margin: float) -> tuple[int, int, int, int] | None:
    """Box (top, bottom, left, right) around a mask [H, W], enlarged by `margin` of its size."""
    rows, columns = mask.any(dim=1).nonzero()[:, 0], mask.any(dim=0).nonzero()[:, 0]
    if len(rows) == 0:
        return None
    top, bottom, left, right = (
        int(rows[0]),
        int(rows[-1]) + 1,
        int(columns[0]),
        int(columns[-1]) + 1,
    )
    extra = round(margin * max(bottom - top, right - left)) + 8
    height, width = mask.shape
    return (
        max(0, top - extra),
        min(height, bottom + extra),
        max(0, left - extra),
        min(width, right + extra),
    )


def _area(box: tuple[int, int, int, int]) -> int:
    return (box[1] - box[0]) * (box[3] - box[2])


def _iou(first: Tensor, second: Tensor) -> float:
    return float((first & second).sum() / (first | second).sum().clamp_min(1))
