"""A guided run and a training step of the small stage 1 against stock diffusers, same weights.

The baseline of the run is `StableVideoDiffusionPipeline`'s loop: diffusers' UNet and Euler
scheduler, both halves of guidance in one batch. That of the step is the UNet as it is, AdamW and
the moving average parameter by parameter. Both sides take turns; CPU seconds, since the machine may
be shared. With --cached-latents: operations of a full-size training step with cached latents,
counted from shapes on no device, in about a minute.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from diffusers import AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel
from gpu_parts.rows import tflop_of
from torch import Tensor

from hi3d.diffusion.edm import karras_sigmas, loss_denoising
from hi3d.diffusion.equal_forms import use_equal_forms
from hi3d.diffusion.guidance import GuidanceConfig, guidance_scales
from hi3d.diffusion.sampling import OrbitCondition, conditioned_network, sample_orbit_latents
from hi3d.diffusion.unet import UNetConfig, build_unet, stage1_in_channels
from hi3d.diffusion.weights import load_network, svd_scheduler
from hi3d.files import shipped
from hi3d.training.average import MovingAverage
from hi3d.training.scaling.trainable import build_optimizer

FOLDER, SIDE, NUM_FRAMES, NUM_STEPS = "data/models/nano/stage1", 8, 16, 25
TIMED_STEPS = 2
"""Of the run, in each turn: short, so that what else runs on the machine meets both sides."""
FULL_SIDE, FULL_CHANNELS, FULL_FACTOR = 512, 4, 8
DECAY, LEARNING_RATE, TRAINED_SIGMA = 0.995, 1e-5, 3.0


def small_unet() -> UNetSpatioTemporalConditionModel:
    unet: UNetSpatioTemporalConditionModel = load_network(str(shipped(FOLDER)), "unet")
    torch.nn.init.normal_(unet.conv_out.weight, std=0.02)  # nano's adds next to nothing
    return unet


def random_condition(unet: UNetSpatioTemporalConditionModel) -> OrbitCondition:
    config = unet.config
    channels = config.in_channels - config.out_channels
    return OrbitCondition(
        torch.randn(1, NUM_FRAMES, channels, SIDE, SIDE),
        torch.randn(1, 1, config.cross_attention_dim),
        torch.tensor([[20.0, 0.02]]),
    )


@torch.no_grad()
def stock_run(
    unet: UNetSpatioTemporalConditionModel,
    condition: OrbitCondition,
    noise: Tensor,
    scales: Tensor,
    steps: int,
) -> Tensor:
    """The denoising loop of diffusers' pipeline. [1, T, C, h, w]"""
    scheduler = svd_scheduler()
    scheduler.set_timesteps(steps)
    latents = noise * scheduler.init_noise_sigma
    images = torch.cat([torch.zeros_like(condition.concat), condition.concat])
    embeds = torch.cat([torch.zeros_like(condition.image_embeds), condition.image_embeds])
    ids = condition.added_time_ids.repeat(2, 1)
    scales = scales[None, :, None, None, None]
    for timestep in scheduler.timesteps:
        scaled = scheduler.scale_model_input(torch.cat([latents] * 2), timestep)
        joined = torch.cat([scaled, images], dim=2)
        found = unet(joined, timestep, embeds, ids, return_dict=False)[0]
        without, given = found.chunk(2)
        guided = without + scales * (given - without)
        latents = scheduler.step(guided, timestep, latents).prev_sample
    return latents


@torch.no_grad()
def our_run(
    unet: UNetSpatioTemporalConditionModel, condition: OrbitCondition, scales: Tensor, steps: int
) -> Tensor:
    """The same orbit as the project's pipelines sample it. [1, T, C, h, w]"""
    generator = torch.Generator().manual_seed(0)
    return sample_orbit_latents(unet, condition, karras_sigmas(steps), scales, generator)


def taking_turns(runs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """CPU seconds of each, the least of several; one run of each warms up."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + 1):
        for name, run in runs.items():
            start = time.process_time()
            run()
            if turn:
                found[name].append(time.process_time() - start)
    return {name: min(seconds) for name, seconds in found.items()}


def sampling(repeats: int) -> tuple[dict[str, float], float]:
    """Seconds of both whole runs, and the largest difference of what they give."""
    stock, ours = small_unet(), small_unet()
    ours.load_state_dict(stock.state_dict())
    use_equal_forms(ours)
    condition = random_condition(stock)
    scales = guidance_scales(GuidanceConfig(), NUM_FRAMES)
    shape = (1, NUM_FRAMES, stock.config.out_channels, SIDE, SIDE)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    first = stock_run(stock, condition, noise, scales, NUM_STEPS)
    second = our_run(ours, condition, scales, NUM_STEPS)
    runs = {
        "stock": lambda: stock_run(stock, condition, noise, scales, TIMED_STEPS),
        "ours": lambda: our_run(ours, condition, scales, TIMED_STEPS),
    }
    seconds = taking_turns(runs, repeats)
    whole = {name: NUM_STEPS / TIMED_STEPS * value for name, value in seconds.items()}
    return whole, float((first - second).abs().max())


def training(repeats: int) -> dict[str, float]:
    """Seconds of both steps, on one orbit, without encoders."""
    steps = {name: training_step(name == "ours") for name in ("stock", "ours")}
    return taking_turns(steps, repeats)


def training_step(ours: bool) -> Callable[[], None]:
    unet = small_unet().train()
    if ours:
        use_equal_forms(unet, trained=True)
    condition = random_condition(unet)
    latents = torch.randn(1, NUM_FRAMES, unet.config.out_channels, SIDE, SIDE)
    noise, sigma = torch.randn_like(latents), torch.tensor([TRAINED_SIGMA])
    parameters = list(unet.parameters())
    settings: dict[str, Any] = {"lr": LEARNING_RATE, "weight_decay": 0.01}
    optimizer = (
        build_optimizer(parameters, "adamw", **settings)
        if ours
        else torch.optim.AdamW(parameters, **settings)
    )
    average = MovingAverage(unet, DECAY)
    copies = [parameter.detach().clone() for parameter in parameters]

    def step() -> None:
        network = conditioned_network(unet, condition)
        loss_denoising(network, latents, noise, sigma).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        if ours:
            average.update()
            return
        for copy, parameter in zip(copies, parameters, strict=True):
            copy.mul_(DECAY).add_(parameter.detach(), alpha=1 - DECAY)

    return step


def encoding_tflop() -> float:
    """Of one frame at the paper's size."""
    vae = AutoencoderKLTemporalDecoder(
        down_block_types=("DownEncoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        latent_channels=FULL_CHANNELS,
    ).to("meta")
    with torch.no_grad():
        return tflop_of(lambda: vae.encode(torch.zeros(1, 3, FULL_SIDE, FULL_SIDE, device="meta")))


def unet_tflop() -> float:
    """Of a training step of stage 1 on one orbit, with gradient checkpointing."""
    unet = build_unet(UNetConfig(), stage1_in_channels(FULL_CHANNELS), FULL_CHANNELS)
    unet.to("meta").enable_gradient_checkpointing()
    side, channels = FULL_SIDE // FULL_FACTOR, unet.config.in_channels

    def step() -> None:
        with torch.device("meta"):
            sample = torch.zeros(1, NUM_FRAMES, channels, side, side)
            embeds, vector = torch.zeros(1, 1, unet.config.cross_attention_dim), torch.zeros(1, 2)
            unet(sample, torch.zeros(1), embeds, vector).sample.sum().backward()

    return tflop_of(step)


def cached_latents() -> None:
    """Operations of a training step with cached latents, against one that encodes them."""
    frame, unet = encoding_tflop(), unet_tflop()
    encoded = unet + (NUM_FRAMES + 1) * frame  # the true orbit and the reference image
    cached = unet + frame
    print(f"one frame through the VAE {frame:.2f}, UNet forward and backward {unet:.1f} TFLOP")
    print(
        f"step that encodes {encoded:.1f} TFLOP, with cached latents {cached:.1f} TFLOP, "
        f"ratio {encoded / cached:.3f} (baseline: the step that encodes)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=20, help="turns of each side (default: 20)")
    parser.add_argument("--cached-latents", action="store_true", help="count operations instead")
    arguments = parser.parse_args()
    if arguments.cached_latents:
        cached_latents()
        return
    torch.manual_seed(0)
    seconds, difference = sampling(arguments.repeats)
    print(
        f"{NUM_STEPS} guided steps: stock {seconds['stock']:.2f} s, ours {seconds['ours']:.2f} s, "
        f"ratio {seconds['stock'] / seconds['ours']:.2f} (baseline: stock); "
        f"outputs differ by {difference:.1e} at most"
    )
    seconds = training(arguments.repeats)
    print(
        f"a training step: stock {seconds['stock']:.3f} s, ours {seconds['ours']:.3f} s, "
        f"ratio {seconds['stock'] / seconds['ours']:.2f} (baseline: stock)"
    )


if __name__ == "__main__":
    main()
