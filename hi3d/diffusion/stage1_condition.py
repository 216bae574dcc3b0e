"""The condition of stage 1, built alike by its training, its pipeline and stage 2's training."""

from torch import Tensor
from transformers import CLIPVisionModelWithProjection

from hi3d.diffusion.conditioning import (
    CHUNK_SIZE,
    VAE,
    augment_with_noise,
    encode_condition,
    encode_image,
    vector_condition,
)
from hi3d.diffusion.edm import Generators
from hi3d.diffusion.sampling import OrbitCondition


def stage1_condition(
    vae: VAE,
    image_encoder: CLIPVisionModelWithProjection,
    reference: Tensor,  # [B, 3, H, W]
    elevation_deg: Tensor,  # [B]
    noise_aug_strength: Tensor,  # [B]
    num_frames: int,
    base: Tensor | None = None,  # [B, T, 3, H, W]
    generator: Generators = None,
    chunk_size: int = CHUNK_SIZE,
) -> OrbitCondition:
    """Image latents, image embedding and vector condition (paper, Section 4.2).

    Args:
        vae: encodes the reference image.
        image_encoder: embeds it.
        reference: [B, 3, H, W] in [0, 1], at the UNet's resolution.
        elevation_deg: [B].
        noise_aug_strength: [B], see `augment_with_noise`.
        num_frames: T.
        base: [B, T, 3, H, W] in [0, 1], see `OrbitCondition.base`; its latents then take the place
            of the reference image's.
        generator: of the noise augmentation, on the CPU; one, or one for each orbit.
        chunk_size: frames that the VAE encodes together.

    Returns:
        The condition of B orbits.
    """
    video = reference[:, None] if base is None else base
    augmented = augment_with_noise(video, noise_aug_strength, generator)
    latents = encode_condition(vae, augmented, chunk_size)
    return OrbitCondition(
        latents.expand(-1, num_frames, -1, -1, -1),
        encode_image(image_encoder, reference),
        vector_condition(elevation_deg.float(), noise_aug_strength.to(elevation_deg)),
        base,
    )
