"""What the UNets are told: image latents, image embedding, elevation, noise augmentation, depth.

Images are [0, 1] outside; [-1, 1] only behind the VAE and depth boundaries in this file.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLTemporalDecoder
from torch import Tensor, nn
from transformers import CLIPVisionModelWithProjection, DPTForDepthEstimation

from hi3d.diffusion.edm import Generators, randn


@runtime_checkable
class VAE(Protocol):
    """An autoencoder with diffusers' interface, such as SVD's image or temporal decoder."""

    config: Any
    """`latent_channels` and `scaling_factor`."""
    dtype: torch.dtype

    def encode(self, x: Tensor) -> Any:
        """`latent_dist` of images [N, 3, H, W] in [-1, 1]."""

    def decode(self, z: Tensor, **kwargs: Any) -> Any:
        """`sample` [N, 3, H, W] of latents [N, C, h, w]."""


CHUNK_SIZE = 16
"""Frames that go through the VAE or the depth model together: one orbit's."""
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
"""Channel statistics of CLIP's training images (arXiv 2103.00020)."""


def encode_image(
    image_encoder: CLIPVisionModelWithProjection,
    rgb: Tensor,  # [B, 3, H, W]
) -> Tensor:
    """The CLIP embedding of the reference image, for cross-attention (paper, Section 4.2).

    Args:
        image_encoder: its config says the input size.
        rgb: [B, 3, H, W] in [0, 1].

    Returns:
        image_embeds [B, 1, D].
    """
    size = image_encoder.config.image_size
    pixels = F.interpolate(rgb, (size, size), mode="bicubic", antialias=True)
    mean = torch.tensor(CLIP_MEAN).to(pixels)[:, None, None]
    std = torch.tensor(CLIP_STD).to(pixels)[:, None, None]
    pixels = ((pixels - mean) / std).to(image_encoder.dtype)
    return image_encoder(pixel_values=pixels).image_embeds[:, None]


@contextmanager
def upcast(vae: VAE) -> Iterator[None]:
    """The VAE in float32 for as long as it encodes, where its config has `force_upcast`.

    SVD's encoder overflows in half precision. Half to float32 and back changes no weight.
    """
    network: Any = vae
    forced = isinstance(network, nn.Module) and getattr(vae.config, "force_upcast", False)
    if not forced or vae.dtype != torch.float16:
        yield
        return
    nn.Module.to(network, torch.float32)  # diffusers' own `to` warns of a change that is undone
    try:
        yield
    finally:
        nn.Module.to(network, torch.float16)


def encode_frames(vae: VAE, frames: Tensor, chunk_size: int = CHUNK_SIZE) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the latents of a video.

    Args:
        vae: encoder.
        frames: [B, T, 3, H, W] in [0, 1].
        chunk_size: frames encoded together; smaller needs less memory.

    Returns:
        mean and std, each [B, T, C, h, w], not scaled.
    """
    means, stds = [], []
    with upcast(vae):
        for chunk in frames.flatten(0, 1).split(chunk_size):
            posterior = vae.encode((chunk * 2 - 1).to(vae.dtype)).latent_dist
            means.append(posterior.mean)
            stds.append(posterior.std)
    shape = frames.shape[:2]
    return torch.cat(means).unflatten(0, shape), torch.cat(stds).unflatten(0, shape)


def encode_condition(vae: VAE, frames: Tensor, chunk_size: int = CHUNK_SIZE) -> Tensor:
    """Latents as a condition: the mode of the posterior, not scaled, as SVD was trained.

    Args:
        vae: encoder.
        frames: [B, T, 3, H, W] in [0, 1].
        chunk_size: frames encoded together; smaller needs less memory.

    Returns:
        [B, T, C, h, w].
    """
    return encode_frames(vae, frames, chunk_size)[0]


def augment_with_noise(
    frames: Tensor, noise_aug_strength: Tensor, generator: Generators = None
) -> Tensor:
    """SVD's noise augmentation: Gaussian noise on the conditioning pixels in [-1, 1] units.

    Args:
        frames: [B, T, 3, H, W] in [0, 1].
        noise_aug_strength: [B], standard deviation in [-1, 1] units.
        generator: of the noise, on the CPU; one, or one for each video.

    Returns:
        [B, T, 3, H, W], not clamped.
    """
    noise = randn(frames.shape, generator).to(frames)
    return frames + noise_aug_strength.to(frames)[:, None, None, None, None] * noise / 2


def scaled_latents(vae: VAE, frames: Tensor, chunk_size: int = CHUNK_SIZE) -> Tensor:
    """The mode of the posterior at the scale of the diffusion model.

    Args:
        vae: encoder.
        frames: [B, T, 3, H, W] in [0, 1].
        chunk_size: frames encoded together; smaller needs less memory.

    Returns:
        [B, T, C, h, w].
    """
    return encode_condition(vae, frames, chunk_size) * vae.config.scaling_factor


def decode_orbit(
    vae: VAE, latents: Tensor, base: Tensor | None = None, chunk_size: int = CHUNK_SIZE
) -> Tensor:
    """Decode sampled latents to frames.

    With a base the latents are a difference, and so is what is decoded: base + D(z + z_base) -
    D(z_base). Where the difference is zero the base comes out exactly, without the loss of D.

    Args:
        vae: encoder and decoder.
        latents: [B, T, C, h, w] at the scale of the diffusion model.
        base: [B, T, 3, H, W] in [0, 1], of `OrbitCondition`.
        chunk_size: frames decoded together; smaller needs less memory.

    Returns:
        [B, T, 3, H, W] in [0, 1].
    """
    if base is None:
        return decode_latents(vae, latents, chunk_size).clamp(0, 1)
    base_latents = scaled_latents(vae, base, chunk_size)
    decoded = decode_latents(vae, base_latents + latents, chunk_size)
    return (base + decoded - decode_latents(vae, base_latents, chunk_size)).clamp(0, 1)


def decode_latents(vae: VAE, latents: Tensor, chunk_size: int = CHUNK_SIZE) -> Tensor:
    """Decode scaled latents to images.

    Args:
        vae: decoder.
        latents: [B, T, C, h, w] at the scale of the diffusion model.
        chunk_size: frames decoded together; smaller needs less memory.

    Returns:
        [B, T, 3, H, W], about in [0, 1], not clamped.
    """
    temporal = isinstance(vae, AutoencoderKLTemporalDecoder)
    videos = []
    for video in (latents / vae.config.scaling_factor).to(vae.dtype):
        chunks = [
            vae.decode(chunk, **({"num_frames": len(chunk)} if temporal else {})).sample
            for chunk in video.split(chunk_size)
        ]
        videos.append(torch.cat(chunks))
    return torch.stack(videos).float() / 2 + 0.5


def vector_condition(elevation_deg: Tensor, noise_aug_strength: Tensor) -> Tensor:
    """The paper's vector condition, which the UNet embeds as sinusoids (Section 4.2).

    Args:
        elevation_deg: [B] degrees.
        noise_aug_strength: [B].

    Returns:
        added_time_ids [B, 2].
    """
    return torch.stack([elevation_deg, noise_aug_strength], dim=-1)


def estimate_depth(
    depth_estimator: DPTForDepthEstimation, frames: Tensor, chunk_size: int = CHUNK_SIZE
) -> Tensor:
    """Relative inverse depth of every frame (paper, Section 4.3; DPT, arXiv 2103.13413).

    Args:
        depth_estimator: its config says the input size.
        frames: [B, T, 3, H, W] in [0, 1].
        chunk_size: frames estimated together; smaller needs less memory.

    Returns:
        [B, T, 1, H', W'] at the estimator's own resolution, each frame scaled to [0, 1], 1 nearest.
    """
    size = depth_estimator.config.image_size
    pixels = F.interpolate(frames.flatten(0, 1), (size, size), mode="bilinear") * 2 - 1
    chunks = pixels.to(depth_estimator.dtype).split(chunk_size)
    depth = torch.cat([depth_estimator(pixel_values=chunk).predicted_depth for chunk in chunks])
    low = depth.amin((1, 2), keepdim=True)
    high = depth.amax((1, 2), keepdim=True)
    depth = (depth - low) / (high - low).clamp_min(1e-6)
    return depth[:, None].unflatten(0, frames.shape[:2]).to(frames)


def resize_depth(depth: Tensor, size: Sequence[int]) -> Tensor:
    """Resize depth maps to the resolution of the latents (paper, Section 4.3).

    Args:
        depth: [B, T, 1, H, W].
        size: (h, w) of the latents.

    Returns:
        [B, T, 1, h, w].
    """
    resized = F.interpolate(depth.flatten(0, 1), tuple(size), mode="bilinear", antialias=True)
    return resized.unflatten(0, depth.shape[:2])
