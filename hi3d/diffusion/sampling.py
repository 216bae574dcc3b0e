"""From conditions to orbit latents: the UNet as EDM's network, guidance, a solver's steps."""

from dataclasses import dataclass, replace

import torch
from diffusers import UNetSpatioTemporalConditionModel
from torch import Tensor

from hi3d.diffusion.edm import AfterStep, BeforeStep, Denoiser, Generators, denoise, randn
from hi3d.diffusion.guidance import guide
from hi3d.diffusion.solvers import SOLVERS


@dataclass(frozen=True)
class OrbitCondition:
    """All that the UNet is given besides the noisy latents."""

    concat: Tensor  # [B, T, C, h, w]
    """Image latents (stage 1); image latents, orbit latents and depth (stage 2)."""
    image_embeds: Tensor  # [B, 1, D]
    """CLIP embedding of the reference image."""
    added_time_ids: Tensor  # [B, 2]
    """Elevation in degrees and noise augmentation; for an `OfficialUNet` its vector [B, D]."""
    base: Tensor | None = None  # [B, T, 3, H, W]
    """Frames in [0, 1] to whose latents the diffused latents are the difference; None for a model
    that diffuses the latents themselves, as the paper does."""

    def unconditional(self) -> "OrbitCondition":
        """The condition that guidance moves away from: images dropped, vector kept, as in SVD."""
        return replace(
            self,
            concat=torch.zeros_like(self.concat),
            image_embeds=torch.zeros_like(self.image_embeds),
        )

    def joined(self, other: "OrbitCondition") -> "OrbitCondition":
        """Both conditions in one batch, this one first."""
        return OrbitCondition(
            torch.cat([self.concat, other.concat]),
            torch.cat([self.image_embeds, other.image_embeds]),
            torch.cat([self.added_time_ids, other.added_time_ids]),
            self.base,
        )


def conditioned_network(
    unet: UNetSpatioTemporalConditionModel, condition: OrbitCondition
) -> Denoiser:
    """The UNet as EDM's network F(c_in x; c_noise) under a condition.

    Returns:
        A function of latents [B, T, C, h, w] and c_noise [B].
    """

    def network(latents: Tensor, noise_level: Tensor) -> Tensor:
        sample = torch.cat([latents, condition.concat.to(latents)], dim=2).to(unet.dtype)
        prediction = unet(
            sample,
            noise_level.to(unet.dtype),
            encoder_hidden_states=condition.image_embeds.to(unet.dtype),
            added_time_ids=condition.added_time_ids.to(unet.dtype),
        ).sample
        return prediction.to(latents)

    return network


def guided_denoiser(
    unet: UNetSpatioTemporalConditionModel,
    condition: OrbitCondition,
    scales: Tensor,
    sequential: bool = False,
) -> Denoiser:
    """D(x; sigma) with classifier-free guidance; one batch of two halves where it is needed.

    Args:
        unet: the network.
        condition: for B videos of T frames.
        scales: [T] guidance scale of each frame; all 1 needs no unconditional half.
        sequential: both halves one after another, with half the activations.

    Returns:
        A function of noisy latents [B, T, C, h, w] and sigma [B].
    """
    if bool((scales == 1).all()):
        network = conditioned_network(unet, condition)
        return lambda x, sigma: denoise(network, x, sigma)
    if sequential:
        told = conditioned_network(unet, condition)
        untold = conditioned_network(unet, condition.unconditional())
        return lambda x, sigma: guide(denoise(told, x, sigma), denoise(untold, x, sigma), scales)
    both = conditioned_network(unet, condition.joined(condition.unconditional()))

    def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
        denoised = denoise(both, torch.cat([x, x]), torch.cat([sigma, sigma]))
        conditional, unconditional = denoised.chunk(2)
        return guide(conditional, unconditional, scales)

    return denoiser


def sample_orbit_latents(
    unet: UNetSpatioTemporalConditionModel,
    condition: OrbitCondition,
    sigmas: Tensor,  # [num_steps + 1]
    scales: Tensor,  # [T]
    generator: Generators = None,
    after_step: AfterStep | None = None,
    before_step: BeforeStep | None = None,
    solver: str = "euler",
    sequential: bool = False,
    temperature: float = 1.0,
) -> Tensor:
    """Sample orbits (paper Eq. 1).

    Args:
        unet: the network.
        condition: for B videos of T frames.
        sigmas: [num_steps + 1] from `edm.karras_sigmas`.
        scales: [T] guidance scales.
        generator: CPU generator of the noise, or one for each video: the same seed gives the same
            orbit on any device.
        after_step: see `edm.sample_euler`.
        before_step: see `edm.sample_euler`.
        solver: a name of `solvers.SOLVERS`.
        sequential: see `guided_denoiser`.
        temperature: size of the first noise; below 1 samples keep nearer to the mean of all.

    Returns:
        Scaled latents [B, T, C, h, w], of the difference to the base if there is one: see
        `hi3d.diffusion.conditioning.decode_orbit`.
    """
    batch, num_frames, _, height, width = condition.concat.shape
    shape = (batch, num_frames, unet.config.out_channels, height, width)
    noise = randn(shape, generator).to(condition.concat.device) * temperature
    denoiser = guided_denoiser(unet, condition, scales, sequential)
    return SOLVERS[solver](denoiser, noise, sigmas, after_step, before_step)
