"""The video UNet of both stages: Stable Video Diffusion's class at any size."""

from dataclasses import dataclass, field

import torch
from diffusers import UNetSpatioTemporalConditionModel

from hi3d.cameras import NUM_ORBIT_VIEWS
from hi3d.config import check_number
from hi3d.diffusion.official.unet import OfficialUNet
from hi3d.errors import InputError

NUM_TIME_IDS = 2
"""Vector condition of the paper (Section 4.2): elevation and noise augmentation."""
SVD_TIME_IDS = (6.0, 127.0)
"""Frame rate and motion that SVD is sampled with by default: 7 frames per second, less 1 as it was
trained (arXiv 2311.15127), and motion bucket 127."""


@dataclass
class UNetConfig:
    """Size of the UNet. The defaults are Stable Video Diffusion's (1.5 billion parameters)."""

    block_out_channels: list[int] = field(default_factory=lambda: [320, 640, 1280, 1280])
    """Channels per level, each divisible by 32; every level but the last halves the resolution."""
    layers_per_block: int = 2
    """Residual blocks per level."""
    num_attention_heads: list[int] = field(default_factory=lambda: [5, 10, 20, 20])
    """Heads per level."""
    cross_attention_dim: int = 1024
    """Width of the image embedding."""
    addition_time_embed_dim: int = 256
    """Width of the sinusoidal embedding of each vector condition."""

    def __post_init__(self) -> None:
        channels, heads = self.block_out_channels, self.num_attention_heads
        if len(channels) != len(heads) or not channels:
            raise InputError(
                f"unet: {len(channels)} block_out_channels and {len(heads)} num_attention_heads: "
                "give one of each per level"
            )
        for width, count in zip(channels, heads, strict=True):
            check_number("unet.block_out_channels", width, 32, 2**16)
            check_number("unet.num_attention_heads", count, 1, 2**10)
            if width % 32 or width % count:
                raise InputError(
                    f"unet: {width} channels with {count} heads: channels are a multiple of 32 "
                    "and of the heads"
                )
        check_number("unet.layers_per_block", self.layers_per_block, 1, 64)
        check_number("unet.cross_attention_dim", self.cross_attention_dim, 1, 2**16)
        check_number("unet.addition_time_embed_dim", self.addition_time_embed_dim, 2, 2**16)


def stage1_in_channels(latent_channels: int) -> int:
    """Noisy latents and image latents (paper, Section 4.2)."""
    return 2 * latent_channels


def stage2_in_channels(latent_channels: int, depth: bool = True) -> int:
    """Noisy latents, image latents, orbit latents and depth (paper, Section 4.3).

    Args:
        latent_channels: of the VAE.
        depth: False leaves its channel out, as the paper's ablation "w/o depth" (Table 3).
    """
    return 3 * latent_channels + int(depth)


def build_unet(
    config: UNetConfig, in_channels: int, out_channels: int
) -> UNetSpatioTemporalConditionModel:
    """A randomly initialised UNet; attention on every level but the lowest, as in SVD.

    Args:
        config: its size.
        in_channels: noisy latents plus the conditions concatenated to them.
        out_channels: of the latents.
    """
    num_attended = len(config.block_out_channels) - 1
    down = ["CrossAttnDownBlockSpatioTemporal"] * num_attended + ["DownBlockSpatioTemporal"]
    up = ["UpBlockSpatioTemporal"] + ["CrossAttnUpBlockSpatioTemporal"] * num_attended
    return UNetSpatioTemporalConditionModel(
        in_channels=in_channels,
        out_channels=out_channels,
        down_block_types=tuple(down),
        up_block_types=tuple(up),
        block_out_channels=tuple(config.block_out_channels),
        addition_time_embed_dim=config.addition_time_embed_dim,
        projection_class_embeddings_input_dim=NUM_TIME_IDS * config.addition_time_embed_dim,
        layers_per_block=config.layers_per_block,
        cross_attention_dim=config.cross_attention_dim,
        num_attention_heads=tuple(config.num_attention_heads),
        num_frames=NUM_ORBIT_VIEWS,
    )


def from_svd(
    svd: UNetSpatioTemporalConditionModel, in_channels: int
) -> UNetSpatioTemporalConditionModel:
    """Remould SVD's UNet: other input channels, and elevation in place of fps and motion.

    - Input convolution: noisy and image latents keep their weights; further channels start at 0,
      so that the new network begins as SVD.
    - Vector condition: SVD's [fps | motion | noise augmentation] becomes
      [elevation | noise augmentation]; elevation starts at 0, noise augmentation is kept, and what
      fps and motion add at `SVD_TIME_IDS` goes into the bias, so that the new network begins as
      SVD at these values. A network that has our two conditions already keeps both.

    Args:
        svd: SVD's UNet, or the other stage's.
        in_channels: of the new network, at least SVD's.

    Returns:
        A new UNet; it shares the weights that stay the same with `svd`, which is not changed here:
        two would take twice the memory.

    Raises:
        ValueError: `in_channels` is smaller than SVD's, or the vector condition is neither SVD's
            nor ours.
    """
    if in_channels < svd.config.in_channels:
        raise ValueError(f"in_channels {in_channels} is below SVD's {svd.config.in_channels}")
    width = svd.config.addition_time_embed_dim
    num_time_ids = svd.config.projection_class_embeddings_input_dim / width
    if isinstance(svd, OfficialUNet) or num_time_ids not in (NUM_TIME_IDS, NUM_TIME_IDS + 1):
        raise ValueError("the vector condition is neither SVD's nor elevation and noise")
    settings = {**svd.config, "in_channels": in_channels}
    settings["projection_class_embeddings_input_dim"] = NUM_TIME_IDS * width
    with torch.device("meta"):
        unet = UNetSpatioTemporalConditionModel.from_config(settings)
    state = svd.state_dict()
    learned = state["conv_in.weight"]
    conv = learned.new_zeros(unet.conv_in.weight.shape)
    conv[:, : svd.config.in_channels] = learned
    state["conv_in.weight"] = conv
    if num_time_ids != NUM_TIME_IDS:
        learned = state["add_embedding.linear_1.weight"]
        vector = learned.new_zeros(unet.add_embedding.linear_1.weight.shape)
        vector[:, -width:] = learned[:, -width:]
        state["add_embedding.linear_1.weight"] = vector
        removed = svd.add_time_proj(torch.tensor(SVD_TIME_IDS)).flatten().to(learned)
        bias = state["add_embedding.linear_1.bias"]
        state["add_embedding.linear_1.bias"] = bias + learned[:, :-width] @ removed
    unet.load_state_dict(state, assign=True)
    return unet
