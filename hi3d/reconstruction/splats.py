"""Gaussian splats fitted to views, and the interpolated views rendered from them (Section 4.4)."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from hi3d.cameras import Cameras, between_views
from hi3d.progress import progress_bar
from hi3d.reconstruction.densification import DensifyConfig, ScreenGradients, change_density
from hi3d.reconstruction.gaussian_splats import GaussianSplats
from hi3d.reconstruction.rasterization.render import Backend, RenderedSplats, rasterize
from hi3d.reconstruction.splat_initialization import hull_points, initial_splats, mean_colors
from hi3d.reconstruction.ssim import ssim
from hi3d.views import Views

__all__ = ["GaussianSplats", "SplatConfig", "fit_splats", "render_between_views"]


@dataclass
class SplatConfig:
    """Settings of `fit_splats`."""

    steps: int = 600
    """One view each."""
    num_initial: int = 12000
    """Gaussians spread through the visual hull at the start."""
    max_splats: int = 20000
    initial_opacity: float = 0.1
    half_extent: float = 0.55
    """The hull is searched in [-half_extent, half_extent]^3; the object's longest side is 1."""
    hull_resolution: int = 64
    sh_degree: int = 0
    """Of the colours' spherical harmonics; 0 = the same from everywhere."""

    lr_means: float = 2e-3
    lr_quats: float = 1e-2
    lr_log_scales: float = 1e-2
    lr_logit_opacities: float = 5e-2
    lr_sh: float = 2e-2
    """Of the constant harmonic; the others get a twentieth, as in 3DGS."""
    final_lr: float = 0.03
    """Share of the learning rates that is left at the end (exponential decay)."""

    lambda_ssim: float = 0.2
    """Weight of 1 - SSIM against L1 (3DGS)."""
    lambda_alpha: float = 0.5
    """Weight of the L1 difference of alpha."""
    densify: DensifyConfig = field(default_factory=DensifyConfig)
    backend: Backend = "auto"


def loss_color(predicted: Tensor, target: Tensor, lambda_ssim: float) -> Tensor:
    """(1 - lambda) L1 + lambda (1 - SSIM) of images [V, 3, H, W] (Kerbl et al. [23], Eq. 7)."""
    l1 = (predicted - target).abs().mean()
    if lambda_ssim == 0:
        return l1
    return (1 - lambda_ssim) * l1 + lambda_ssim * (1 - ssim(predicted, target))


def fit_splats(
    views: Views,
    config: SplatConfig | None = None,
    seed: int = 0,
    init_points: Tensor | None = None,
    init_colors: Tensor | None = None,
) -> GaussianSplats:
    """Fit Gaussians to views, on the views' device (Section 4.4, first half).

    Args:
        views: V views over white with alpha.
        config: settings; None = the defaults.
        seed: of initialisation, order of the views and splits.
        init_points: [N, 3] to start from instead of the visual hull, for example points of a
            coarse mesh.
        init_colors: [N, 3] in [0, 1] for them; None = the mean of what the views show.

    Returns:
        Detached splats.

    Raises:
        InputError: the views show no object.
    """
    config = config or SplatConfig()
    device = views.rgb.device
    views = views.to(device)  # the cameras may lie elsewhere
    generator = torch.Generator(device=device).manual_seed(seed)
    if init_points is None:
        init_points = hull_points(
            views, config.num_initial, config.half_extent, config.hull_resolution, generator
        )
    if init_colors is None:
        init_colors = mean_colors(views, init_points)
    splats = initial_splats(
        init_points.to(device).float(),
        init_colors.to(device).float(),
        config.initial_opacity,
        config.sh_degree,
    )
    parameters = _Parameters(splats, config)
    gradients = ScreenGradients(len(splats), device)
    order: list[int] = []
    with progress_bar() as bar:
        task = bar.add_task("Gaussian splats", total=config.steps, status="")
        for step in range(config.steps):
            parameters.decay(config.final_lr ** (step / config.steps))
            if not order:
                order = torch.randperm(len(views), generator=generator, device=device).tolist()
            view = views[order.pop()]
            rendered = rasterize(parameters.splats(), view.cameras, backend=config.backend)
            loss = loss_color(rendered.rgb, view.rgb, config.lambda_ssim)
            loss = loss + config.lambda_alpha * (rendered.alpha - view.alpha).abs().mean()
            if rendered.means2d.requires_grad:
                rendered.means2d.retain_grad()
            loss.backward()
            _record(gradients, rendered, view.cameras)
            parameters.step()
            if _is_due(step, config):
                grow = step < config.densify.stop * config.steps
                changed = change_density(
                    parameters.splats().detach(),
                    gradients.means(),
                    config.densify,
                    config.max_splats,
                    grow,
                    generator,
                )
                parameters.replace(*changed)
                gradients = ScreenGradients(len(changed[0]), device)
            if step % 20 == 0:
                status = f"loss {loss.item():.4f}, {len(parameters.splats())} splats"
                bar.update(task, status=status)
            bar.advance(task)
    return parameters.splats().detach()


def render_between_views(
    splats: GaussianSplats, cameras: Cameras, num_views: int, backend: Backend = "auto"
) -> Views:
    """The M interpolated views F* between the neighbouring views of an orbit (Section 4.4).

    Args:
        splats: fitted to the orbit.
        cameras: of the orbit.
        num_views: M; the paper takes 16 (Table 4).

    Returns:
        M views over white.
    """
    between = between_views(cameras.to(splats.means.device), num_views)
    if num_views == 0:
        size = (between.height, between.width)
        return Views(
            splats.means.new_zeros(0, 3, *size), splats.means.new_zeros(0, 1, *size), between
        )
    with torch.no_grad():
        rendered = [
            rasterize(splats.detach(), between[view], backend=backend) for view in range(num_views)
        ]
    rgb = torch.cat([view.rgb for view in rendered]).clamp(0, 1)
    return Views(rgb, torch.cat([view.alpha for view in rendered]).clamp(0, 1), between)


def _is_due(step: int, config: SplatConfig) -> bool:
    """Whether the density changes after this step: not at the end, where nothing would settle."""
    densify, done = config.densify, step + 1
    started = done >= densify.start * config.steps
    return densify.enabled and started and done % densify.every == 0 and done < 0.9 * config.steps


def _record(gradients: ScreenGradients, rendered: RenderedSplats, cameras: Cameras) -> None:
    grad = rendered.means2d.grad
    if grad is not None:
        gradients.add(grad, rendered.visible, cameras.width, cameras.height)


class _Parameters:
    """The tensors under optimisation with Adam, whose rows can be replaced."""

    def __init__(self, splats: GaussianSplats, config: SplatConfig):
        self.rates = {
            "means": config.lr_means,
            "quats": config.lr_quats,
            "log_scales": config.lr_log_scales,
            "logit_opacities": config.lr_logit_opacities,
            "sh_constant": config.lr_sh,
            "sh_rest": config.lr_sh / 20,
        }
        self.tensors = {n: t.clone().requires_grad_() for n, t in self._parts(splats).items()}
        # eps far below the default: the loss is a mean over pixels, so gradients are tiny.
        self.optimizer = torch.optim.Adam(
            [{"params": [t], "lr": self.rates[n], "name": n} for n, t in self.tensors.items()],
            eps=1e-15,
            fused=True,
        )

    @staticmethod
    def _parts(splats: GaussianSplats) -> dict[str, Tensor]:
        tensors = splats.tensors()
        sh = tensors.pop("sh")
        return {**tensors, "sh_constant": sh[:, :1], "sh_rest": sh[:, 1:]}

    def splats(self) -> GaussianSplats:
        tensors = dict(self.tensors)
        sh = torch.cat([tensors.pop("sh_constant"), tensors.pop("sh_rest")], dim=1)
        return GaussianSplats(**tensors, sh=sh)

    def decay(self, factor: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.rates[group["name"]] * factor

    def step(self) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def replace(self, splats: GaussianSplats, source: Tensor, is_new: Tensor) -> None:
        """Put in other splats; old ones keep their moments, new ones start without."""
        for group, (name, tensor) in zip(
            self.optimizer.param_groups, self._parts(splats).items(), strict=True
        ):
            state = self.optimizer.state.pop(group["params"][0], {})
            for moment in ("exp_avg", "exp_avg_sq"):
                if moment in state:
                    state[moment] = state[moment][source]
                    state[moment][is_new] = 0
            self.tensors[name] = tensor.clone().requires_grad_()
            group["params"] = [self.tensors[name]]
            self.optimizer.state[self.tensors[name]] = state
