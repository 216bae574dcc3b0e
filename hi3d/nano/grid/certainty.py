"""One object out of the predictor's many: its logits made a decision, and the photo's rays filled.

The predictor learns how likely each point of space is solid. Rendered as it is, that likelihood is
a haze that stretches along the photo's rays, since depth is what a photo does not tell; splats and
surface then model the haze. Two steps make an object of it that looks like the photo from its side
and has edges from all others.

- The logit is scaled about a level, which turns likelihood into occupancy.
- Along every ray of the photo's silhouette the logits are raised until the ray is as opaque as the
  photo says. What the photo shows is somewhere on the ray, however unsure the depth of thin parts
  is; the steep scale puts it at the likeliest depth.

A smooth random field that is added to the logits first, behind the middle of the object as the
photo's camera sees it, makes it another of the likely objects: what is certain stays, and so
does the photo's side. Not in the paper, whose diffusion model samples one object.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from hi3d.cameras import ORBIT_DISTANCE
from hi3d.nano.grid.rendering import (
    CELL,
    CUBE_HALF,
    DENSITY_SHIFT,
    SHARPNESS,
    pixel_rays,
    project,
    ray_points,
    sample_grid,
)

SCALE = 3.0  # of the logits
LEVEL = -0.3  # below 0: the side that errs loses less, since thin parts are the least certain
MAX_OPACITY = 0.95  # that a ray of the photo is given
MAX_RAISE = 12.0  # of a logit
NOISE_SIDE = 3  # nodes of the random field along the cube: seeds differ in proportions
NOISE_STD = 1.2  # of a logit; more gives objects that differ more, and growths
NOISE_LIMIT = 1.5  # of the random numbers: larger ones would fill what is clearly empty
UNSEEN_FROM = 0.2  # depth behind the origin at which half of the noise is added
UNSEEN_WIDTH = 0.05  # of the step
NUM_HALVINGS = 20  # of the interval that holds the raise: to 1e-5


def decided(logits: Tensor) -> Tensor:
    """Density logits of likely places to those of an object.

    At `LEVEL` the density becomes ln 2 a cell.

    Args:
        logits: [...] of the predictor.
    """
    return SCALE * (logits - LEVEL) - DENSITY_SHIFT / SHARPNESS


def surface_logits(grid: Tensor) -> Tensor:
    """A decided grid with density logits that are 0 where `LEVEL` was: at the surface.

    Args:
        grid: [B, 4, G, G, G].
    """
    shift = grid.new_tensor([DENSITY_SHIFT / SHARPNESS, 0, 0, 0])
    return grid + shift[:, None, None, None]


def drawn_noise(generators: Sequence[torch.Generator]) -> Tensor:
    """A smooth random field for each object, whose values are added to density logits.

    Args:
        generators: one for each, on the CPU.

    Returns:
        [B, 1, N, N, N] over the cube of cells, to be sampled trilinearly.
    """
    shape = (1, NOISE_SIDE, NOISE_SIDE, NOISE_SIDE)
    drawn = torch.stack([torch.randn(shape, generator=g) for g in generators])
    return drawn.clamp(-NOISE_LIMIT, NOISE_LIMIT) * NOISE_STD


def unseen_noise(noise: Tensor, points: Tensor, elevation_deg: Tensor) -> Tensor:
    """What noise adds to density logits: nothing where the photo looks. [B, 1, N]

    Args:
        noise: of `drawn_noise`.
        points: [B, N, 3].
        elevation_deg: [B] of the photo's camera.
    """
    _, depths = project(points, torch.zeros_like(elevation_deg), elevation_deg)
    unseen = torch.sigmoid((depths - ORBIT_DISTANCE - UNSEEN_FROM) / UNSEEN_WIDTH)
    return sample_grid(noise, points) * unseen[:, None]


@torch.no_grad()
def ray_raises(
    frustum: Tensor,
    seen: Tensor,
    alpha: Tensor,
    elevation_deg: Tensor,
    span: tuple[float, float],
    noise: Tensor | None = None,
) -> Tensor:
    """What the logits of each ray of the photo lack for its opacity, once they are decided.

    Args:
        frustum: [B, D, H, W] density logits along the photo's rays, near to far.
        seen: [B, S, S] further density logits of each ray.
        alpha: [B, S, S] of the photo.
        elevation_deg: [B] of its camera.
        span: depths of the frustum's ends.
        noise: of `drawn_noise`, or none.

    Returns:
        [B, S, S], at least 0.
    """
    size, num_depths = alpha.shape[-1], frustum.shape[1]
    directions = pixel_rays(size, alpha.device)
    step = (span[1] - span[0]) / num_depths
    depths = span[0] + (torch.arange(num_depths).to(alpha) + 0.5) * step
    points = ray_points(size, depths, elevation_deg)
    inside = (points.abs() < CUBE_HALF).all(-1)
    lengths = directions.norm(dim=-1)[..., None] * step * inside / CELL
    fine = F.interpolate(
        frustum[:, None], (num_depths, size, size), mode="trilinear", align_corners=False
    )
    logits = fine[:, 0].permute(0, 2, 3, 1) + seen[..., None]
    if noise is not None:
        added = unseen_noise(noise, points.flatten(1, 3), elevation_deg)
        logits = logits + added.reshape(logits.shape)
    wanted = -torch.log1p(-alpha.clamp(0, MAX_OPACITY))

    def is_too_clear(raised: Tensor) -> Tensor:
        density = F.softplus(SHARPNESS * decided(logits + raised[..., None]) + DENSITY_SHIFT)
        return (density * lengths).sum(-1) < wanted

    least, most = torch.zeros_like(wanted), torch.full_like(wanted, MAX_RAISE)
    lacking = is_too_clear(least)
    for _ in range(NUM_HALVINGS):
        middle = (least + most) / 2
        clear = is_too_clear(middle)
        least, most = torch.where(clear, middle, least), torch.where(clear, most, middle)
    return torch.where(lacking, most, 0.0)
