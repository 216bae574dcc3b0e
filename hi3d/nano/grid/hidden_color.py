"""Colors of what the photo does not show: those of the front at the same height.

The predictor writes along the photo's rays, and its first guess of a color is the photo's own all
along the ray. Where the camera looks down, such colors go down behind the object: the lid of a jar
becomes a slanted cap. Behind the middle of the object, hidden cells take the colors of the cells
that lie opposite, through the vertical plane that faces the camera: an object looks alike from in
front and from behind far more often than not. Its shape stays. Not in the paper.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from hi3d.cameras import ORBIT_DISTANCE
from hi3d.nano.grid.rendering import (
    CELL,
    CUBE_HALF,
    DENSITY_SHIFT,
    FAR_PLANE,
    NEAR_PLANE,
    SHARPNESS,
    camera_axes,
    pixel_rays,
    project,
    rotated,
    sample_grid,
)

MARGIN = 3.0  # cells before a cell at which the ray is asked whether it still comes through
HIDDEN = 1 / 1.5  # of the ray absorbed, from where on a cell is hidden altogether
BEHIND_WIDTH = 0.05  # of the step at the middle of the object
BLUR = 1.0  # cells: the opposite cell may be solid only nearby
BLUR_REACH = 3  # cells
UNSURE = 0.03  # solid share nearby at which an opposite color counts half


@torch.no_grad()
def with_mirrored_colors(grid: Tensor, points: Tensor, elevation_deg: Tensor) -> Tensor:
    """The grid with other colors behind the object.

    Args:
        grid: [B, 4, G, G, G] (z, y, x) decided density and color logits.
        points: [B, G^3, 3] the cells' centers.
        elevation_deg: [B] of the photo's camera.

    Returns:
        [B, 4, G, G, G]; density is as it was.
    """
    colors, solid = blurred_colors(grid.flip(-1))  # x points at the camera's azimuth
    share = hidden_behind(grid[:, :1], points, elevation_deg) * solid / (solid + UNSURE)
    own = torch.sigmoid(grid[:, 1:])
    mixed = own + share * (colors - own)
    return torch.cat([grid[:, :1], torch.logit(mixed.clamp(0.005, 0.995))], 1)


def hidden_behind(density: Tensor, points: Tensor, elevation_deg: Tensor) -> Tensor:
    """How surely the photo does not show a cell behind the object's middle. [B, 1, G, G, G]

    Args:
        density: [B, 1, G, G, G] decided logits.
        points: [B, G^3, 3] the cells' centers.
        elevation_deg: [B] of the photo's camera.
    """
    _, depth = project(points, torch.zeros_like(elevation_deg), elevation_deg)
    behind = torch.sigmoid((depth - ORBIT_DISTANCE) / BEHIND_WIDTH)
    return hidden(density, points, elevation_deg) * behind.view_as(density)


def hidden(density: Tensor, points: Tensor, elevation_deg: Tensor) -> Tensor:
    """How surely the photo does not show a cell, since others are before it. [B, 1, G, G, G]

    Args:
        density: [B, 1, G, G, G] decided logits.
        points: [B, G^3, 3] the cells' centers.
        elevation_deg: [B] of the photo's camera.
    """
    side = density.shape[-1]
    front = torch.zeros_like(elevation_deg)
    origins, axes = camera_axes(front, elevation_deg)
    local = pixel_rays(side, density.device)
    step = (FAR_PLANE - NEAR_PLANE) / side
    depths = NEAR_PLANE + (torch.arange(side).to(density) + 0.5) * step
    rays = rotated(local.flatten(0, 1), axes)[:, None] * depths[:, None, None]
    places = origins[:, None, None] + rays  # [B, N, S^2, 3]
    inside = (places.abs() < CUBE_HALF).all(-1)
    logits = sample_grid(density, places.flatten(1, 2)).view(inside.shape)
    lengths = local.norm(dim=-1).flatten() * (step / CELL)
    optical = F.softplus(SHARPNESS * logits + DENSITY_SHIFT) * lengths * inside
    absorbed = 1 - torch.exp(-optical.cumsum(1))
    xy, depth = project(points, front, elevation_deg)
    before = (depth - MARGIN * CELL - NEAR_PLANE) / (FAR_PLANE - NEAR_PLANE) * 2 - 1
    volume = absorbed.unflatten(2, (side, side))[:, None]
    share = sample_grid(volume, torch.cat([xy, before[..., None]], -1), 1.0) / HIDDEN
    return share.clamp(0, 1).view_as(density)


def blurred_colors(grid: Tensor) -> tuple[Tensor, Tensor]:
    """Colors of solid cells nearby.

    Args:
        grid: [B, 4, G, G, G] decided logits.

    Returns:
        colors [B, 3, G, G, G] in [0, 1]; [B, 1, G, G, G] how much is solid there, 0 to 1.
    """
    solid = 1 - torch.exp(-F.softplus(SHARPNESS * grid[:, :1] + DENSITY_SHIFT))
    total = torch.cat([solid * torch.sigmoid(grid[:, 1:]), solid], 1)
    steps = torch.arange(-BLUR_REACH, BLUR_REACH + 1).to(grid)
    weights = torch.exp(-0.5 * (steps / BLUR).square())
    weights = weights / weights.sum()
    channels = total.shape[1]
    for axis in range(3):
        size, reach = [1, 1, 1], [0, 0, 0]
        size[axis], reach[axis] = len(weights), BLUR_REACH
        kernel = weights.view(1, 1, *size).expand(channels, -1, -1, -1, -1)
        total = F.conv3d(total, kernel, padding=reach, groups=channels)
    return total[:, :3] / total[:, 3:].clamp_min(1e-4), total[:, 3:]
