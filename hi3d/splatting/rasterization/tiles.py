"""Which Gaussians touch which tile of the image, front to back."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TileLists:
    """The Gaussians of every tile; tiles are numbered row by row."""

    splat_ids: Tensor  # [M] int64
    """Gaussians of all tiles, tile after tile, front to back in each."""
    offsets: Tensor  # [T + 1] int64
    """Tile t owns `splat_ids[offsets[t] : offsets[t + 1]]`."""
    slots: Tensor  # [M] int64
    """Where each entry of `splat_ids` stands when the entries are ordered by Gaussian."""
    firsts: Tensor  # [N + 1] int64
    """The first of those places of each Gaussian."""


@torch.no_grad()
def bin_into_tiles(
    means2d: Tensor,  # [N, 2]
    radii: Tensor,  # [N, 2]
    depths: Tensor,  # [N]
    width: int,
    height: int,
    tile_size: int,
) -> TileLists:
    """List the Gaussians of every tile, sorted by depth.

    Args:
        means2d: [N, 2] centers in pixels.
        radii: [N, 2] half sizes of their boxes in pixels; 0 leaves a Gaussian out.
        depths: [N] the sort key.
        width: of the image in pixels.
        height: of the image in pixels.
        tile_size: side of a tile in pixels.
    """
    size = torch.tensor([-(-width // tile_size), -(-height // tile_size)]).to(means2d)
    # Half a pixel less, as pixel centers lie at +0.5; 0.01 px more, against rounding.
    low = ((means2d - radii - 0.51) / tile_size).floor().clamp(min=0).minimum(size)
    high = ((means2d + radii + 0.01) / tile_size).floor().add(1).clamp(min=0).minimum(size)
    spans = torch.where((radii > 0).all(-1, keepdim=True), high - low, torch.zeros_like(low))
    spans = spans.clamp(min=0).long()  # [N, 2]
    counts = spans.prod(-1)
    firsts = torch.nn.functional.pad(counts.cumsum(0), (1, 0))

    ids = torch.repeat_interleave(torch.arange(len(counts)).to(counts), counts)
    place = torch.arange(len(ids)).to(ids) - firsts[ids]  # which tile of the Gaussian's own
    columns = spans[ids, 0].clamp(min=1)
    num_x, num_y = int(size[0]), int(size[1])
    x = low[ids, 0].long() + place % columns
    y = low[ids, 1].long() + place // columns
    tiles = y * num_x + x

    rank = torch.empty_like(counts)
    rank[torch.argsort(depths, stable=True)] = torch.arange(len(counts)).to(counts)
    order = torch.argsort(tiles * len(counts) + rank[ids])
    per_tile = torch.bincount(tiles, minlength=num_x * num_y)
    offsets = torch.nn.functional.pad(per_tile.cumsum(0), (1, 0))
    return TileLists(ids[order], offsets, order, firsts)
