"""EDM for video latents: preconditioning, noise levels, loss and Euler sampling.

Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models"
(arXiv 2206.00364), with the v-prediction preconditioning of Stable Video Diffusion
(arXiv 2311.15127, Appendix D), for latents of unit standard deviation (sigma_data = 1).
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""(noisy latents [B, ...], sigma [B]) -> denoised latents [B, ...]."""
Generators = torch.Generator | Sequence[torch.Generator] | None
"""Of random numbers on the CPU: one for a whole batch, or one for each item; None takes torch's."""
BeforeStep = Callable[[int, Tensor, Tensor], Tensor]
"""(step, x [B, ...], the first noise [B, ...]) -> x [B, ...] at the same noise level."""
AfterStep = Callable[[int, Tensor, Tensor], Tensor | None]
"""(step, x [B, ...] after it, denoised [B, ...]) -> x [B, ...] to go on from, or None: as it is."""


def randn(shape: Sequence[int], generator: Generators = None) -> Tensor:
    """Gaussian noise [*shape] on the CPU.

    Raises:
        ValueError: there are several generators, and not `shape[0]` of them.
    """
    if generator is None or isinstance(generator, torch.Generator):
        return torch.randn(tuple(shape), generator=generator)
    if len(generator) != shape[0]:
        raise ValueError(f"{len(generator)} generators for {shape[0]} items")
    return torch.stack([torch.randn(tuple(shape[1:]), generator=item) for item in generator])


def c_skip(sigma: Tensor) -> Tensor:
    """Weight of the noisy input in the denoised output: 1 / (sigma^2 + 1) (EDM Table 1)."""
    return 1 / (sigma**2 + 1)


def c_out(sigma: Tensor) -> Tensor:
    """Weight of the network's output, -sigma / sqrt(sigma^2 + 1): the network predicts v."""
    return -sigma / (sigma**2 + 1).sqrt()


def c_in(sigma: Tensor) -> Tensor:
    """Scale that gives the network's input unit variance, 1 / sqrt(sigma^2 + 1) (EDM Table 1)."""
    return 1 / (sigma**2 + 1).sqrt()


def c_noise(sigma: Tensor) -> Tensor:
    """What the network is told of the noise level, ln(sigma) / 4 (EDM Table 1)."""
    return sigma.log() / 4


def loss_weight(sigma: Tensor) -> Tensor:
    """Weight of the squared error of the denoised latents: 1 / c_out^2."""
    return (sigma**2 + 1) / sigma**2


def sample_sigma(
    batch_size: int,
    log_mean: float,
    log_std: float,
    generator: Generators = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Noise levels for training, ln(sigma) ~ N(log_mean, log_std^2) (EDM Section 5), one per video.

    Returns:
        sigma: [batch_size], drawn with `generator` on the CPU and moved to `device`.
    """
    normal = randn((batch_size,), generator)
    return (log_mean + log_std * normal).exp().to(device)


def append_dims(values: Tensor, like: Tensor) -> Tensor:
    """Reshape [B] to [B, 1, ...] with as many dimensions as `like`."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def denoise(network: Denoiser, noisy: Tensor, sigma: Tensor) -> Tensor:
    """D(x; sigma) = c_skip x + c_out F(c_in x; c_noise) (EDM Eq. 7).

    Args:
        network: F, called with the scaled latents [B, ...] and c_noise [B].
        noisy: [B, ...] latents plus noise of standard deviation sigma.
        sigma: [B].

    Returns:
        Denoised latents [B, ...].
    """
    s = append_dims(sigma, noisy)
    return c_skip(s) * noisy + c_out(s) * network(c_in(s) * noisy, c_noise(sigma))


def loss_denoising(
    network: Denoiser,
    latents: Tensor,
    noise: Tensor,
    sigma: Tensor,
    weights: Tensor | float = 1.0,
) -> Tensor:
    """Weighted squared error of the denoised latents (paper Eq. 4 and 5 in EDM's form).

    Args:
        network: as in `denoise`.
        latents: [B, ...] clean.
        noise: [B, ...] of unit variance.
        sigma: [B].
        weights: on the squared errors, broadcast to `latents`.

    Returns:
        Loss per item [B].
    """
    denoised = denoise(network, latents + append_dims(sigma, latents) * noise, sigma)
    squared_error = (weights * (denoised - latents).square()).flatten(1).mean(1)
    return loss_weight(sigma) * squared_error


def karras_sigmas(
    num_steps: int, sigma_min: float = 0.002, sigma_max: float = 700.0, rho: float = 7.0
) -> Tensor:
    """The sampling noise levels, decreasing, with a final 0 (EDM Eq. 5).

    Args:
        num_steps: number of network evaluations, at least 1.
        sigma_min: last non-zero level.
        sigma_max: first level.
        rho: 7 puts most steps at low noise.

    Returns:
        sigmas: [num_steps + 1].

    Raises:
        ValueError: `num_steps` < 1, or not 0 < sigma_min < sigma_max.
    """
    if num_steps < 1 or not 0 < sigma_min < sigma_max:
        raise ValueError(
            f"need num_steps >= 1 and 0 < sigma_min < sigma_max, "
            f"got {num_steps}, {sigma_min}, {sigma_max}"
        )
    ramp = torch.linspace(0, 1, num_steps) if num_steps > 1 else torch.zeros(1)
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    sigmas = (high + ramp * (low - high)) ** rho
    return torch.cat([sigmas, torch.zeros(1)])


def sample_euler(
    denoiser: Denoiser,
    latents: Tensor,
    sigmas: Tensor,
    after_step: AfterStep | None = None,
    before_step: BeforeStep | None = None,
) -> Tensor:
    """Integrate dx/dsigma = (x - D(x; sigma)) / sigma with Euler steps (EDM Algorithm 1, no churn).

    A step x + (sigma' - sigma) (x - D) / sigma is taken as D + (sigma' / sigma) (x - D): as the
    difference of two numbers of size sigma = 700 it would keep their rounding, 6e-5 in float32.

    Args:
        denoiser: D(x, sigma).
        latents: [B, ...] noise of unit variance.
        sigmas: [num_steps + 1], decreasing, ending in 0.
        after_step: called after each step; may change x.
        before_step: changes x before each step; its last argument is `latents`.

    Returns:
        Latents [B, ...] at sigma = 0.
    """
    x = latents * math.sqrt(sigmas[0].item() ** 2 + 1)  # the variance of data plus noise
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        if before_step is not None:
            x = before_step(i, x, latents)
        denoised = denoiser(x, sigma.to(x).expand(len(x)))
        x = denoised + (sigma_next / sigma) * (x - denoised)
        x = after(after_step, i, x, denoised)
    return x


def after(after_step: AfterStep | None, step: int, x: Tensor, denoised: Tensor) -> Tensor:
    """What a solver goes on from, [B, ...]: x, or what `after_step` makes of it."""
    changed = None if after_step is None else after_step(step, x, denoised)
    return x if changed is None else changed
