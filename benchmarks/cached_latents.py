"""Operations of a training step of stage 1 with cached latents, against one that encodes them.

Counted from shapes at the paper's size, on no device: no weights, no GPU. Takes about a minute.
"""

import argparse
from collections.abc import Callable
from typing import Any

import torch
from diffusers import AutoencoderKLTemporalDecoder
from torch.utils.flop_counter import FlopCounterMode

from hi3d.diffusion.unet import UNetConfig, build_unet, stage1_in_channels

SIDE, NUM_FRAMES, LATENT_CHANNELS, FACTOR = 512, 16, 4, 8


def tflop(run: Callable[[], Any]) -> float:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() / 1e12


def encoding_tflop() -> float:
    vae = AutoencoderKLTemporalDecoder(
        down_block_types=("DownEncoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        latent_channels=LATENT_CHANNELS,
    ).to("meta")
    with torch.no_grad():
        return tflop(lambda: vae.encode(torch.zeros(1, 3, SIDE, SIDE, device="meta")))


def unet_tflop() -> float:
    unet = build_unet(UNetConfig(), stage1_in_channels(LATENT_CHANNELS), LATENT_CHANNELS)
    unet.to("meta").enable_gradient_checkpointing()
    side, channels = SIDE // FACTOR, unet.config.in_channels

    def step() -> None:
        with torch.device("meta"):
            sample = torch.zeros(1, NUM_FRAMES, channels, side, side)
            embeds, vector = torch.zeros(1, 1, unet.config.cross_attention_dim), torch.zeros(1, 2)
            unet(sample, torch.zeros(1), embeds, vector).sample.sum().backward()

    return tflop(step)


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    frame, unet = encoding_tflop(), unet_tflop()
    encoded = unet + (NUM_FRAMES + 1) * frame  # the true orbit and the reference image
    cached = unet + frame
    print(
        f"one frame through the VAE {frame:.2f} TFLOP, UNet forward and backward {unet:.1f} TFLOP"
    )
    print(f"step that encodes {encoded:.1f} TFLOP, with cached latents {cached:.1f} TFLOP")
    print(f"ratio {encoded / cached:.3f} (baseline: the step that encodes)")


if __name__ == "__main__":
    main()
