"""Sampling of both stages, half precision and a training step, with random weights."""

from collections.abc import Callable

import torch
from diffusers import UNetSpatioTemporalConditionModel
from torch import Tensor

from gpu_parts.rows import (
    Row,
    Size,
    forget_peak_memory,
    mfu_percent,
    peak_memory_gb,
    seconds_of,
    tflop_of,
    weights_gb,
)
from gpu_parts.vae import LATENT_CHANNELS, vae_of
from hi3d.diffusion.conditioning import decode_orbit
from hi3d.diffusion.edm import karras_sigmas, loss_denoising
from hi3d.diffusion.equal_forms import use_equal_forms
from hi3d.diffusion.memory.modes import MEMORY_MODES
from hi3d.diffusion.memory.plan import stage_plan
from hi3d.diffusion.sampling import OrbitCondition, conditioned_network, sample_orbit_latents
from hi3d.diffusion.unet import UNetConfig, build_unet, stage1_in_channels, stage2_in_channels

FACTOR, NUM_FRAMES, NUM_STEPS, FEW_STEPS = 8, 16, 25, 3
TINY_UNET = UNetConfig([32, 64], 1, [2, 4], 32, 32)
DECODED_TOGETHER = 2
"""Frames of 1024^2 that fit beside the rest."""


def unet_of(size: Size, in_channels: int) -> UNetSpatioTemporalConditionModel:
    """SVD's network with random weights, made on the device."""
    with torch.device(size.device):
        unet = build_unet(TINY_UNET if size.tiny else UNetConfig(), in_channels, LATENT_CHANNELS)
    return unet.to(size.device)  # the mixing factors, which diffusers makes on the CPU


def condition_of(unet: UNetSpatioTemporalConditionModel, side: int, frames: int) -> OrbitCondition:
    """Random numbers in place of a photo."""
    config, device = unet.config, unet.device
    channels = config.in_channels - LATENT_CHANNELS
    width = config.projection_class_embeddings_input_dim // config.addition_time_embed_dim
    return OrbitCondition(
        torch.randn(1, frames, channels, side, side, device=device),
        torch.randn(1, 1, config.cross_attention_dim, device=device),
        torch.zeros(1, width, device=device),
    )


def sampling(size: Size, in_channels: int, resolution: int, goals: tuple[str, str]) -> list[Row]:
    """A guided run: few steps, projected to all, and the decoding of the orbit."""
    side, frames = (8, 3) if size.tiny else (resolution // FACTOR, NUM_FRAMES)
    unet = unet_of(size, in_channels).to(size.dtype).eval()
    vae = vae_of(size)
    condition, scales = condition_of(unet, side, frames), torch.linspace(1, 2.5, frames)
    planned = planned_gb(size, in_channels, side, frames)
    stock = stock_step_seconds(size, unet, condition)
    use_equal_forms(unet)
    forget_peak_memory()

    @torch.no_grad()
    def denoise(steps: int) -> Tensor:
        return sample_orbit_latents(unet, condition, karras_sigmas(steps), scales)

    @torch.no_grad()
    def decode() -> Tensor:
        return decode_orbit(vae, latents, None, DECODED_TOGETHER)

    latents = denoise(2)
    few = 2 if size.tiny else FEW_STEPS
    step = seconds_of(lambda: denoise(few), 1) / few
    denoising_memory = peak_memory_gb()
    forget_peak_memory()
    decoding = seconds_of(decode, 1)
    decoding_memory = peak_memory_gb()
    tflop = tflop_of(lambda: denoise(2)) / 2
    projected = NUM_STEPS * step + decoding
    return [
        Row(f"{NUM_STEPS} guided steps and decoding, projected", projected, "s", goals[0]),
        Row("one guided step", step, "s"),
        Row("decoding of the orbit", decoding, "s"),
        Row("denoising: MFU", mfu_percent(tflop, step, size.device), "%"),
        Row("stock diffusers: one guided step on the same weights", stock, "s"),
        Row("stock / ours", stock / step, "x"),
        Row("weights of UNet and VAE (plan)", weights_gb(unet, vae), "GB"),
        Row("peak memory of denoising", denoising_memory, "GB", goals[1]),
        Row("denoising: planned without reserve", planned["denoise"], "GB"),
        Row("denoising: measured / planned", denoising_memory / planned["denoise"], "", "<= 1.15"),
        Row("peak memory of decoding", decoding_memory, "GB", goals[1]),
        Row("decoding: planned without reserve", planned["decode"], "GB"),
        Row("decoding: measured / planned", decoding_memory / planned["decode"], "", "<= 1.15"),
    ]


def planned_gb(size: Size, in_channels: int, side: int, frames: int) -> dict[str, float]:
    """Weights and activations of each step by the memory plan, of UNet and VAE alone."""
    empty = Size(size.tiny, "meta")
    networks = {"unet": unet_of(empty, in_channels).eval(), "vae": vae_of(empty)}
    resolution = side * (2 if size.tiny else FACTOR)
    steps = stage_plan(
        {name: network.to(size.dtype) for name, network in networks.items()},
        resolution,
        MEMORY_MODES["fast"],
        DECODED_TOGETHER,
        num_frames=frames,
    )
    return {each.step: (each.weights + each.activations) / 1e9 for each in steps}


def stock_step_seconds(
    size: Size, unet: UNetSpatioTemporalConditionModel, condition: OrbitCondition
) -> float:
    """One step of diffusers' SVD loop: both halves of guidance in one call, Euler's update."""
    latents = torch.randn(
        *condition.concat.shape[:2],
        LATENT_CHANNELS,
        *condition.concat.shape[3:],
        device=unet.device,
        dtype=unet.dtype,
    )
    images = torch.cat([torch.zeros_like(condition.concat), condition.concat]).to(unet.dtype)
    embeds = condition.image_embeds.to(unet.dtype)
    embeds = torch.cat([torch.zeros_like(embeds), embeds])
    ids = condition.added_time_ids.to(unet.dtype).repeat(2, 1)
    scale = torch.linspace(1, 2.5, latents.shape[1], device=unet.device, dtype=unet.dtype)

    @torch.no_grad()
    def step() -> Tensor:
        joined = torch.cat([torch.cat([latents] * 2), images], dim=2)
        level = torch.tensor(1.0, device=unet.device)
        found = unet(joined, level, embeds, ids, return_dict=False)[0]
        without, given = found.chunk(2)
        return latents + scale[None, :, None, None, None] * (given - without)

    return seconds_of(step, 1)


def stage1(size: Size) -> list[Row]:
    """Orbit of 16 views at 512^2."""
    return sampling(size, stage1_in_channels(LATENT_CHANNELS), 512, ("<= 8 s", ""))


def stage2(size: Size) -> list[Row]:
    """Refined orbit at 1024^2."""
    return sampling(size, stage2_in_channels(LATENT_CHANNELS), 1024, ("<= 45 s", "<= 24 GB"))


def half_precision(size: Size) -> list[Row]:
    """The UNet in 16 bits against itself in 32, of the latents' norm."""
    unet = unet_of(size, stage1_in_channels(LATENT_CHANNELS)).eval()
    condition = condition_of(unet, 8 if size.tiny else 32, 3)
    latents = torch.randn_like(condition.concat)
    level = torch.zeros(1, device=size.device)

    @torch.no_grad()
    def output() -> Tensor:
        return conditioned_network(unet, condition)(latents, level).float()

    expected, rows = output(), []
    for dtype in (torch.bfloat16, torch.float16):
        unet.to(dtype)
        error = (output() - expected).norm() / expected.norm()
        rows.append(Row(f"{str(dtype).removeprefix('torch.')} against float32", float(error), ""))
        unet.float()
    return rows


def training(size: Size) -> list[Row]:
    """A step of stage 1 in bfloat16 with gradient checkpointing and AdamW, on one orbit."""
    unet = unet_of(size, stage1_in_channels(LATENT_CHANNELS)).train()
    side, frames = (8, 3) if size.tiny else (512 // FACTOR, NUM_FRAMES)
    condition = condition_of(unet, side, frames)
    latents = torch.randn_like(condition.concat)
    sigma = torch.ones(1, device=size.device)
    forget_peak_memory()
    optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-5)

    def loss() -> Tensor:
        with torch.autocast(size.device.type, torch.bfloat16):
            network = conditioned_network(unet, condition)
            return loss_denoising(network, latents, torch.randn_like(latents), sigma).mean()

    def step() -> None:
        loss().backward()
        optimizer.step()
        optimizer.zero_grad()

    tflop = 3 * forward_tflop(loss)
    unet.enable_gradient_checkpointing()
    seconds = seconds_of(step, 1 if size.tiny else 3)
    return [
        Row("one orbit a step", seconds, "s"),
        Row("operations of the model a step", tflop, "TFLOP"),
        Row("MFU", mfu_percent(tflop, seconds, size.device), "%", ">= 45 %"),
        Row("peak memory", peak_memory_gb(), "GB"),
    ]


def forward_tflop(run: Callable[[], Tensor]) -> float:
    """Operations of a forward pass; the backward pass has twice as many."""
    with torch.no_grad():
        return tflop_of(run)
