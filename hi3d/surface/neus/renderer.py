"""Rendering an `ActiveGrid` along rays and the NeuS objective, in torch.

This is the readable twin of `neus_grid.c`, and what runs on CUDA.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hi3d.surface.grid import ActiveGrid
from hi3d.surface.neus.config import STEP_VOXELS, LossWeights, NeusConfig
from hi3d.surface.neus.losses import (
    loss_bending,
    loss_color,
    loss_color_smoothness,
    loss_curvature,
    loss_eikonal,
    loss_mask,
)
from hi3d.surface.neus.rays import Rays
from hi3d.surface.neus.weights import alphas_from_sdf, weights_from_alphas

MIN_TRANSMITTANCE = 1e-4
"""The native code ends a ray here; what lies behind adds less than this to a pixel."""


@dataclass(frozen=True)
class StepSamples:
    """The random choices of one step, shared by both backends."""

    rays: Rays
    t_near: Tensor  # [B]
    """First sample of each ray, with its random offset."""
    t_far: Tensor  # [B]
    """End of each ray."""
    vertices: Tensor  # [N]
    """Flat indices of the interior vertices at which the regularizers are evaluated."""


def draw_samples(
    grid: ActiveGrid, rays: Rays, config: NeusConfig, generator: torch.Generator
) -> StepSamples:
    """Random offsets along the rays, and random vertices for the regularizers."""
    t_near, t_far = rays.box_interval(grid.bounds)
    device = t_near.device
    jitter = torch.rand(t_near.shape, generator=generator, device=device)
    # Every stride-th vertex from a random one on: as good as a random choice, and kind to caches.
    stride = max(1, len(grid.interior) // config.regularized_vertices)
    start = int(torch.randint(stride, (1,), generator=generator, device=device))
    t_near = t_near + jitter * STEP_VOXELS * grid.voxel_size
    return StepSamples(rays, t_near, t_far, grid.interior[start::stride].contiguous())


def render_rays(
    grid: ActiveGrid,
    samples: StepSamples,
    step: float,
    inv_s: Tensor | float,
) -> tuple[Tensor, Tensor]:
    """Color over white and opacity of rays (NeuS, Eq. 11 to 13).

    Samples lie `step` apart. Two neighbors that both lie in active cells are the `t_starts` and
    `t_ends` of a section, whose color is the mean of theirs.

    Args:
        grid: the field.
        samples: B rays with their ends.
        step: distance between samples, in world units.
        inv_s: sharpness of the logistic CDF.

    Returns:
        rgb [B, 3], opacity [B].
    """
    rays = samples.rays
    length = (samples.t_far - samples.t_near).clamp_min(0).max().item()
    t = samples.t_near[:, None] + step * torch.arange(
        int(length / step) + 2, device=samples.t_near.device
    )
    points = rays.origins[:, None] + t[..., None] * rays.directions[:, None]
    active = grid.contains(points) & (t < samples.t_far[:, None])  # [B, S]
    active_sdf, active_rgb = grid.query(points[active])
    sdf = torch.zeros_like(t).masked_scatter(active, active_sdf)
    rgb = torch.zeros_like(points).masked_scatter(active[..., None], active_rgb)
    joined = active[:, :-1] & active[:, 1:]
    alphas = alphas_from_sdf(sdf[:, :-1], sdf[:, 1:], inv_s) * joined
    weights = weights_from_alphas(alphas)
    section_rgb = 0.5 * (rgb[:, :-1] + rgb[:, 1:])
    opacity = weights.sum(-1)
    return (weights[..., None] * section_rgb).sum(1) + (1 - opacity)[:, None], opacity


def neus_objective(
    grid: ActiveGrid, samples: StepSamples, inv_s: Tensor, step: float, weights: LossWeights
) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum of all losses, to call `backward()` on.

    Args:
        grid: the field.
        samples: of this step.
        inv_s: scalar.
        step: distance between the samples of a ray, in world units.
        weights: of the losses.

    Returns:
        The objective, and its terms without their weights (detached).
    """
    rays = samples.rays
    rgb, opacity = render_rays(grid, samples, step, inv_s)
    gradients, laplacians, rgb_laplacians = grid.stencil(samples.vertices)
    losses = {
        "loss_color": loss_color(rgb, rays.rgb, rays.weights),
        "loss_mask": loss_mask(opacity, rays.alpha, rays.weights),
        "loss_eikonal": loss_eikonal(gradients),
        "loss_curvature": loss_curvature(laplacians),
        "loss_bending": loss_bending(grid.wide_laplacians(samples.vertices)),
        "loss_color_smoothness": loss_color_smoothness(rgb_laplacians),
    }
    total = (
        losses["loss_color"]
        + weights.mask * losses["loss_mask"]
        + weights.eikonal * losses["loss_eikonal"]
        + weights.curvature * losses["loss_curvature"]
        + weights.bending * losses["loss_bending"]
        + weights.color_smoothness * losses["loss_color_smoothness"]
    )
    return total, {name: loss.detach() for name, loss in losses.items()}
