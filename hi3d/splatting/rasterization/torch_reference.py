"""The readable rasterizer in torch: the oracle of the others, and what runs without a compiler."""

import torch
from torch import Tensor

from hi3d.splatting.rasterization.projection import (
    MAX_ALPHA,
    MIN_ALPHA,
    MIN_TRANSMITTANCE,
)
from hi3d.splatting.rasterization.tiles import bin_into_tiles

TILE_SIZE = 16


def rasterize_reference(
    means2d: Tensor,  # [N, 2]
    conics: Tensor,  # [N, 3]
    opacities: Tensor,  # [N]
    features: Tensor,  # [N, C]
    depths: Tensor,  # [N]
    radii: Tensor,  # [N, 2]
    width: int,
    height: int,
    tile_size: int = TILE_SIZE,
) -> tuple[Tensor, Tensor]:
    """Composite projected Gaussians front to back (paper, Equation 3).

    Args:
        means2d: [N, 2] centers in pixels; pixel centers lie at +0.5.
        conics: [N, 3] inverse 2D covariances, xx, xy, yy.
        opacities: [N] in [0, 1].
        features: [N, C] what is blended: colors, depth.
        depths: [N] the order.
        radii: [N, 2] half sizes of the boxes in pixels; 0 leaves a Gaussian out.
        width: of the image in pixels.
        height: of the image in pixels.
        tile_size: changes speed and memory, not the result; one tile may cover the image.

    Returns:
        blended features [C, H, W] over zero, and alpha [H, W] in [0, 1].
    """
    lists = bin_into_tiles(means2d, radii, depths, width, height, tile_size)
    image = features.new_zeros(features.shape[1], height, width)
    alpha = features.new_zeros(height, width)
    tiles_x = -(-width // tile_size)
    offsets = lists.offsets.tolist()
    for tile in range(len(offsets) - 1):
        ids = lists.splat_ids[offsets[tile] : offsets[tile + 1]]
        if len(ids) == 0:
            continue
        left, top = tile % tiles_x * tile_size, tile // tiles_x * tile_size
        right, bottom = min(left + tile_size, width), min(top + tile_size, height)
        y, x = torch.meshgrid(
            torch.arange(top, bottom).to(means2d) + 0.5,
            torch.arange(left, right).to(means2d) + 0.5,
            indexing="ij",
        )
        pixels = torch.stack([x, y], dim=-1).reshape(-1, 2)
        weights = compositing_weights(pixels, means2d[ids], conics[ids], opacities[ids])
        blended = (weights @ features[ids]).T
        image[:, top:bottom, left:right] = blended.reshape(-1, bottom - top, right - left)
        alpha[top:bottom, left:right] = weights.sum(1).reshape(bottom - top, right - left)
    # Part of the graph, with gradients of 0, also where no Gaussian is seen.
    return image + 0 * features.sum(), alpha + 0 * (opacities.sum() + conics.sum() + means2d.sum())


def compositing_weights(
    pixels: Tensor, means2d: Tensor, conics: Tensor, opacities: Tensor
) -> Tensor:
    """What each Gaussian adds to each pixel: sigma_k prod_{j<k} (1 - sigma_j) of Equation 3.

    Args:
        pixels: [P, 2] positions.
        means2d: [N, 2], front to back.
        conics: [N, 3]
        opacities: [N]

    Returns:
        [P, N] weights, which add up to the pixel's alpha.
    """
    dx, dy = (pixels[:, None] - means2d).unbind(-1)  # [P, N]
    power = 0.5 * (conics[:, 0] * dx * dx + conics[:, 2] * dy * dy) + conics[:, 1] * dx * dy
    sigma = (opacities * torch.exp(-power.clamp(min=0))).clamp(max=MAX_ALPHA)
    sigma = torch.where(sigma < MIN_ALPHA, torch.zeros_like(sigma), sigma)
    after = torch.cumprod(1 - sigma, dim=1)
    before = torch.cat([torch.ones_like(after[:, :1]), after[:, :-1]], dim=1)
    # `after` only falls: once below the limit, all Gaussians further back are left out too.
    return torch.where(after > MIN_TRANSMITTANCE, sigma * before, torch.zeros_like(sigma))
