"""The VAE's encoder and decoder in chunks, as the pipelines use them, against diffusers' as is."""

import torch
from diffusers import AutoencoderKLTemporalDecoder
from torch import Tensor

from gpu_parts.rows import Row, Size, forget_peak_memory, peak_memory_gb, seconds_of
from hi3d.diffusion.conditioning import decode_latents, encode_frames

LATENT_CHANNELS, NUM_FRAMES, SIDE, CHUNK = 4, 16, 512, 4


def vae_of(size: Size) -> AutoencoderKLTemporalDecoder:
    """SVD's VAE with random weights."""
    channels = (32, 32) if size.tiny else (128, 256, 512, 512)
    with torch.device(size.device):
        vae = AutoencoderKLTemporalDecoder(
            down_block_types=("DownEncoderBlock2D",) * len(channels),
            block_out_channels=channels,
            layers_per_block=1 if size.tiny else 2,
            latent_channels=LATENT_CHANNELS,
        )
    return vae.to(size.device, size.dtype).eval()


def vae(size: Size) -> list[Row]:
    """An orbit of 16 frames of 512^2, four together and all in one pass."""
    network = vae_of(size)
    side, count = (16, 4) if size.tiny else (SIDE, NUM_FRAMES)
    frames = torch.rand(1, count, 3, side, side, device=size.device)
    pixels = (frames[0] * 2 - 1).to(size.dtype)

    @torch.no_grad()
    def our_encoding() -> Tensor:
        return encode_frames(network, frames, CHUNK)[0]

    @torch.no_grad()
    def stock_encoding() -> Tensor:
        return network.encode(pixels).latent_dist.mean

    latents = our_encoding() * network.config.scaling_factor
    unscaled = (latents[0] / network.config.scaling_factor).to(size.dtype)

    @torch.no_grad()
    def our_decoding() -> Tensor:
        return decode_latents(network, latents, CHUNK)

    @torch.no_grad()
    def stock_decoding() -> Tensor:
        return network.decode(unscaled, num_frames=count).sample

    runs = {"encode": (our_encoding, stock_encoding), "decode": (our_decoding, stock_decoding)}
    rows = []
    for name, (ours, stock) in runs.items():
        found = []
        for run in (ours, stock):
            forget_peak_memory()
            found.append((seconds_of(run, 1), peak_memory_gb()))
        (seconds, memory), (stock_seconds, stock_memory) = found
        rows += [
            Row(f"{name} an orbit, {CHUNK} frames together", seconds, "s"),
            Row(f"{name}: stock diffusers, all in one pass", stock_seconds, "s"),
            Row(f"{name}: stock / ours", stock_seconds / seconds, "x"),
            Row(f"{name}: peak memory", memory, "GB"),
            Row(f"{name}: peak memory of stock", stock_memory, "GB"),
        ]
    return rows
