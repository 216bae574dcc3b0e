"""What the grid starts from: the views' visual hull, or a prediction of the whole object.

Views that contradict each other carve their hull to pieces. A model that predicts the object as a
whole, and whose views are pictures of that, knows a shape that all of them nearly agree with.
"""

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor
from torch.nn import functional as F

from hi3d.surface.grid import GridField
from hi3d.surface.neus.config import NeusConfig
from hi3d.surface.neus.networks import FieldKind
from hi3d.surface.visual_hull import HALF_EXTENT, MIN_INSIDE, grid_points, shared_hull
from hi3d.views import Views

PREDICTED_RESOLUTION = 64  # vertices a side at which the distance to a prediction is computed
MAX_COLOR_LOGIT = 4.0  # of a predicted color: beyond it the fit could hardly move it


def starting_field(views: Views, config: NeusConfig, start: GridField | None) -> GridField:
    """The field before the first step, at the first resolution or at that of `start`.

    Args:
        views: V views.
        config: of the fit.
        start: of `predicted_field`; taken where it is asked for and holds a surface.
    """
    if start is not None and config.field is FieldKind.predicted:
        coarse = start.resampled(config.resolutions[0])
        if (coarse.sdf < 0).sum() >= MIN_INSIDE:
            return start.to(views.rgb.device)
    return hull_field(views, config)


def hull_field(views: Views, config: NeusConfig) -> GridField:
    """The visual hull's distance, grey."""
    sdf = shared_hull(views, config.resolutions[0], HALF_EXTENT, config.hull_tolerance)
    return GridField(sdf, torch.zeros(*sdf.shape, 3, device=sdf.device), HALF_EXTENT)


def predicted_field(logits: Tensor, half: float) -> GridField | None:
    """The signed distance to a predicted surface, and its colors.

    Args:
        logits: [4, G, G, G] (z, y, x) at the centers of the cells of [-half, half]^3: of what is
            solid, 0 at the surface, and of color.
        half: half the side of the cube, in world units.

    Returns:
        The field, on the CPU; None where nothing or everything is solid.
    """
    points = grid_points(PREDICTED_RESOLUTION, HALF_EXTENT, "cpu")
    place = (points / half)[None, :, None, None]
    values = F.grid_sample(
        logits[None].float().cpu(), place, align_corners=False, padding_mode="border"
    )[0, :, :, 0, 0]
    shape = (PREDICTED_RESOLUTION,) * 3
    solid = (values[0] > 0).reshape(shape).numpy()
    if solid.all() or not solid.any():
        return None
    # The surface lies half way between neighbors of which one is solid.
    voxels = np.where(
        solid, 0.5 - distance_transform_edt(solid), distance_transform_edt(~solid) - 0.5
    )
    sdf = torch.from_numpy(voxels.astype(np.float32))
    sdf *= 2 * HALF_EXTENT / (PREDICTED_RESOLUTION - 1)
    colors = values[1:].clamp(-MAX_COLOR_LOGIT, MAX_COLOR_LOGIT).T.reshape(*shape, 3)
    return GridField(sdf, colors.contiguous(), HALF_EXTENT)
