"""Fitting a signed distance field with colours to views (paper, Section 4.4)."""

import math

import torch
from torch import Tensor, nn

from hi3d.cameras import Cameras
from hi3d.errors import InputError
from hi3d.progress import progress_bar
from hi3d.surface.grid import ActiveGrid, GridField, surface_cells
from hi3d.surface.neus.config import (
    LR_INV_S,
    STEP_VOXELS,
    SURFACE_BAND,
    NeusBackend,
    NeusConfig,
)
from hi3d.surface.neus.native import native_is_available, native_objective
from hi3d.surface.neus.network_fit import fit_network
from hi3d.surface.neus.networks import FieldKind
from hi3d.surface.neus.rays import PixelSampler
from hi3d.surface.neus.renderer import draw_samples, neus_objective
from hi3d.surface.neus.start import starting_field
from hi3d.surface.unseen_space import fill_unseen_space
from hi3d.surface.visual_hull import MIN_INSIDE, shows_object
from hi3d.views import Views

INV_S_INIT = 60.0  # of the sharpness, per unit length: the first surface is blurred over voxels
LR_SDF = 1.0  # Adam step of the signed distance, in voxels of the present resolution
LR_RGB = 0.2  # Adam step of the colour logits
LR_DECAY = 0.1  # learning rates fall to this share over the fit
REPORT_EVERY = 20


def fit_neus(
    views: Views,
    config: NeusConfig | None = None,
    seed: int = 0,
    view_weights: Tensor | None = None,
    start: GridField | None = None,
) -> GridField:
    """Fit a field to views: a grid coarse to fine from a first shape, or networks within the hull.

    Args:
        views: V views; runs on their device.
        config: settings; None = the defaults.
        seed: of the random rays. The same seed and number of threads give the same field on a CPU.
        view_weights: [V] weight of each view in the image losses; None = all 1. Weights below 1
            let interpolated views count less than the given ones. Views that show no object are
            left out.
        start: what a field of kind `predicted` starts from; None: the views' hull.

    Returns:
        The field at the last resolution. It always holds a surface.

    Raises:
        InputError: no view shows an object, none shows background, or the backend cannot run here.
    """
    config = config or NeusConfig()
    if view_weights is None:
        view_weights = torch.ones(len(views))
    if view_weights.shape != (len(views),):
        raise ValueError(f"view_weights must be [{len(views)}], got {tuple(view_weights.shape)}")
    shown = shows_object(views).nonzero()[:, 0]
    if len(shown) < len(views):
        views, view_weights = views[shown], view_weights.to(shown.device)[shown]
    views = views.shrunk(config.image_resolution)
    device = views.rgb.device
    generator = torch.Generator(device).manual_seed(seed)
    sampler = PixelSampler(views, view_weights)
    objective = (
        neus_objective if chosen_backend(config, device) is NeusBackend.torch else native_objective
    )
    sharpness = Sharpness(config).to(device)
    field = starting_field(views, config, start)
    if config.field is FieldKind.mlp:
        network_field = fit_network(sampler, field, sharpness, config, generator)
        return finished(network_field, field, views.cameras)
    step = 0
    with progress_bar() as bar:
        task = bar.add_task("NeuS", total=config.steps, status="")
        for level, end in zip(config.resolutions, level_ends(config), strict=True):
            field = field.resampled(level)
            grid = ActiveGrid(field, active_cells(field, first=step == 0))
            optimizer = make_optimizer(grid, sharpness)
            while step < end:
                progress = step / config.steps
                decay_learning_rates(optimizer, progress)
                rays = sampler.sample(config.rays_per_step, generator)
                samples = draw_samples(grid, rays, config, generator)
                inv_s, weights = sharpness(progress), config.loss_weights(progress)
                total, losses = objective(
                    grid, samples, inv_s, STEP_VOXELS * grid.voxel_size, weights
                )
                optimizer.zero_grad(set_to_none=True)
                total.backward()
                optimizer.step()
                step += 1
                if step % REPORT_EVERY == 0 or step == config.steps:
                    status = f"color {losses['loss_color']:.4f}  inv_s {inv_s.item():.0f}"
                    bar.update(task, completed=step, status=status)
            field = finished(grid.to_field(), field, views.cameras)
    return field


class Sharpness(nn.Module):
    """`inv_s` of the logistic CDF: learned as in NeuS, and kept above a rising floor.

    Learned alone it lags behind in a fit of some hundred steps and leaves a blurred surface, so by
    default the floor leads. `inv_s_floor=0` is the paper's.
    """

    def __init__(self, config: NeusConfig):
        super().__init__()
        self.floor = config.inv_s_floor
        # NeuS: inv_s = exp(10 variance), so that a common Adam step suits it.
        self.variance = nn.Parameter(torch.tensor(math.log(INV_S_INIT) / 10))

    def forward(self, progress: float) -> Tensor:
        """The scalar `inv_s` at a share `progress` of the steps."""
        learned = torch.exp(10 * self.variance)
        if self.floor <= 0:
            return learned
        return learned.clamp_min(INV_S_INIT * (self.floor / INV_S_INIT) ** progress)


def active_cells(field: GridField, first: bool) -> Tensor:
    """Cells in which a level samples: all at first, later a band around the surface."""
    if first:
        return torch.ones((field.resolution - 1,) * 3, dtype=torch.bool, device=field.sdf.device)
    return surface_cells(field.sdf, SURFACE_BAND)


def make_optimizer(grid: ActiveGrid, sharpness: Sharpness) -> torch.optim.Optimizer:
    """Adam over the grid and the sharpness, with a learning rate for each."""
    groups = [
        {"params": [grid.sdf], "lr": LR_SDF * grid.voxel_size},
        {"params": [grid.rgb_logits], "lr": LR_RGB},
        {"params": [sharpness.variance], "lr": LR_INV_S},
    ]
    for group in groups:
        group["initial_lr"] = group["lr"]
    # A vertex's share of a mean over thousands of rays is far below Adam's usual epsilon.
    return torch.optim.Adam(groups, betas=(0.9, 0.99), eps=1e-15, fused=True)


def finished(field: GridField, earlier: GridField, cameras: Cameras) -> GridField:
    """`field` without unseen pockets, or the earlier one if there is no surface worth the name."""
    if (field.sdf < 0).sum() < MIN_INSIDE:
        return earlier
    return fill_unseen_space(field, cameras)


def decay_learning_rates(optimizer: torch.optim.Optimizer, progress: float) -> None:
    """Exponential decay to `LR_DECAY` at progress 1."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * LR_DECAY**progress


def level_ends(config: NeusConfig) -> list[int]:
    """The step at which each resolution gives way to the next."""
    return [round(start * config.steps) for start in config.resolution_starts[1:]] + [config.steps]


def chosen_backend(config: NeusConfig, device: torch.device) -> NeusBackend:
    """`native` or `torch`, for a report and for the fit.

    Raises:
        InputError: native code was asked for where it cannot run.
    """
    native_runs = device.type == "cpu" and native_is_available()
    if config.backend is NeusBackend.native and not native_runs:
        raise InputError("backend native needs the CPU and a C compiler: use backend=auto")
    if config.backend is NeusBackend.auto:
        return NeusBackend.native if native_runs else NeusBackend.torch
    return config.backend
