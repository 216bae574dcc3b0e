"""What the released networks of Hi3D are told, where it differs from the paper.

The paper's conditioning is in `hi3d.diffusion.conditioning`; a model folder chooses by the pipeline
that its `model_index.json` names (`hi3d.pipelines.official`).
"""

import math

import torch
import torch.nn.functional as F
from kornia.geometry.transform import resize
from torch import Tensor
from transformers import CLIPVisionModelWithProjection, DPTForDepthEstimation

from hi3d.diffusion.conditioning import (
    CHUNK_SIZE,
    CLIP_MEAN,
    CLIP_STD,
    VAE,
    augment_with_noise,
    encode_condition,
    encode_frames,
)
from hi3d.diffusion.edm import Generators, randn
from hi3d.diffusion.official.aesthetic import AestheticScorer
from hi3d.diffusion.sampling import OrbitCondition

SINUSOID = 256
"""Width of each part of the vector condition."""
SHUFFLE = 3
"""Depth is given at this many times the resolution of the latents, as SHUFFLE^2 channels."""
BLEND_POWER = 40
"""Exponent of the stage-2 blend."""


def official_in_channels(stage: int, latent_channels: int) -> int:
    """Stage 1: noisy and image latents; stage 2: noisy latents, depth, orbit latents."""
    return 2 * latent_channels + (SHUFFLE**2 if stage == 2 else 0)


def sinusoid(values: Tensor, width: int = SINUSOID) -> Tensor:
    """Sinusoidal embedding, cosines first, periods up to 10^4; an odd width ends in a 0.

    Args:
        values: [B].
        width: of the embedding.

    Returns:
        [B, width].
    """
    half = width // 2
    frequencies = torch.exp(-math.log(10_000) * torch.arange(half, device=values.device) / half)
    angles = values.float()[:, None] * frequencies
    return F.pad(torch.cat([angles.cos(), angles.sin()], dim=1), (0, width % 2))


def official_vector(
    elevation_deg: Tensor,  # [B]
    noise_aug_strength: Tensor,  # [B]
    aesthetic_score: Tensor | None = None,  # [B]
    width: int = SINUSOID,
) -> Tensor:
    """The vector condition, ready to enter the network.

    Args:
        elevation_deg: [B], rounded to whole degrees, as the networks were trained.
        noise_aug_strength: [B].
        aesthetic_score: [B] for stage 1: the score itself and the sinusoid of 100 times the score
            stand first, in the place of SVD's frame rate.
        width: of each part.

    Returns:
        [B, 3 width], or [B, 2 width] without a score.
    """
    parts = [sinusoid(elevation_deg.round(), width), sinusoid(noise_aug_strength, width)]
    if aesthetic_score is not None:
        score = aesthetic_score.float()
        parts = [score[:, None], sinusoid(100 * score, width - 1), *parts]
    return torch.cat([part.to(elevation_deg.device) for part in parts], dim=1)


def official_image_embeds(image_encoder: CLIPVisionModelWithProjection, rgb: Tensor) -> Tensor:
    """CLIP embedding after SVD's resize: bicubic with aligned corners, blurred before, in [-1, 1].

    Args:
        image_encoder: its config says the input size.
        rgb: [B, 3, H, W] in [0, 1].

    Returns:
        image_embeds [B, 1, D].
    """
    size = image_encoder.config.image_size
    pixels = resize(
        rgb * 2 - 1, (size, size), interpolation="bicubic", align_corners=True, antialias=True
    )
    mean = torch.tensor(CLIP_MEAN).to(pixels)[:, None, None]
    std = torch.tensor(CLIP_STD).to(pixels)[:, None, None]
    pixels = (((pixels + 1) / 2 - mean) / std).to(image_encoder.dtype)
    return image_encoder(pixel_values=pixels).image_embeds[:, None]


def official_depth(
    depth_estimator: DPTForDepthEstimation,
    frames: Tensor,
    scale: int,
    chunk_size: int = CHUNK_SIZE,
) -> Tensor:
    """Inverse depth of every frame, three times finer than the latents, folded into channels.

    The estimator sees frames of its own size, 384 for frames of 1024; its output is resized first
    and scaled to [0, 1] per frame then.

    Args:
        depth_estimator: its config says the input size.
        frames: [B, T, 3, H, W], about in [0, 1].
        scale: H / h, of the VAE.
        chunk_size: frames estimated together.

    Returns:
        [B, T, 9, H / scale, W / scale] in [0, 1], 1 nearest.
    """
    size = depth_estimator.config.image_size
    pixels = F.interpolate(frames.flatten(0, 1) * 2 - 1, (size, size), mode="bilinear")
    chunks = pixels.to(depth_estimator.dtype).split(chunk_size)
    depth = torch.cat([depth_estimator(pixel_values=chunk).predicted_depth for chunk in chunks])
    fine = [side // scale * SHUFFLE for side in frames.shape[-2:]]
    depth = F.interpolate(depth[:, None].float(), fine, mode="bilinear")
    depth = depth - depth.amin((1, 2, 3), keepdim=True)
    depth = depth / depth.amax((1, 2, 3), keepdim=True).clamp_min(1e-6)
    return F.pixel_unshuffle(depth, SHUFFLE).unflatten(0, frames.shape[:2]).to(frames)


def official_stage1_condition(
    vae: VAE,
    image_encoder: CLIPVisionModelWithProjection,
    aesthetic_scorer: AestheticScorer,
    reference: Tensor,  # [B, 3, H, W]
    elevation_deg: Tensor,  # [B]
    noise_aug_strength: Tensor,  # [B]
    num_frames: int,
    scored: Tensor | None = None,  # [B, 3, H, W]
    width: int = SINUSOID,
    generator: Generators = None,
) -> OrbitCondition:
    """Image latents (the mode, not scaled), image embedding and the vector with its score.

    Args:
        vae: encodes the reference image.
        image_encoder: embeds it.
        aesthetic_scorer: scores it.
        reference: [B, 3, H, W] in [0, 1], at the UNet's resolution.
        elevation_deg: [B].
        noise_aug_strength: [B], see `augment_with_noise`.
        num_frames: T.
        scored: [B, 3, H, W] in [0, 1]; the released stage 1 was trained with the score of the true
            back view, and is sampled with the reference's, which None takes.
        width: of each part of the vector condition.
        generator: CPU generator of the noise augmentation, or one for each orbit.

    Returns:
        The condition of B orbits; `concat` is [B, T, C, h, w].
    """
    augmented = augment_with_noise(reference[:, None], noise_aug_strength, generator)
    score = aesthetic_scorer(reference if scored is None else scored)
    return OrbitCondition(
        encode_condition(vae, augmented).expand(-1, num_frames, -1, -1, -1),
        official_image_embeds(image_encoder, reference),
        official_vector(elevation_deg, noise_aug_strength, score, width),
    )


def official_stage2_condition(
    vae: VAE,
    image_encoder: CLIPVisionModelWithProjection,
    depth_estimator: DPTForDepthEstimation,
    orbit: Tensor,  # [B, T, 3, H, W]
    elevation_deg: Tensor,  # [B]
    noise_aug_strength: Tensor,  # [B]
    width: int = SINUSOID,
    generator: Generators = None,
    chunk_size: int = CHUNK_SIZE,
) -> OrbitCondition:
    """Depth and orbit latents of the same noised frames, image embedding and vector.

    Args:
        vae: encodes the coarse orbit.
        image_encoder: embeds its frame 0.
        depth_estimator: depth of its frames.
        orbit: [B, T, 3, H, W] in [0, 1], at this stage's resolution; frame 0 is the photo.
        elevation_deg: [B].
        noise_aug_strength: [B], see `augment_with_noise`.
        width: of each part of the vector condition.
        generator: CPU generator of the noise augmentation, or one for each orbit.
        chunk_size: frames that the VAE and the depth model take together.

    Returns:
        The condition of B orbits; `concat` is [B, T, 9 + C, h, w], depth first.
    """
    augmented = augment_with_noise(orbit, noise_aug_strength, generator)
    latents = encode_condition(vae, augmented, chunk_size)
    scale = orbit.shape[-1] // latents.shape[-1]
    depth = official_depth(depth_estimator, augmented, scale, chunk_size)
    return OrbitCondition(
        torch.cat([depth.to(latents), latents], dim=2),
        official_image_embeds(image_encoder, orbit[:, 0]),
        official_vector(elevation_deg, noise_aug_strength, None, width),
    )


def sampled_latents(
    vae: VAE, frames: Tensor, generator: Generators = None, chunk_size: int = CHUNK_SIZE
) -> Tensor:
    """A sample of the posterior at the scale of the diffusion model.

    Args:
        vae: encoder.
        frames: [B, T, 3, H, W] in [0, 1].
        generator: CPU generator, or one for each orbit.
        chunk_size: frames encoded together.

    Returns:
        [B, T, C, h, w].
    """
    mean, std = encode_frames(vae, frames, chunk_size)
    noise = randn(std.shape, generator).to(std)
    return (mean + std * noise) * vae.config.scaling_factor


def blend_weight(step: int, num_steps: int) -> float:
    """Weight of stage 1's latents before a step: (0.5 (1 + cos(step / num_steps)))^40.

    There is no pi in the cosine: the weight falls from 1 at step 0 to 7e-5 at step 24 of 25.
    """
    return (0.5 * (1 + math.cos(step / num_steps))) ** BLEND_POWER


def blend_with_orbit(
    latents: Tensor, noise: Tensor, orbit_latents: Tensor, sigma: float | Tensor, weight: float
) -> Tensor:
    """Pull the latents towards stage 1's orbit at the same noise level.

    x <- (1 - a) x + a (sigma eps_0 + z_orbit), with a from `blend_weight` and the noise eps_0 that
    the sampling began with, fixed over the steps. It is in the released code and not in the paper.

    Args:
        latents: [B, T, C, h, w], x before the step.
        noise: [B, T, C, h, w], eps_0 of unit variance.
        orbit_latents: [B, T, C, h, w], z_orbit from `sampled_latents`.
        sigma: noise level of the step.
        weight: a.

    Returns:
        [B, T, C, h, w].
    """
    return (1 - weight) * latents + weight * (sigma * noise + orbit_latents)
