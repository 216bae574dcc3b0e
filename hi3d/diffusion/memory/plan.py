"""What a stage holds on the card in each of its steps, counted from the shapes of its networks."""

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKLTemporalDecoder
from torch import Tensor

from hi3d.cameras import NUM_ORBIT_VIEWS
from hi3d.diffusion.conditioning import upcast
from hi3d.diffusion.memory.count import peak_bytes, weight_bytes
from hi3d.diffusion.memory.modes import MemoryMode, decode_chunk_size, set_parts
from hi3d.diffusion.official.unet import OfficialUNet

GIB = 2**30
RESERVE = 1.15
"""Blocks that the allocator cannot reuse, and workspaces of convolutions, over what is counted."""
CONTEXT_BYTES = 0.6 * GIB
"""Of CUDA itself and of its libraries."""


@dataclass(frozen=True)
class StepMemory:
    """One step of a stage."""

    step: str
    """What runs."""
    weights: int
    """Bytes of the networks that are on the card."""
    activations: int
    """Bytes of what is computed, at the most."""

    @property
    def peak(self) -> int:
        """Bytes with the allocator's reserve and CUDA's own."""
        return int(self.weights + RESERVE * self.activations + CONTEXT_BYTES)


def stage_plan(
    networks: dict[str, Any],
    resolution: int,
    mode: MemoryMode,
    decode_chunk: int = NUM_ORBIT_VIEWS,
    guided: bool = True,
    num_frames: int = NUM_ORBIT_VIEWS,
) -> list[StepMemory]:
    """The steps of a stage with its networks' sizes, dtypes and classes.

    Args:
        networks: by their names in the pipeline, on the meta device.
        resolution: image side.
        mode: of the pipeline.
        decode_chunk: `SamplerConfig.decode_chunk_size`.
        guided: whether any frame's guidance scale is not 1.
        num_frames: T.
    """
    vae, unet, held = networks["vae"], networks["unet"], weights_held(networks, mode)
    latents = latent_shape(vae, resolution, num_frames)
    batch = 2 if guided and not mode.sequential else 1
    set_parts(unet, mode.parts, num_frames)
    kept = condition_bytes(unet, latents, resolution)
    of_orbit = unet.config.in_channels > 2 * unet.config.out_channels  # stage 2
    encoder_chunk = min(mode.chunk_size, num_frames if of_orbit else 1)
    steps = [("encode", "vae", lambda: encode(vae, encoder_chunk, resolution))]
    if "depth_estimator" in networks:
        depth = networks["depth_estimator"]
        steps.append(("depth", "depth_estimator", lambda: estimate(depth, mode.chunk_size)))
    steps.append(("denoise", "unet", lambda: predict(unet, batch, latents)))
    chunk = min(decode_chunk_size(vae, decode_chunk, mode), num_frames)
    steps.append(("decode", "vae", lambda: decode(vae, (chunk, *latents[1:]))))
    return [StepMemory(step, held[name], kept + peak_bytes(run)) for step, name, run in steps]


def weights_held(networks: dict[str, Any], mode: MemoryMode) -> dict[str, int]:
    """Bytes on the card while each network runs.

    With offload the VAE stays from its encoding on until it has decoded; of the others each is
    there alone.
    """
    sizes = {name: weight_bytes(network) for name, network in networks.items()}
    if not mode.offload:
        return dict.fromkeys(sizes, sum(sizes.values()))
    return {name: size + (name != "vae") * sizes["vae"] for name, size in sizes.items()}


def latent_shape(vae: Any, resolution: int, num_frames: int) -> tuple[int, int, int, int]:
    """(T, C, h, w) of an orbit's latents."""
    with vae.device:
        image = torch.empty(1, 3, resolution, resolution, dtype=vae.dtype)
        mean = vae.encode(image).latent_dist.mean
    return (num_frames, *mean.shape[1:])


def condition_bytes(unet: Any, latents: tuple[int, ...], resolution: int) -> int:
    """Of what lies on the card throughout: the orbit's frames, condition and sampled latents."""
    frames, _, height, width = latents
    channels = unet.config.in_channels + 3 * unet.config.out_channels
    return 4 * frames * (3 * resolution**2 + channels * height * width)


def encode(vae: Any, frames: int, resolution: int) -> Tensor:
    """One chunk through the encoder, in float32 where its config forces that."""
    with upcast(vae), vae.device:
        pixels = torch.empty(frames, 3, resolution, resolution, dtype=vae.dtype)
        return vae.encode(pixels).latent_dist.mean


def estimate(depth_estimator: Any, frames: int) -> Tensor:
    """One chunk through the depth model."""
    size = depth_estimator.config.image_size
    with depth_estimator.device:
        pixels = torch.empty(frames, 3, size, size, dtype=depth_estimator.dtype)
    return depth_estimator(pixel_values=pixels).predicted_depth


def predict(unet: Any, batch: int, latents: tuple[int, ...]) -> Tensor:
    """One evaluation of the UNet."""
    frames, _, height, width = latents
    config = unet.config
    vector = config.projection_class_embeddings_input_dim
    if not isinstance(unet, OfficialUNet):
        vector //= config.addition_time_embed_dim
    with unet.device:
        sample = torch.empty(batch, frames, config.in_channels, height, width, dtype=unet.dtype)
        context = torch.empty(batch, 1, config.cross_attention_dim, dtype=unet.dtype)
        time_ids = torch.empty(batch, vector, dtype=unet.dtype)
        noise_level = torch.empty(batch, dtype=unet.dtype)
    return unet(sample, noise_level, encoder_hidden_states=context, added_time_ids=time_ids).sample


def decode(vae: Any, shape: tuple[int, ...]) -> Tensor:
    """One chunk through the decoder."""
    more = {"num_frames": shape[0]} if isinstance(vae, AutoencoderKLTemporalDecoder) else {}
    with vae.device:
        latents = torch.empty(shape, dtype=vae.dtype)
    return vae.decode(latents, **more).sample


def as_table(plans: dict[str, list[StepMemory]]) -> str:
    """Plans of stages as lines of text: step, weights, activations and peak in GiB."""
    lines = [f"{'stage':8} {'step':8} {'weights':>8} {'activations':>12} {'peak':>8}  (GiB)"]
    for stage, steps in plans.items():
        for each in steps:
            lines.append(
                f"{stage:8} {each.step:8} {each.weights / GIB:8.2f} "
                f"{each.activations / GIB:12.2f} {each.peak / GIB:8.2f}"
            )
    return "\n".join(lines)
