"""Gaussian splats fitted to views, and the interpolated views rendered from them (Section 4.4)."""

from dataclasses import dataclass
from typing import get_args

import torch

from hi3d.cameras import Cameras, between_views
from hi3d.config import check_choice, check_number
from hi3d.errors import InputError
from hi3d.progress import progress_bar
from hi3d.splats import GaussianSplats
from hi3d.splatting.density import DensityStrategy, FitStep, density_control
from hi3d.splatting.initialization import InitialPoints, initial_splats, mean_colors
from hi3d.splatting.losses import loss_view
from hi3d.splatting.parameters import SplatParameters
from hi3d.splatting.rasterization.render import SplatBackend, rasterize
from hi3d.views import Views

CROP_MARGIN = 16  # pixels around the silhouette that most steps look at; the rest is empty
CROP_ALPHA = 0.02  # fainter pixels do not widen the crop
CROP_TILE = 16  # sides of crops are multiples of it, as the rasterizers work in such tiles
WHOLE_EVERY = 8  # steps between whole images, which keep what lies beyond the crops clean
HALF_SIZE_SHARE = 0.5  # of the steps, that see views of half the size: as good a start, sooner
MIN_HALF_HEIGHT = 128  # pixels; views are not reduced below it
INITIAL_OPACITY = 0.1
LEARNING_RATES = {
    "means": 2e-3,  # world units
    "quats": 1e-2,
    "scales": 1e-2,  # of their logarithms
    "opacities": 5e-2,  # of their logits
    "sh0": 2e-2,
    "shN": 1e-3,  # a twentieth of the constant harmonic's, as in 3DGS
}
FINAL_RATE = 0.03  # share of the learning rates that is left at the end (exponential decay)
REPORT_EVERY = 20


@dataclass
class SplatConfig:
    """Settings of `fit_splats`."""

    steps: int = 400
    """One view each; 0 to 1e6."""
    num_initial: int = 10000
    """Gaussians at the start, 1 to 1e7."""
    max_splats: int = 16000
    """Beyond so many none are added; 1 to 1e7."""
    sh_degree: int = 0
    """Of the colors' spherical harmonics, 0 to 3; 0 = the same from everywhere. 1 gains some 0.3
    dB for four times the numbers of a color."""
    density: DensityStrategy = "capped"
    """How the number of Gaussians changes: "capped"; "gsplat" and "mcmc" are gsplat's own
    strategies and need CUDA."""
    backend: SplatBackend = "auto"
    """Which rasterizer draws: "auto", "gsplat" (CUDA), "native" (C on the CPU) or "torch"."""

    def __post_init__(self) -> None:
        check_number("splats.steps", self.steps, 0, 1e6)
        check_number("splats.num_initial", self.num_initial, 1, 1e7)
        check_number("splats.max_splats", self.max_splats, 1, 1e7)
        check_number("splats.sh_degree", self.sh_degree, 0, 3)
        check_choice("splats.density", self.density, get_args(DensityStrategy))
        check_choice("splats.backend", self.backend, get_args(SplatBackend))


def fit_splats(
    views: Views, points: InitialPoints, config: SplatConfig, generator: torch.Generator
) -> GaussianSplats:
    """Fit Gaussians to views, on the views' device (Section 4.4, first half).

    Args:
        views: V views over white with alpha.
        points: where the Gaussians start, for example `initial_points` of the views' hull.
        config: settings; `num_initial` is for the caller, who makes the points.
        generator: on the views' device, of the order of the views and of splits.

    Returns:
        Detached splats.

    Raises:
        InputError: gsplat's strategies are asked for without CUDA.
    """
    device = views.rgb.device
    if config.density != "capped" and device.type != "cuda":
        raise InputError(f"splats.density is {config.density}: without CUDA give capped")
    views = views.to(device)  # the cameras may lie elsewhere
    parameters = SplatParameters(_first_splats(views, points, config), LEARNING_RATES)
    density = density_control(config.density, config.steps, config.max_splats, generator)
    half = views.shrunk(max(MIN_HALF_HEIGHT, views.cameras.height // 2))
    targets = FitTargets(half, CROP_MARGIN)
    order: list[int] = []
    with progress_bar() as bar:
        task = bar.add_task("Gaussian splats", total=config.steps, status="")
        for step in range(config.steps):
            if step == round(HALF_SIZE_SHARE * config.steps):
                targets = FitTargets(views, CROP_MARGIN)
            parameters.decay(FINAL_RATE ** (step / config.steps))
            if not order:
                order = torch.randperm(len(views), generator=generator, device=device).tolist()
            target = targets.of(order.pop(), whole=step % WHOLE_EVERY == 0)
            rendered = rasterize(parameters.splats(), target.cameras, backend=config.backend)
            loss = loss_view(rendered.rgb, rendered.alpha, target.rgb, target.alpha)
            loss = loss * targets.share_of(target)
            if rendered.means2d.requires_grad:
                rendered.means2d.retain_grad()
            loss.backward()
            parameters.step()
            if step % REPORT_EVERY == 0:
                bar.update(task, status=f"loss {loss.item():.4f}, {len(parameters)} splats")
            density.after_step(parameters, FitStep(step, rendered, targets.size))
            bar.advance(task)
    return parameters.splats().detach()


def _first_splats(views: Views, points: InitialPoints, config: SplatConfig) -> GaussianSplats:
    colors = mean_colors(views, points.means) if points.colors is None else points.colors
    device = views.rgb.device
    return initial_splats(
        points.means.to(device).float(),
        colors.to(device).float(),
        INITIAL_OPACITY,
        config.sh_degree,
        points.normals,
    )


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
    splats: GaussianSplats, cameras: Cameras, num_views: int, backend: SplatBackend = "auto"
) -> Views:
    """The M interpolated views F* between the neighboring views of an orbit (Section 4.4).

    Args:
        splats: fitted to the orbit.
        cameras: of the orbit.
        num_views: M; the paper takes 16 (Table 4).
        backend: of `rasterize`.

    Returns:
        M views over white.
    """
    between = between_views(cameras.to(splats.means.device), num_views)
    size = (between.height, between.width)
    rgb = splats.means.new_zeros(len(between), 3, *size)
    alpha = splats.means.new_zeros(len(between), 1, *size)
    splats = splats.detach()
    with torch.no_grad():
        for view in range(len(between)):
            rendered = rasterize(splats, between[view], backend=backend)
            rgb[view] = rendered.rgb[0].clamp(0, 1)
            alpha[view] = rendered.alpha[0].clamp(0, 1)
    return Views(rgb, alpha, between)


def crop_to_object(view: Views, margin: int) -> Views:
    """The part of a view around its silhouette, its sides multiples of `CROP_TILE`.

    Args:
        view: a single view.
        margin: pixels around the silhouette, 0 or more.

    Returns:
        a single view with the principal point moved; the whole one where it shows no object.
    """
    height, width = view.alpha.shape[-2:]
    rows = (view.alpha[0, 0] > CROP_ALPHA).any(1).nonzero()[:, 0]
    columns = (view.alpha[0, 0] > CROP_ALPHA).any(0).nonzero()[:, 0]
    if len(rows) == 0:
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
