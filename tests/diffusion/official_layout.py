"""Tiny networks with random weights, written in the layout of the released files."""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLTemporalDecoder,
    UNetSpatioTemporalConditionModel,
)
from torch import Tensor, nn
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    DPTConfig,
    DPTForDepthEstimation,
)

from hi3d.diffusion.official.aesthetic import AestheticScorer
from hi3d.diffusion.official.keys import (
    KeyMap,
    aesthetic_keys,
    clip_keys,
    depth_keys,
    unet_keys,
    vae_keys,
)
from hi3d.diffusion.official.unet import OfficialUNet

UNET = "model.diffusion_model."
HEAD_CHANNELS = 32
CLIP_ = {
    "hidden_size": 80,
    "intermediate_size": 32,
    "projection_dim": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 1,
    "image_size": 16,
    "patch_size": 8,
    "hidden_act": "gelu",
}
LAION = {
    **CLIP_,
    "hidden_size": 64,
    "image_size": 224,
    "patch_size": 112,
    "hidden_act": "quick_gelu",
}


def official_state(network: nn.Module, keys: KeyMap, prefix: str) -> dict[str, Tensor]:
    """The weights of one of our networks by the released files' names."""
    state: dict[str, Tensor] = {}
    stacked: dict[str, list[Tensor]] = {}
    for name, value in network.state_dict().items():
        source = keys(name)
        key = prefix + source.key
        if source.third is not None:
            stacked.setdefault(key, [torch.empty(0)] * 3)[source.third] = value
        else:
            state[key] = value.T.contiguous() if source.transposed else value
        # The released autoencoder's attention is made of 1 x 1 convolutions.
        if ".attn_1." in key and "weight" in key and value.ndim == 2:
            state[key] = value[:, :, None, None]
    return state | {key: torch.cat(thirds) for key, thirds in stacked.items()}


def networks(source: str) -> dict[str, nn.Module]:
    """Tiny networks of one kind of checkpoint."""
    torch.manual_seed(0)
    svd, stage2 = source == "svd", source == "official-stage2"
    unet_class = UNetSpatioTemporalConditionModel if svd else OfficialUNet
    parts: dict[str, nn.Module] = {
        "unet": unet_class(
            in_channels=17 if stage2 else 8,
            down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
            up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
            block_out_channels=(32, 64),
            layers_per_block=1,
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=16 if stage2 else 24,
            cross_attention_dim=24,
            num_attention_heads=(1, 2),
            num_frames=16,
        ),
        "image_encoder": CLIPVisionModelWithProjection(CLIPVisionConfig(**CLIP_)),
    }
    vae: dict[str, Any] = {
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "block_out_channels": (32, 64),
        "layers_per_block": 1,
        "latent_channels": 4,
    }
    if svd:
        parts["vae"] = AutoencoderKLTemporalDecoder(**vae)
    else:
        parts["vae"] = AutoencoderKL(**vae, up_block_types=("UpDecoderBlock2D",) * 2)
    if source == "official-stage1":
        parts["aesthetic_scorer"] = AestheticScorer(LAION, (16, 8, 8, 4))
    if stage2:
        parts["depth_estimator"] = DPTForDepthEstimation(tiny_depth_config())
    return {name: part.eval() for name, part in parts.items()}


def tiny_depth_config() -> DPTConfig:
    """A small DPT-Hybrid for images of 32 pixels."""
    return DPTConfig(
        is_hybrid=True,
        backbone_config={
            "model_type": "bit",
            "global_padding": "SAME",
            "layer_type": "bottleneck",
            "depths": [1, 1, 1],
            "hidden_sizes": [128, 128, 128, 256],
            "embedding_size": 32,
            "out_features": ["stage1", "stage2", "stage3"],
            "embedding_dynamic_padding": True,
        },
        backbone_featmap_shape=[1, 128, 2, 2],
        image_size=32,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=12,
        num_attention_heads=1,
        layer_norm_eps=1e-6,
        neck_hidden_sizes=[128, 128, 64, 64],
        fusion_hidden_size=16,
    )


def checkpoint(source: str, parts: dict[str, nn.Module]) -> dict[str, Tensor]:
    """All weights of a released file, with those that no network of ours takes."""
    vae = official_state(parts["vae"], vae_keys(2), "first_stage_model.")
    clip = "conditioner.embedders.0.open_clip.model."
    state = {
        **official_state(parts["unet"], unet_keys(1, 2), UNET),
        **vae,
        **official_state(parts["image_encoder"], clip_keys, clip),
        f"{clip}token_embedding.weight": torch.zeros(3, 2),
        f"{clip}logit_scale": torch.zeros(()),
    }
    for key, value in vae.items():
        name = key.removeprefix("first_stage_model.")
        state[f"conditioner.embedders.3.encoder.{name}"] = value
    if source == "svd":  # its first stage has no quantisation layer
        state = {k: v for k, v in state.items() if not k.startswith("first_stage_model.quant")}
    if "aesthetic_scorer" in parts:
        aesthetic = "conditioner.embedders.1."
        state |= official_state(parts["aesthetic_scorer"], aesthetic_keys, aesthetic)
    if "depth_estimator" in parts:
        depth = "conditioner.embedders.2.model.model."
        state |= official_state(parts["depth_estimator"], depth_keys, depth)
        state[f"{depth}pretrained.model.head.weight"] = torch.zeros(2, 2)
    return state


def write(path: Path, state: dict[str, Tensor], layout: str) -> Path:
    """Write a checkpoint as DeepSpeed, Lightning or safetensors do."""
    if layout == "safetensors":
        from safetensors.torch import save_file

        file = path / "model.safetensors"
        save_file({k: v.contiguous().clone() for k, v in state.items()}, file)
        return file
    file = path / "mp_rank_00_model_states.pt"
    if layout == "deepspeed":
        torch.save({"module": {f"module.{k}": v for k, v in state.items()}, "step": 3}, file)
    elif layout == "lightning":
        torch.save({"state_dict": state}, file)
    else:
        torch.save(state, file)
    return file
