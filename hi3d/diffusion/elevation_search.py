"""Elevation of a photo's camera by the diffusion model itself: which one denoises best."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hi3d.diffusion.edm import denoise, loss_weight
from hi3d.diffusion.sampling import OrbitCondition, conditioned_network

CANDIDATES_DEG = tuple(range(-10, 41, 5))
"""The range of elevations that the paper trains with."""
SIGMAS = (1.0, 5.0, 20.0)
"""Noise levels that are compared: below them the noisy latents say all, above them little."""


@dataclass(frozen=True)
class ElevationLosses:
    """Denoising losses of the candidates with the same noise."""

    candidates_deg: tuple[float, ...]
    front: Tensor  # [candidates]
    """Of view 0, whose latents the photo gives."""
    orbit: Tensor  # [candidates]
    """Of all views, whose latents the model has imagined at that elevation."""

    def best_deg(self, losses: Tensor) -> float:
        """The lowest candidate, between its neighbors where a parabola through them says so."""
        best = int(losses.argmin())
        angles = self.candidates_deg
        if best in (0, len(angles) - 1):
            return float(angles[best])
        left, middle, right = losses[best - 1 : best + 2].tolist()
        bend = left - 2 * middle + right
        offset = 0.5 * (left - right) / bend if bend > 0 else 0.0
        return float(angles[best] + offset * (angles[best + 1] - angles[best]))


@torch.no_grad()
def elevation_losses(
    unet: torch.nn.Module,
    condition_at: Callable[[float], tuple[OrbitCondition, Tensor]],
    sigma_max: float,
    candidates_deg: Sequence[float] = CANDIDATES_DEG,
    seed: int = 0,
) -> ElevationLosses:
    """Losses of a stage-1 network for a photo, told one elevation after another.

    Nothing but the photo is known of the orbit. So the other views are those that the network
    makes of pure noise in one step; view 0 is the photo's. That orbit is noised again and
    denoised, with the same noise for all candidates.

    Args:
        unet: of stage 1.
        condition_at: elevation in degrees -> the condition of one orbit and the latents of view 0
            [1, C, h, w], at the scale of the diffusion model.
        sigma_max: noise level of the one step.
        candidates_deg: elevations that are tried.
        seed: of the noise.
    """
    front, orbit = [], []
    for angle in candidates_deg:
        condition, first = condition_at(angle)
        network = conditioned_network(unet, condition)
        generator = torch.Generator().manual_seed(seed)
        shape = (1, condition.concat.shape[1], *first.shape[1:])
        noise = torch.randn((len(SIGMAS) + 1, *shape), generator=generator).to(first)
        latents = denoise(network, sigma_max * noise[-1], noise.new_tensor([sigma_max]))
        latents = torch.cat([first[:, None], latents[:, 1:]], dim=1)
        errors = []
        for eps, level in zip(noise, SIGMAS, strict=False):
            sigma = noise.new_tensor([level])
            error = denoise(network, latents + level * eps, sigma) - latents
            errors.append(float(loss_weight(sigma)) * error.square().mean((0, 2, 3, 4)))
        of_views = torch.stack(errors).mean(0)
        front.append(of_views[0])
        orbit.append(of_views.mean())
    return ElevationLosses(tuple(candidates_deg), torch.stack(front), torch.stack(orbit))
