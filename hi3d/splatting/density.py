"""When the Gaussians of a fit change in number: three policies behind one interface."""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from hi3d.splatting.densification import (
    DensifyConfig,
    ScreenGradients,
    change_density,
    mcmc_noise,
    relocate_splats,
)
from hi3d.splatting.parameters import SplatParameters
from hi3d.splatting.rasterization.render import RenderedSplats


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
            parameters: after the step of their optimisers.
            step: what it has shown.
        """


class CappedControl:
    """`change_density`, or `relocate_splats` with noise, at fixed intervals."""

    def __init__(
        self, config: DensifyConfig, steps: int, max_splats: int, generator: torch.Generator
    ):
        self.config, self.steps, self.max_splats = config, steps, max_splats
        self.generator = generator
        self.gradients: ScreenGradients | None = None

    def after_step(self, parameters: SplatParameters, step: FitStep) -> None:
        """See `DensityControl`."""
        if self.config.strategy == "mcmc":
            self._relocate(parameters, step.number)
            return
        rendered = step.rendered
        if self.gradients is None:
            self.gradients = ScreenGradients(len(parameters), rendered.means2d.device)
        if rendered.means2d.grad is not None:
            self.gradients.add(rendered.means2d.grad, rendered.visible, *step.size)
        if not self._is_due(step.number):
            return
        changed = change_density(
            parameters.splats().detach(),
            self.gradients.means(),
            self.config,
            self.max_splats,
            step.number < self.config.stop * self.steps,
            self.generator,
        )
        parameters.replace(*changed)
        self.gradients = None

    def _is_due(self, step: int) -> bool:
        """Whether the density changes now: not at the end, where nothing would settle."""
        done = step + 1
        started = done >= self.config.start * self.steps
        return started and done % self.config.every == 0 and done < 0.9 * self.steps

    def _relocate(self, parameters: SplatParameters, step: int) -> None:
        if step >= 0.9 * self.steps:
            return
        splats = parameters.splats().detach()
        if self._is_due(step) and step < self.config.stop * self.steps:
            parameters.replace(
                *relocate_splats(splats, self.config, self.max_splats, self.generator)
            )
            splats = parameters.splats().detach()
        rate = parameters.optimizers["means"].param_groups[0]["lr"]
        with torch.no_grad():
            noise = mcmc_noise(splats, rate * self.config.mcmc_noise, self.generator)
            parameters.tensors["means"].add_(noise)


class GsplatControl:
    """gsplat's `DefaultStrategy` on the output of any of the rasterisers, with a limit."""

    def __init__(
        self, config: DensifyConfig, steps: int, max_splats: int, generator: torch.Generator
    ):
        from gsplat.strategy import DefaultStrategy

        self.max_splats, self.generator = max_splats, generator
        self.strategy = DefaultStrategy(
            prune_opa=config.min_opacity,
            grow_grad2d=config.grow_gradient,
            grow_scale3d=config.split_scale,
            prune_scale3d=config.max_scale,
            refine_start_iter=round(config.start * steps),
            refine_stop_iter=round(config.stop * steps),
            refine_every=config.every,
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
        # The strategy draws from torch's global generator: it gets a state of this fit's own.
        device = rendered.means2d.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(self.generator.initial_seed() + number)
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


def density_control(
    config: DensifyConfig, steps: int, max_splats: int, generator: torch.Generator
) -> DensityControl | None:
    """The policy that `config` names, or None where nothing is to change.

    Args:
        config: policy and thresholds.
        steps: of the whole fit.
        max_splats: no growth beyond this number.
        generator: of the splats' device.
    """
    if not config.enabled:
        return None
    if config.strategy == "gsplat":
        return GsplatControl(config, steps, max_splats, generator)
    return CappedControl(config, steps, max_splats, generator)
