"""Sections of rays within occupied cells: nerfacc's kernels on CUDA, torch elsewhere."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hi3d.surface.neus.rays import Rays
from hi3d.surface.neus.weights import weights_from_alphas


@dataclass(frozen=True)
class Sections:
    """S sections of B rays, ray after ray and front to back."""

    ray_indices: Tensor  # [S] int64
    """Ray of each section, not falling."""
    t_starts: Tensor  # [S]
    t_ends: Tensor  # [S]


def march(
    rays: Rays,
    occupied: Tensor,  # [R, R, R]
    half_extent: float,
    step: float,
    generator: torch.Generator,
) -> Sections:
    """Cut rays into sections of equal length, of which those in occupied cells are kept.

    Args:
        rays: B rays.
        occupied: [R, R, R] bool, cells of the cube [-half_extent, half_extent]^3.
        half_extent: in world units.
        step: length of a section, in world units.
        generator: of the random offset of each ray.
    """
    corner = torch.full((3,), half_extent, device=occupied.device)
    t_near, t_far = rays.box_interval(torch.stack([-corner, corner]))
    offsets = torch.rand(t_near.shape, generator=generator, device=t_near.device) * step
    if occupied.device.type == "cuda":
        return _march_cuda(rays, occupied, half_extent, step, t_near + offsets, t_far)
    length = (t_far - t_near).clamp_min(0).max().item()
    t = (t_near + offsets)[:, None] + step * torch.arange(
        int(length / step) + 1, device=t_near.device
    )
    middles = t + 0.5 * step
    points = rays.origins[:, None] + middles[..., None] * rays.directions[:, None]
    kept = cell_values(occupied, points, half_extent) & (middles < t_far[:, None])
    ray_indices = kept.nonzero()[:, 0]
    return Sections(ray_indices, t[kept], t[kept] + step)


def _march_cuda(
    rays: Rays, occupied: Tensor, half_extent: float, step: float, t_near: Tensor, t_far: Tensor
) -> Sections:
    from nerfacc import OccGridEstimator

    corner = [half_extent] * 3
    estimator = OccGridEstimator([-h for h in corner] + corner, occupied.shape[0], levels=1)
    estimator = estimator.to(occupied.device)
    estimator.binaries = occupied[None]
    ray_indices, t_starts, t_ends = estimator.sampling(
        rays.origins,
        rays.directions,
        t_min=t_near,
        t_max=t_far,
        render_step_size=step,
        stratified=False,
    )
    return Sections(ray_indices, t_starts, t_ends)


def cell_values(cells: Tensor, points: Tensor, half_extent: float) -> Tensor:
    """The value of the cell in which each point lies.

    Args:
        cells: [R, R, R] of the cube [-half_extent, half_extent]^3.
        points: [..., 3]; outside the cube the nearest cell counts.
        half_extent: in world units.

    Returns:
        [...]
    """
    resolution = cells.shape[0]
    index = ((points + half_extent) * (resolution / (2 * half_extent))).long()
    x, y, z = index.clamp(0, resolution - 1).unbind(-1)
    return cells[x, y, z]


def section_weights(alphas: Tensor, sections: Sections, num_rays: int) -> Tensor:
    """NeuS weights (Eq. 11 and 12) of sections that lie one after the other in memory.

    Args:
        alphas: [S] opacities in [0, 1).
        sections: S sections of B rays.
        num_rays: B.

    Returns:
        [S]
    """
    if alphas.device.type == "cuda":
        from nerfacc import render_weight_from_alpha

        return render_weight_from_alpha(alphas, ray_indices=sections.ray_indices, n_rays=num_rays)[
            0
        ]
    counts = torch.bincount(sections.ray_indices, minlength=num_rays)
    firsts = counts.cumsum(0) - counts
    place = torch.arange(len(alphas), device=alphas.device) - firsts[sections.ray_indices]
    table = alphas.new_zeros(num_rays, max(int(counts.max()), 1))
    table = table.index_put((sections.ray_indices, place), alphas)
    return weights_from_alphas(table)[sections.ray_indices, place]
