"""When and which Gaussians are removed, duplicated, split and moved during a fit.

Adaptive density control (Kerbl et al. [23], Section 5.2) with a limit to the number, and gsplat's
own strategies, which need CUDA.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from hi3d.splats import GaussianSplats
from hi3d.splatting.parameters import SplatParameters
from hi3d.splatting.rasterization.projection import rotation_matrices
from hi3d.splatting.rasterization.render import RenderedSplats

DensityStrategy = Literal["capped", "gsplat", "mcmc"]
""""capped": growth where gradients are largest, up to a number; "gsplat": its `DefaultStrategy`;
"mcmc": its `MCMCStrategy` (Kheradmand et al. 2024)."""

START = 0.1  # share of the steps before the first change
STOP = 0.6  # share of the steps after which none is added; removal goes on
SETTLED = 0.9  # share of the steps after which nothing changes, as nothing would settle
EVERY = 50  # steps between changes: many for fits of some hundred steps
GROW_GRADIENT = 0.0002  # in half image sizes; a mean gradient above it asks for more (3DGS)
SPLIT_SCALE = 0.01  # Gaussians larger than this are split, smaller ones duplicated (3DGS)
SPLIT_SHRINK = 1.6  # a split Gaussian becomes two, this much smaller (3DGS)
MIN_OPACITY = 0.02  # fainter Gaussians are removed
MAX_SCALE = 0.2  # larger Gaussians are removed; the object's longest side is 1
MCMC_NOISE = 4e4  # lambda_noise; the paper's is 5e5, at a twelfth of our learning rate


@dataclass(frozen=True)
class FitStep:
    """What one step of a fit has shown."""

    number: int
    """From 0."""
    rendered: RenderedSplats
    """`means2d` keeps its gradient."""
    size: tuple[int, int]
    """Width and height in pixels of the whole image, of which `rendered` may be a part."""


class DensityControl(Protocol):
    """A policy with its state; the loop of a fit does not know which."""

    def after_step(self, parameters: SplatParameters, step: FitStep) -> None:
        """Take in what a step has shown, and change the Gaussians where it is time.

        Args:
            parameters: after the step of their optimizers.
            step: what it has shown.
        """


class CappedControl:
    """`change_density` at fixed intervals."""

    def __init__(self, steps: int, max_splats: int, generator: torch.Generator):
        self.steps, self.max_splats, self.generator = steps, max_splats, generator
        self.gradients: ScreenGradients | None = None

    def after_step(self, parameters: SplatParameters, step: FitStep) -> None:
        """See `DensityControl`."""
        rendered = step.rendered
        if self.gradients is None:
            self.gradients = ScreenGradients(len(parameters), rendered.means2d.device)
        if rendered.means2d.grad is not None:
            self.gradients.add(rendered.means2d.grad, rendered.visible, *step.size)
        done = step.number + 1
        if done < START * self.steps or done % EVERY != 0 or done >= SETTLED * self.steps:
            return
        changed = change_density(
            parameters.splats().detach(),
            self.gradients.means(),
            self.max_splats,
            step.number < STOP * self.steps,
            self.generator,
        )
        parameters.replace(*changed)
        self.gradients = None


class ScreenGradients:
    """The mean screen gradient of each Gaussian since the last change."""

    def __init__(self, num: int, device: torch.device):
        self.sums = torch.zeros(num, device=device)
        self.counts = torch.zeros(num, device=device)

    def add(self, grad_means2d: Tensor, visible: Tensor, width: int, height: int) -> None:
        """Take in one rendering.

        Args:
            grad_means2d: [V, N, 2] gradient of the loss by the projected centers in pixels.
            visible: [V, N] bool.
            width: of the image in pixels.
            height: of the image in pixels.
        """
        half_size = grad_means2d.new_tensor([width / 2, height / 2])
        self.sums += ((grad_means2d * half_size).norm(dim=-1) * visible).sum(0)
        self.counts += visible.sum(0)

    def means(self) -> Tensor:
        """[N]"""
        return self.sums / self.counts.clamp(min=1)


def change_density(
    splats: GaussianSplats,
    gradients: Tensor,
    max_splats: int,
    grow: bool,
    generator: torch.Generator,
) -> tuple[GaussianSplats, Tensor, Tensor]:
    """Remove faint and huge Gaussians; duplicate small and split large ones with large gradients.

    Args:
        splats: N Gaussians.
        gradients: [N] of `ScreenGradients.means`.
        max_splats: no growth beyond this number; those with the largest gradients go first.
        grow: whether to add at all.
        generator: of the splats' device, places the parts of a split Gaussian.

    Returns:
        The new splats; for each the number of the old one it comes from [N'] int64; and whether it
        is new [N'] bool, so that its optimizer state starts at zero.
    """
    sizes = splats.scales.amax(-1)
    keep = (splats.opacities >= MIN_OPACITY) & (sizes <= MAX_SCALE)
    wants = keep & (gradients > GROW_GRADIENT) if grow else torch.zeros_like(keep)
    room = max(0, max_splats - int(keep.sum()))
    chosen = torch.argsort(torch.where(wants, gradients, -1), descending=True)
    chosen = chosen[: min(room, int(wants.sum()))]

    kept = keep.nonzero()[:, 0]
    source = torch.cat([kept, chosen])
    is_new = torch.arange(len(source), device=source.device) >= len(kept)
    tensors = {name: tensor[source].clone() for name, tensor in splats.tensors().items()}
    split_old = torch.zeros_like(keep)
    split_old[chosen] = sizes[chosen] > SPLIT_SCALE
    split = split_old[source]  # both parts of each split Gaussian
    normal = torch.randn(len(source), 3, generator=generator, device=source.device)
    offset = rotation_matrices(tensors["quats"]) @ (normal * tensors["log_scales"].exp())[..., None]
    tensors["means"] += torch.where(split[:, None], offset[..., 0], torch.zeros_like(normal))
    tensors["log_scales"] -= split[:, None] * torch.tensor(SPLIT_SHRINK).log().to(normal)
    return GaussianSplats(**tensors), source, is_new | split


class DefaultControl:
    """gsplat's `DefaultStrategy`, that of 3DGS, with a limit."""

    def __init__(self, steps: int, max_splats: int, generator: torch.Generator):
        from gsplat.strategy import DefaultStrategy

        self.max_splats, self.generator = max_splats, generator
        self.strategy = DefaultStrategy(
            prune_opa=MIN_OPACITY,
            grow_grad2d=GROW_GRADIENT,
            grow_scale3d=SPLIT_SCALE,
            prune_scale3d=MAX_SCALE,
            refine_start_iter=round(START * steps),
            refine_stop_iter=round(STOP * steps),
            refine_every=EVERY,
            # Fits are shorter than its 3,000 steps between resets of the opacity: none is wanted.
            reset_every=10 * steps,
        )
        self.state: dict[str, Any] = self.strategy.initialize_state(scene_scale=1.0)

    def after_step(self, parameters: SplatParameters, step: FitStep) -> None:
        """See `DensityControl`."""
        rendered, number = step.rendered, step.number
        if rendered.means2d.grad is None:
            return
        info = {
            "means2d": rendered.means2d,
            "radii": rendered.radii,
            "width": step.size[0],
            "height": step.size[1],
            "n_cameras": len(rendered.radii),
            "gaussian_ids": None,
        }
        if number > self.strategy.refine_start_iter and number % self.strategy.refine_every == 0:
            self._limit(len(parameters), rendered.means2d.grad)
        with own_random_state(rendered.means2d.device, self.generator, number):
            self.strategy.step_post_backward(
                parameters.tensors, parameters.optimizers, self.state, number, info
            )

    def _limit(self, num: int, grad_means2d: Tensor) -> None:
        """Before a change, forget the gradients of all but those that there is room for."""
        if self.state["grad2d"] is None:
            return
        gradients = self.state["grad2d"] / self.state["count"].clamp(min=1)
        room = max(0, self.max_splats - num)
        rest = torch.argsort(gradients, descending=True)[room:]
        self.state["grad2d"][rest] = 0
        grad_means2d[:, rest] = 0


class McmcControl:
    """gsplat's `MCMCStrategy`: faint Gaussians move onto strong ones, and all are jittered."""

    def __init__(self, steps: int, max_splats: int, generator: torch.Generator):
        from gsplat.strategy import MCMCStrategy

        self.steps, self.generator = steps, generator
        self.strategy = MCMCStrategy(
            cap_max=max_splats,
            noise_lr=MCMC_NOISE,
            refine_start_iter=round(START * steps),
            refine_stop_iter=round(STOP * steps),
            refine_every=EVERY,
            min_opacity=MIN_OPACITY,
        )
        self.state: dict[str, Any] = self.strategy.initialize_state()

    def after_step(self, parameters: SplatParameters, step: FitStep) -> None:
        """See `DensityControl`."""
        if step.number >= SETTLED * self.steps:
            return
        rate = parameters.optimizers["means"].param_groups[0]["lr"]
        with own_random_state(step.rendered.means2d.device, self.generator, step.number):
            self.strategy.step_post_backward(
                parameters.tensors, parameters.optimizers, self.state, step.number, {}, rate
            )


@contextlib.contextmanager
def own_random_state(device: torch.device, generator: torch.Generator, step: int) -> Iterator[None]:
    """gsplat draws from torch's global generator: within, it has a state of this fit's own."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(generator.initial_seed() + step)
        yield


def density_control(
    strategy: DensityStrategy, steps: int, max_splats: int, generator: torch.Generator
) -> DensityControl:
    """The policy of that name.

    Args:
        strategy: those of gsplat need splats on CUDA.
        steps: of the whole fit.
        max_splats: no growth beyond this number.
        generator: of the splats' device.
    """
    if strategy == "gsplat":
        return DefaultControl(steps, max_splats, generator)
    if strategy == "mcmc":
        return McmcControl(steps, max_splats, generator)
    return CappedControl(steps, max_splats, generator)
