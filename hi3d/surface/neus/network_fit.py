"""Fitting NeuS's own MLP to views, instead of the grid (paper, Section 4.4)."""

import math

import torch
from torch import Tensor
from torch.nn.functional import interpolate, max_pool3d

from hi3d.progress import progress_bar
from hi3d.surface.grid import GridField, dilated, surface_cells
from hi3d.surface.neus.config import (
    LAMBDA_MASK,
    LR_INV_S,
    STEP_VOXELS,
    SURFACE_BAND,
    NeusConfig,
)
from hi3d.surface.neus.losses import loss_color, loss_eikonal, loss_mask
from hi3d.surface.neus.marching import Sections, march, section_weights
from hi3d.surface.neus.networks import FieldNetwork
from hi3d.surface.neus.rays import PixelSampler, Rays
from hi3d.surface.neus.weights import alphas_from_slopes
from hi3d.surface.visual_hull import grid_points

LAMBDA_EIKONAL = 0.1  # of the MLP, as in NeuS
COS_ANNEAL_SHARE = 0.2  # of the steps, until the slope along a ray is the true one
MARCH_RESOLUTION = 128  # cells a side of the grid that says where rays are sampled
UPDATE_EVERY = 100  # steps between updates of that grid
WARM_UP = 0.05
LAST_RATE = 0.05
QUERY_CHUNK = 2**17  # points evaluated at once
REPORT_EVERY = 20


def fit_network(
    sampler: PixelSampler,
    hull: GridField,
    sharpness: torch.nn.Module,
    config: NeusConfig,
    generator: torch.Generator,
) -> GridField:
    """Fit a `FieldNetwork` and read it out on a grid.

    Args:
        sampler: of the views' pixels.
        hull: signed distance of the visual hull, within which rays are sampled.
        sharpness: `inv_s` as a function of the share of steps done.
        config: `network` has the sizes; the losses' lambdas are NeuS's own.
        generator: of rays and offsets, on the views' device.

    Returns:
        The field at the last of `config.resolutions`.
    """
    settings, half_extent = config.network, hull.half_extent
    device = hull.sdf.device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator.initial_seed())
        network = FieldNetwork(settings.layers, settings.size).to(device)
    inside_hull = hull_cells(hull, MARCH_RESOLUTION)
    occupied = inside_hull
    rates = [(network, settings.lr), (sharpness, LR_INV_S)]
    optimizer = torch.optim.Adam(
        [
            {"params": list(module.parameters()), "lr": rate, "initial_lr": rate}
            for module, rate in rates
        ],
        eps=1e-15,
    )
    section = STEP_VOXELS * 2 * half_extent / MARCH_RESOLUTION
    with progress_bar() as bar:
        task = bar.add_task("NeuS", total=config.steps, status="")
        for step in range(config.steps):
            done = step / config.steps
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * rate_factor(done)
            if step and step % UPDATE_EVERY == 0:
                occupied = near_surface(network, inside_hull, half_extent)
                occupied = occupied if occupied.any() else inside_hull
            rays = sampler.sample(settings.rays_per_step, generator)
            sections = march(rays, occupied, half_extent, section, generator)
            anneal = min(1.0, done / COS_ANNEAL_SHARE)
            rgb, opacity, gradients = render_sections(
                network, rays, sections, sharpness(done), anneal
            )
            color = loss_color(rgb, rays.rgb, rays.weights)
            mask = loss_mask(opacity, rays.alpha, rays.weights)
            eikonal = loss_eikonal(gradients) if len(gradients) else color.new_zeros(())
            total = color + LAMBDA_MASK * mask + LAMBDA_EIKONAL * eikonal
            optimizer.zero_grad(set_to_none=True)
            total.backward()
            optimizer.step()
            if (step + 1) % REPORT_EVERY == 0 or step + 1 == config.steps:
                bar.update(task, completed=step + 1, status=f"color {color.item():.4f}")
    return read_out(network, hull, config.resolutions[-1])


def render_sections(
    network: FieldNetwork,
    rays: Rays,
    sections: Sections,
    inv_s: Tensor,
    cos_anneal_ratio: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Color over white, opacity, and the SDF's gradients in the middle of the sections.

    Args:
        network: the field.
        rays: B rays.
        sections: S sections of them.
        inv_s: sharpness of the logistic CDF.
        cos_anneal_ratio: see `alphas_from_slopes`.

    Returns:
        rgb [B, 3], opacity [B], gradients [S, 3].
    """
    from nerfacc import accumulate_along_rays

    of_ray = sections.ray_indices
    middles = 0.5 * (sections.t_starts + sections.t_ends)
    directions = rays.directions[of_ray]
    points = rays.origins[of_ray] + middles[:, None] * directions
    sdf, gradients, rgb = network(points)
    cos = (directions * gradients).sum(-1)
    alphas = alphas_from_slopes(
        sdf, cos, sections.t_starts, sections.t_ends, inv_s, cos_anneal_ratio
    )
    count = len(rays.rgb)
    weights = section_weights(alphas, sections, count)
    opacity = accumulate_along_rays(weights, None, of_ray, count)
    over_white = accumulate_along_rays(weights, rgb, of_ray, count) + 1 - opacity
    return over_white, opacity[:, 0], gradients


def hull_cells(hull: GridField, resolution: int) -> Tensor:
    """Cells that touch the visual hull, with their neighbors. [R, R, R] bool"""
    inside = (hull.sdf < hull.voxel_size).float()[None, None]
    cells = interpolate(inside, size=(resolution,) * 3, mode="trilinear", align_corners=True)
    return dilated(cells[0, 0] > 0, 1)


def near_surface(network: FieldNetwork, inside_hull: Tensor, half_extent: float) -> Tensor:
    """Cells of the hull within `SURFACE_BAND` cells of the zero level set. [R, R, R] bool"""
    sdf = distances(network, cell_vertices(inside_hull), half_extent)
    return inside_hull & surface_cells(sdf, SURFACE_BAND)


def cell_vertices(cells: Tensor) -> Tensor:
    """Vertices of a set of cells. [R, R, R] -> [R + 1, R + 1, R + 1] bool"""
    return max_pool3d(cells[None, None].float(), 2, stride=1, padding=1)[0, 0] > 0


@torch.no_grad()
def distances(network: FieldNetwork, wanted: Tensor, half_extent: float) -> Tensor:
    """Signed distance at the wanted vertices of a grid; far outside at the others.

    Args:
        network: the field.
        wanted: [R, R, R] bool.
        half_extent: the vertices span [-half_extent, half_extent].

    Returns:
        [R, R, R]
    """
    points = grid_points(len(wanted), half_extent, wanted.device)[wanted.flatten()]
    values = [network.geometry(part)[0] for part in points.split(QUERY_CHUNK)]
    sdf = torch.full(wanted.shape, half_extent, device=wanted.device)
    return sdf.masked_scatter(wanted, torch.cat(values))


@torch.no_grad()
def read_out(network: FieldNetwork, hull: GridField, resolution: int) -> GridField:
    """The network's values on a grid of `resolution` vertices a side, colors near the surface."""
    half_extent = hull.half_extent
    sdf = distances(network, cell_vertices(hull_cells(hull, resolution - 1)), half_extent)
    colored = cell_vertices(surface_cells(sdf, dilation=2))
    rgb = torch.full((*sdf.shape, 3), 0.5, device=sdf.device)
    points = grid_points(resolution, half_extent, sdf.device)[colored.flatten()]
    if len(points):
        rgb[colored] = torch.cat([network(p)[2] for p in points.split(QUERY_CHUNK)])
    return GridField(sdf, rgb.clamp(1e-4, 1 - 1e-4).logit(), half_extent)


def rate_factor(done: float) -> float:
    """Factor on the learning rates: linear warm-up, then a cosine to `LAST_RATE` (NeuS, App. E)."""
    if done < WARM_UP:
        return max(done, 1e-3) / WARM_UP
    share = (done - WARM_UP) / (1 - WARM_UP)
    return LAST_RATE + (1 - LAST_RATE) * 0.5 * (1 + math.cos(math.pi * share))
