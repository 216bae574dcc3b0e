"""Gaussian splats fitted to views, and the interpolated views rendered from them (Section 4.4)."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from hi3d.cameras import Cameras, between_views, concatenate_cameras, look_at_origin
from hi3d.errors import InputError
from hi3d.evaluation.lpips import Lpips
from hi3d.progress import progress_bar
from hi3d.splats import GaussianSplats
from hi3d.splatting.densification import DensifyConfig
from hi3d.splatting.density import FitStep, density_control
from hi3d.splatting.initialization import (
    hull_points,
    initial_hull,
    initial_splats,
    mean_colors,
)
from hi3d.splatting.losses import (
    SplatLossConfig,
    ViewColors,
    ViewWeights,
    loss_color,
    loss_pixels,
    loss_size,
)
from hi3d.splatting.parameters import SplatParameters
from hi3d.splatting.rasterization.render import Backend, rasterize
from hi3d.views import Views

CROP_ALPHA = 0.02  # fainter pixels do not widen the crop
CROP_TILE = 16  # sides of crops are multiples of it, as the rasterisers work in such tiles
MIN_HALF_HEIGHT = 128  # pixels; views are not reduced below it
WHOLE_EVERY = 8  # steps between whole images, which keep what lies beyond the crops clean


@dataclass
class SplatConfig:
    """Settings of `fit_splats`."""

    steps: int = 400
    """One view each."""
    num_initial: int = 10000
    """Gaussians in the visual hull at the start."""
    surface_share: float = 0.7
    """Of them, discs on the hull's surface; the others are a fog within it."""
    max_splats: int = 16000
    initial_opacity: float = 0.1
    half_extent: float = 0.55
    """The hull is searched in [-half_extent, half_extent]^3; the object's longest side is 1."""
    hull_resolution: int = 64
    sh_degree: int = 0
    """Of the colours' spherical harmonics, 0 to 3; 0 = the same from everywhere."""
    antialiased: bool = False
    """Compensate the widening of Gaussians thinner than a pixel (Mip-Splatting). The splats are
    then to be rendered so too, which most viewers do not."""
    crop_margin: int = 16
    """Pixels around the silhouette that most steps look at; the rest is empty. -1 = whole images
    at every step."""

    half_size_share: float = 0.5
    """First share of the steps, which look at views of half the size: as good a start in less time.
    Small views are not halved."""

    lr_means: float = 2e-3
    lr_quats: float = 1e-2
    lr_log_scales: float = 1e-2
    lr_logit_opacities: float = 5e-2
    lr_sh: float = 2e-2
    """Of the constant harmonic; the others get a twentieth, as in 3DGS."""
    final_lr: float = 0.03
    """Share of the learning rates that is left at the end (exponential decay)."""

    loss: SplatLossConfig = field(default_factory=SplatLossConfig)
    color_affine: bool = False
    """Learn an affine map of the colours for each view, for views that differ in exposure or
    tint."""
    lr_color_affine: float = 2e-3
    adaptive_view_weights: bool = False
    """Lower the weight of views that are explained much worse than the median."""
    densify: DensifyConfig = field(default_factory=DensifyConfig)
    backend: Backend = "auto"


def fit_splats(
    views: Views,
    config: SplatConfig | None = None,
    seed: int = 0,
    init_points: Tensor | None = None,
    init_colors: Tensor | None = None,
    view_weights: Tensor | None = None,
) -> GaussianSplats:
    """Fit Gaussians to views, on the views' device (Section 4.4, first half).

    Args:
        views: V views over white with alpha.
        config: settings; None = the defaults.
        seed: of initialisation, order of the views and splits.
        init_points: [N, 3] to start from instead of the visual hull, for example points of a
            coarse mesh.
        init_colors: [N, 3] in [0, 1] for them; None = the mean of what the views show.
        view_weights: [V], at least 0, of each view's loss; None = 1. Views of weight 0 are not
            looked at.

    Returns:
        Detached splats.

    Raises:
        InputError: the views show no object, a setting is out of its range, or LPIPS is asked for
            and its weights are not to be had.
    """
    config = config or SplatConfig()
    _check(config, len(views), view_weights)
    device = views.rgb.device
    views = views.to(device)  # the cameras may lie elsewhere
    generator = torch.Generator(device=device).manual_seed(seed)
    weights = [1.0] * len(views) if view_weights is None else view_weights.tolist()
    used = [view for view, weight in enumerate(weights) if weight > 0]
    normals = None
    if init_points is None:
        hull = initial_hull(views[used], config.half_extent, config.hull_resolution)
        init_points, normals = hull_points(
            hull, config.num_initial, config.surface_share, config.half_extent, generator
        )
    if init_colors is None:
        init_colors = mean_colors(views[used], init_points)
    splats = initial_splats(
        init_points.to(device).float(),
        init_colors.to(device).float(),
        config.initial_opacity,
        config.sh_degree,
        normals,
    )
    parameters = SplatParameters(splats, _learning_rates(config))
    density = density_control(config.densify, config.steps, config.max_splats, generator)
    colors = ViewColors(len(views), config.lr_color_affine, device) if config.color_affine else None
    adaptive = ViewWeights(len(views)) if config.adaptive_view_weights else None
    lpips = Lpips(config.loss.lpips).to(device) if config.loss.lambda_lpips > 0 else None
    half = views.shrunk(max(MIN_HALF_HEIGHT, views.cameras.height // 2))
    targets = FitTargets(half, config.crop_margin)
    order: list[int] = []
    with progress_bar() as bar:
        task = bar.add_task("Gaussian splats", total=config.steps, status="")
        for step in range(config.steps):
            if step == round(config.half_size_share * config.steps):
                targets = FitTargets(views, config.crop_margin)
            parameters.decay(config.final_lr ** (step / config.steps))
            if not order:
                shuffled = torch.randperm(len(used), generator=generator, device=device).tolist()
                order = [used[place] for place in shuffled]
            view = order.pop()
            target = targets.of(view, whole=step % WHOLE_EVERY == 0)
            splats = parameters.splats()
            rendered = rasterize(
                splats, target.cameras, backend=config.backend, antialiased=config.antialiased
            )
            rgb = rendered.rgb
            if colors is not None:
                rgb = colors.apply(view, rgb, rendered.alpha)
            loss = loss_color(rgb, target.rgb, config.loss, lpips)
            loss_alpha = loss_pixels(rendered.alpha, target.alpha, config.loss)
            loss = loss + config.loss.lambda_alpha * loss_alpha
            loss = loss * targets.share_of(target)
            status = f"loss {loss.item():.4f}, {len(parameters)} splats" if step % 20 == 0 else ""
            weight = weights[view]
            if adaptive is not None:
                weight *= adaptive.weight(view, loss.item())
            loss = weight * loss + loss_size(splats, config.loss)
            if rendered.means2d.requires_grad:
                rendered.means2d.retain_grad()
            loss.backward()
            parameters.step()
            if colors is not None:
                colors.step()
            if density is not None:
                density.after_step(parameters, FitStep(step, rendered, targets.size))
            if status:
                bar.update(task, status=status)
            bar.advance(task)
    return parameters.splats().detach()


class FitTargets:
    """What the steps of a fit look at: whole views, or their parts around the object."""

    def __init__(self, views: Views, crop_margin: int):
        """Args:
        views: V views.
        crop_margin: of `crop_to_object`.
        """
        self.views, self.crop_margin = views, crop_margin
        self.size = (views.cameras.width, views.cameras.height)
        self._crops: dict[int, Views] = {}

    def of(self, view: int, whole: bool) -> Views:
        """One view, whole or cropped."""
        if whole:
            return self.views[view]
        if view not in self._crops:
            self._crops[view] = crop_to_object(self.views[view], self.crop_margin)
        return self._crops[view]

    def share_of(self, target: Views) -> float:
        """Turns a mean over a crop's pixels into that over the whole image, beyond the crop 0."""
        return target.alpha.numel() / self.views.alpha[0].numel()


def render_between_views(
    splats: GaussianSplats,
    cameras: Cameras,
    num_views: int,
    backend: Backend = "auto",
    antialiased: bool = False,
    other_elevations_deg: Sequence[float] = (),
) -> Views:
    """The M interpolated views F* between the neighbouring views of an orbit (Section 4.4).

    Args:
        splats: fitted to the orbit.
        cameras: of the orbit.
        num_views: M; the paper takes 16 (Table 4).
        backend: of `rasterize`.
        antialiased: as in the fit.
        other_elevations_deg: for each, another M views at the same azimuths and distances follow.

    Returns:
        M (1 + number of other elevations) views over white.

    Raises:
        InputError: an elevation is not within (-90, 90).
    """
    between = between_cameras(cameras.to(splats.means.device), num_views, other_elevations_deg)
    size = (between.height, between.width)
    rgb = splats.means.new_zeros(len(between), 3, *size)
    alpha = splats.means.new_zeros(len(between), 1, *size)
    splats = splats.detach()
    with torch.no_grad():
        for view in range(len(between)):
            rendered = rasterize(splats, between[view], backend=backend, antialiased=antialiased)
            rgb[view] = rendered.rgb[0].clamp(0, 1)
            alpha[view] = rendered.alpha[0].clamp(0, 1)
    return Views(rgb, alpha, between)


def between_cameras(
    cameras: Cameras, num_views: int, other_elevations_deg: Sequence[float] = ()
) -> Cameras:
    """The cameras of `render_between_views`.

    Raises:
        InputError: an elevation is not within (-90, 90).
    """
    between = between_views(cameras, num_views)
    everything = between
    for elevation_deg in other_elevations_deg:
        if not -90 < elevation_deg < 90:
            raise InputError(f"elevation {elevation_deg}: give degrees between -90 and 90")
        if num_views == 0:
            continue
        azimuth = torch.deg2rad(between.azimuth_deg)
        elevation = torch.deg2rad(torch.full_like(azimuth, elevation_deg))
        positions = between.positions.norm(dim=-1, keepdim=True) * torch.stack(
            [azimuth.cos() * elevation.cos(), azimuth.sin() * elevation.cos(), elevation.sin()],
            dim=-1,
        )
        moved = replace(between, viewmats=look_at_origin(positions))
        everything = concatenate_cameras(everything, moved)
    return everything


def crop_to_object(view: Views, margin: int) -> Views:
    """The part of a view around its silhouette, its sides multiples of `CROP_TILE`.

    Args:
        view: a single view.
        margin: pixels around the silhouette; below 0 the whole view is returned.

    Returns:
        a single view with the principal point moved; the whole one where it shows no object.
    """
    height, width = view.alpha.shape[-2:]
    rows = (view.alpha[0, 0] > CROP_ALPHA).any(1).nonzero()[:, 0]
    columns = (view.alpha[0, 0] > CROP_ALPHA).any(0).nonzero()[:, 0]
    if margin < 0 or len(rows) == 0:
        return view
    top, bottom = _span(int(rows[0]) - margin, int(rows[-1]) + 1 + margin, height)
    left, right = _span(int(columns[0]) - margin, int(columns[-1]) + 1 + margin, width)
    Ks = view.cameras.Ks.clone()
    Ks[:, 0, 2] -= left
    Ks[:, 1, 2] -= top
    cameras = Cameras(view.cameras.viewmats, Ks, right - left, bottom - top)
    return Views(
        view.rgb[..., top:bottom, left:right].contiguous(),
        view.alpha[..., top:bottom, left:right].contiguous(),
        cameras,
    )


def _span(first: int, end: int, size: int) -> tuple[int, int]:
    """[first, end) within [0, size), grown to a multiple of `CROP_TILE` where there is room."""
    length = min(size, -(-(end - first) // CROP_TILE) * CROP_TILE)
    first = min(max(first, 0), size - length)
    return first, first + length


def _learning_rates(config: SplatConfig) -> dict[str, float]:
    return {
        "means": config.lr_means,
        "quats": config.lr_quats,
        "scales": config.lr_log_scales,
        "opacities": config.lr_logit_opacities,
        "sh0": config.lr_sh,
        "shN": config.lr_sh / 20,
    }


def _check(config: SplatConfig, num_views: int, view_weights: Tensor | None) -> None:
    """Reject settings that have no meaning."""
    if not 0 <= config.sh_degree <= 3:
        raise InputError(f"sh_degree={config.sh_degree}: give 0, 1, 2 or 3")
    for name in ("half_size_share", "surface_share"):
        if not 0 <= getattr(config, name) <= 1:
            raise InputError(f"{name}={getattr(config, name)}: give a share from 0 to 1")
    if not 0 <= config.loss.trim_share < 1:
        raise InputError(f"trim_share={config.loss.trim_share}: give a share from 0 to below 1")
    if view_weights is not None and view_weights.shape != (num_views,):
        raise ValueError(f"view_weights must be [{num_views}], got {list(view_weights.shape)}")
    if view_weights is not None and not (view_weights >= 0).all():
        raise ValueError("view_weights must be 0 or more")
    if view_weights is not None and not (view_weights > 0).any():
        raise InputError("all views have weight 0: give at least one of them more")
