"""What a photo's own transparency says: whether it is a cut-out, and of which objects."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hi3d.progress import console

BORDER_SHARE, AREA_SHARE = 0.5, 0.15
"""A cut-out is transparent along this share of its border, or, joined to it, over this share of the
photo; the rounded corners of a window are not."""
FAINT, SOFT = 0.02, 0.1
"""Opacity below which a pixel is empty everywhere, and away from the object."""
MIN_OPACITY = 0.05
"""A layer whose object is fainter is empty."""
SPECK_SHARE = 0.005
"""Islands of a given alpha below this share of the largest are stray pixels."""
BLOT_SHARE, BLOT_GAP = 0.03, 0.25
"""So are islands below this share that lie further from the largest than this share of its longer
side: they are no parts of the object, and would move its frame."""
OBJECT_SHARE = 0.2
"""Islands of at least this share of the largest are objects of their own."""


def scale_to_opaque(alpha: Tensor, min_share: float) -> Tensor | None:
    """Alpha over the opacity that the object reaches, for layers that are translucent as a whole.

    Args:
        alpha: [1, H, W] in [0, 1].
        min_share: of the photo that must reach that opacity, so that stray pixels do not count.

    Returns:
        [1, H, W] in [0, 1]; None where nothing is opaque enough to be an object.
    """
    count = max(1, round(min_share * alpha.numel()))
    opacity = float(alpha.flatten().topk(count).values[-1])
    if opacity < MIN_OPACITY:
        return None
    return (alpha / opacity).clamp(max=1) if opacity < 1 else alpha


def is_cutout(alpha: Tensor) -> bool:
    """Whether alpha [1, H, W] shows an object before nothing."""
    from scipy import ndimage

    labels, _ = ndimage.label((alpha[0] < 0.5).numpy())
    border = np.concatenate([labels[0], labels[-1], labels[1:-1, 0], labels[1:-1, -1]])
    around = np.isin(labels, np.unique(border[border > 0]))
    return bool((border > 0).mean() >= BORDER_SHARE or around.mean() >= AREA_SHARE)


def without_specks(alpha: Tensor) -> Tensor:
    """Drop stray pixels and faint noise of a given alpha [1, H, W]; soft edges stay."""
    sizes, labels = _islands(alpha)
    if len(sizes) == 0:
        return torch.zeros_like(alpha)
    few = sizes < SPECK_SHARE * sizes.max()
    far = (sizes < BLOT_SHARE * sizes.max()) & (_gaps(labels, sizes) > BLOT_GAP)
    kept = torch.from_numpy(np.isin(labels, np.flatnonzero(~few & ~far) + 1))
    dropped = torch.from_numpy(labels > 0) & ~kept
    near = F.max_pool2d(kept[None].float(), 5, stride=1, padding=2) > 0
    alpha = torch.where(dropped[None] | (alpha < FAINT), torch.zeros_like(alpha), alpha)
    return torch.where(near | _joined(alpha, kept), alpha, torch.zeros_like(alpha))


def kept_objects(alpha: Tensor, keep: str, name: str) -> Tensor:
    """All objects of a photo, with a line of warning where there are several, or the largest.

    Args:
        alpha: [1, H, W] in [0, 1], clean.
        keep: "all" or "largest".
        name: of the photo.
    """
    sizes, labels = _islands(alpha)
    count = int((sizes >= OBJECT_SHARE * sizes.max()).sum()) if len(sizes) else 0
    if count < 2:
        return alpha
    if keep == "all":
        console.print(
            f"{name} shows {count} separate objects, which become one mesh: "
            "foreground.keep=largest takes the largest alone",
            markup=False,
        )
        return alpha
    largest = torch.from_numpy(labels == sizes.argmax() + 1)
    others = torch.from_numpy(labels > 0) & ~largest
    near = F.max_pool2d(largest[None].float(), 5, stride=1, padding=2) > 0
    return torch.where(near & ~others, alpha, torch.zeros_like(alpha))


def _islands(alpha: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Sizes of the islands of what is more than half opaque, and their labels [H, W] from 1."""
    from scipy import ndimage

    labels, _ = ndimage.label((alpha[0] > 0.5).numpy(), structure=np.ones((3, 3)))
    return np.bincount(labels.ravel())[1:], labels


def _gaps(labels: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Distance of each island from the largest, by the longer side of that. [islands]"""
    from scipy import ndimage

    largest = labels == sizes.argmax() + 1
    rows, columns = np.nonzero(largest.any(1))[0], np.nonzero(largest.any(0))[0]
    side = max(np.ptp(rows), np.ptp(columns)) + 1
    distance = ndimage.distance_transform_edt(~largest)
    return np.asarray(ndimage.minimum(distance, labels, np.arange(1, len(sizes) + 1))) / side


def _joined(alpha: Tensor, kept: Tensor) -> Tensor:
    """Pixels [1, H, W] that translucent ones join to the kept islands [H, W]."""
    from scipy import ndimage

    labels, _ = ndimage.label((alpha[0] > SOFT).numpy(), structure=np.ones((3, 3)))
    touched = np.unique(labels[kept.numpy()])
    return torch.from_numpy(np.isin(labels, touched[touched > 0]))[None]
