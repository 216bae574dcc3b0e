"""The condition of stage 2, built alike by its training and its pipeline."""

import torch
from torch import Tensor
from transformers import CLIPVisionModelWithProjection, DPTForDepthEstimation

from hi3d.diffusion.conditioning import (
    CHUNK_SIZE,
    VAE,
    augment_with_noise,
    encode_condition,
    encode_image,
    estimate_depth,
    resize_depth,
    vector_condition,
)
from hi3d.diffusion.edm import Generators
from hi3d.diffusion.sampling import OrbitCondition


def stage2_condition(
    vae: VAE,
    image_encoder: CLIPVisionModelWithProjection,
    depth_estimator: DPTForDepthEstimation | None,
    reference: Tensor,  # [B, 3, H, W]
    orbit: Tensor,  # [B, T, 3, H, W]
    elevation_deg: Tensor,  # [B]
    noise_aug_strength: Tensor,  # [B]
    base: Tensor | None = None,  # [B, T, 3, H, W]
    generator: Generators = None,
    chunk_size: int = CHUNK_SIZE,
) -> OrbitCondition:
    """Image latents, orbit latents, depth, image embedding and vector condition (Section 4.3).

    Args:
        vae: encodes the reference image and the coarse orbit.
        image_encoder: embeds the reference image.
        depth_estimator: depth of the coarse orbit's frames; None for a network without depth.
        reference: [B, 3, H, W] in [0, 1], at the UNet's resolution.
        orbit: [B, T, 3, H, W] in [0, 1], the coarse orbit brought to that resolution.
        elevation_deg: [B].
        noise_aug_strength: [B], see `augment_with_noise`.
        base: [B, T, 3, H, W] in [0, 1], see `OrbitCondition.base`.
        generator: of the noise augmentation, on the CPU; one, or one for each orbit.
        chunk_size: frames that the VAE and the depth model take together.

    Returns:
        The condition of B orbits; `concat` is [B, T, 2 C + 1, h, w], or [B, T, 2 C, h, w] without
        depth.
    """

    def latents(frames: Tensor) -> Tensor:
        augmented = augment_with_noise(frames, noise_aug_strength, generator)
        return encode_condition(vae, augmented, chunk_size)

    image_latents, orbit_latents = latents(reference[:, None]), latents(orbit)
    concat = [image_latents.expand_as(orbit_latents), orbit_latents]
    if depth_estimator is not None:
        depth = estimate_depth(depth_estimator, orbit, chunk_size)
        concat.append(resize_depth(depth, orbit_latents.shape[-2:]))
    return OrbitCondition(
        torch.cat(concat, dim=2),
        encode_image(image_encoder, reference),
        vector_condition(elevation_deg.float(), noise_aug_strength.to(elevation_deg)),
        base,
    )
