"""Second-order solvers of the sampling equation, beside `edm.sample_euler`.

Heun's method is Algorithm 1 of Karras et al. (arXiv 2206.00364) without churn; DPM-Solver++ is the
multistep solver of second order of Lu et al. (arXiv 2211.01095, Algorithm 2) for noise levels
sigma, where lambda = -ln sigma.
"""

import math
from collections.abc import Callable
from itertools import pairwise

from torch import Tensor

from hi3d.diffusion.edm import AfterStep, BeforeStep, Denoiser, after, sample_euler

Solver = Callable[[Denoiser, Tensor, Tensor, AfterStep | None, BeforeStep | None], Tensor]
"""(denoiser, unit noise [B, ...], sigmas [num_steps + 1], after_step, before_step) -> [B, ...]."""


def sample_heun(
    denoiser: Denoiser,
    latents: Tensor,
    sigmas: Tensor,
    after_step: AfterStep | None = None,
    before_step: BeforeStep | None = None,
) -> Tensor:
    """Heun steps, each of two evaluations but the last, which is Euler's.

    The trapezoid's slope is written by the two denoised latents, x' = x'_Euler + (sigma - sigma') /
    (2 sigma') (D' - D), without differences of large numbers: see `edm.sample_euler`.

    Args:
        denoiser: as all the others of `edm.sample_euler`.
        latents: [B, ...] noise of unit variance.
        sigmas: [num_steps + 1], decreasing, ending in 0.
        after_step: see `edm.sample_euler`.
        before_step: see `edm.sample_euler`.

    Returns:
        Latents [B, ...] at sigma = 0.
    """
    x = latents * math.sqrt(sigmas[0].item() ** 2 + 1)
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        if before_step is not None:
            x = before_step(i, x, latents)
        denoised = denoiser(x, sigma.to(x).expand(len(x)))
        there = denoised + (sigma_next / sigma) * (x - denoised)
        if sigma_next > 0:
            first = denoised
            denoised = denoiser(there, sigma_next.to(x).expand(len(x)))
            there = there + (sigma - sigma_next) / (2 * sigma_next) * (denoised - first)
        x = after(after_step, i, there, denoised)
    return x


def sample_dpmpp_2m(
    denoiser: Denoiser,
    latents: Tensor,
    sigmas: Tensor,
    after_step: AfterStep | None = None,
    before_step: BeforeStep | None = None,
) -> Tensor:
    """DPM-Solver++ steps of second order: one evaluation each, extrapolated from the one before.

    The first step and the last, to sigma = 0, are of first order.

    Args:
        denoiser: as all the others of `edm.sample_euler`.
        latents: [B, ...] noise of unit variance.
        sigmas: [num_steps + 1], decreasing, ending in 0.
        after_step: see `edm.sample_euler`.
        before_step: see `edm.sample_euler`.

    Returns:
        Latents [B, ...] at sigma = 0.
    """
    x = latents * math.sqrt(sigmas[0].item() ** 2 + 1)
    previous, h_last = None, 0.0
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas.tolist())):
        if before_step is not None:
            x = before_step(i, x, latents)
        denoised = denoiser(x, sigmas[i].to(x).expand(len(x)))
        target = denoised
        h = math.log(sigma / sigma_next) if sigma_next > 0 else math.inf
        if previous is not None and sigma_next > 0:
            ratio = h / (2 * h_last)
            target = (1 + ratio) * denoised - ratio * previous
        x = (sigma_next / sigma) * x + (1 - sigma_next / sigma) * target
        x = after(after_step, i, x, denoised)
        previous, h_last = denoised, h
    return x


SOLVERS: dict[str, Solver] = {
    "euler": sample_euler,
    "heun": sample_heun,
    "dpmpp_2m": sample_dpmpp_2m,
}
