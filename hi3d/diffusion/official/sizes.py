"""Sizes of the networks in a released checkpoint, read from the shapes of its weights."""

import re
from typing import Any

from transformers import DPTConfig

from hi3d.cameras import NUM_ORBIT_VIEWS

Shapes = dict[str, tuple[int, ...]]
"""Shape of each weight of one network, by the released file's name."""
SCALING_FACTOR = 0.18215
"""Of Stable Diffusion's latents, to unit variance."""


def count(shapes: Shapes, pattern: str) -> int:
    """How many numbers stand for the group of `pattern` in the names."""
    return len({match[1] for key in shapes if (match := re.match(pattern, key))})


def unet_config(shapes: Shapes, num_time_ids: int, head_channels: int) -> dict[str, Any]:
    """Settings of `UNetSpatioTemporalConditionModel`.

    Raises:
        KeyError: names a weight that is missing.
    """
    levels = count(shapes, r"input_blocks\.(\d+)\.0\.op\.weight") + 1
    downsamplers = [key for key in shapes if re.match(r"input_blocks\.\d+\.0\.op\.weight", key)]
    if not downsamplers:
        raise KeyError("input_blocks.3.0.op.weight")
    step = min(int(key.split(".")[1]) for key in downsamplers)
    first = [f"input_blocks.{1 + level * step}" for level in range(levels)]
    channels = tuple(shapes[f"{block}.0.out_layers.3.weight"][0] for block in first)
    attended = [f"{block}.1.norm.weight" in shapes for block in first]
    vector = shapes["label_emb.0.0.weight"][1]
    return {
        "in_channels": shapes["input_blocks.0.0.weight"][1],
        "out_channels": shapes["out.2.weight"][0],
        "down_block_types": tuple(
            "CrossAttnDownBlockSpatioTemporal" if has else "DownBlockSpatioTemporal"
            for has in attended
        ),
        "up_block_types": tuple(
            "CrossAttnUpBlockSpatioTemporal" if has else "UpBlockSpatioTemporal"
            for has in reversed(attended)
        ),
        "block_out_channels": channels,
        "layers_per_block": step - 1,
        "addition_time_embed_dim": vector // num_time_ids,
        "projection_class_embeddings_input_dim": vector,
        "cross_attention_dim": shapes[f"{first[0]}.1.transformer_blocks.0.attn2.to_k.weight"][1],
        "num_attention_heads": tuple(max(width // head_channels, 1) for width in channels),
        "num_frames": NUM_ORBIT_VIEWS,
    }


def vae_config(shapes: Shapes) -> dict[str, Any]:
    """Settings of `AutoencoderKL`.

    Raises:
        KeyError: names a weight that is missing.
    """
    levels = count(shapes, r"encoder\.down\.(\d+)\.")
    if levels == 0:
        raise KeyError("first_stage_model.encoder.down.0.block.0.conv1.weight")
    return {
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "block_out_channels": tuple(
            shapes[f"encoder.down.{level}.block.0.conv1.weight"][0] for level in range(levels)
        ),
        "layers_per_block": count(shapes, r"encoder\.down\.0\.block\.(\d+)\."),
        "latent_channels": shapes["decoder.conv_in.weight"][1],
        "scaling_factor": SCALING_FACTOR,
    }


def clip_config(shapes: Shapes, head_channels: int, activation: str) -> dict[str, Any]:
    """Settings of `CLIPVisionConfig`.

    Args:
        shapes: of an OpenCLIP or OpenAI CLIP network.
        head_channels: width of an attention head, 80 in ViT-H and 64 in ViT-L.
        activation: gelu (OpenCLIP) or quick_gelu (OpenAI).

    Raises:
        KeyError: names a weight that is missing.
    """
    width, projected = shapes["visual.proj"]
    patch = shapes["visual.conv1.weight"][-1]
    side = round((shapes["visual.positional_embedding"][0] - 1) ** 0.5)
    return {
        "hidden_size": width,
        "intermediate_size": shapes["visual.transformer.resblocks.0.mlp.c_fc.weight"][0],
        "projection_dim": projected,
        "num_hidden_layers": count(shapes, r"visual\.transformer\.resblocks\.(\d+)\."),
        "num_attention_heads": max(width // head_channels, 1),
        "image_size": side * patch,
        "patch_size": patch,
        "hidden_act": activation,
    }


def aesthetic_config(shapes: Shapes) -> dict[str, Any]:
    """Settings of `AestheticScorer`.

    Raises:
        KeyError: names a weight that is missing.
    """
    prefix = "aesthetic_model."
    clip = {key.removeprefix(prefix): s for key, s in shapes.items() if key.startswith(prefix)}
    layers = [shapes[f"aesthetic_mlp.layers.{index}.weight"] for index in (0, 2, 4, 6)]
    return {
        "clip": clip_config(clip, 64, "quick_gelu"),
        "widths": tuple(shape[0] for shape in layers),
    }


def depth_config(shapes: Shapes) -> DPTConfig:
    """Settings of MiDaS's DPT-Hybrid.

    Raises:
        KeyError: names a weight that is missing.
    """
    width = shapes["pretrained.model.cls_token"][-1]
    side = round((shapes["pretrained.model.pos_embed"][1] - 1) ** 0.5)
    stages = r"pretrained\.model\.patch_embed\.backbone\.stages\."
    depths = [count(shapes, rf"{stages}{stage}\.blocks\.(\d+)\.") for stage in range(3)]
    sizes = [
        shapes[f"pretrained.model.patch_embed.backbone.stages.{i}.blocks.0.conv3.weight"][0]
        for i in range(3)
    ]
    backbone = {
        "model_type": "bit",
        "global_padding": "SAME",
        "layer_type": "bottleneck",
        "depths": depths,
        "hidden_sizes": [*sizes, 2 * sizes[-1]],
        "embedding_size": shapes["pretrained.model.patch_embed.backbone.stem.conv.weight"][0],
        "out_features": ["stage1", "stage2", "stage3"],
        "embedding_dynamic_padding": True,
    }
    return DPTConfig(
        is_hybrid=True,
        backbone_config=backbone,
        backbone_featmap_shape=[1, sizes[-1], side, side],
        image_size=16 * side,
        hidden_size=width,
        intermediate_size=shapes["pretrained.model.blocks.0.mlp.fc1.weight"][0],
        num_hidden_layers=count(shapes, r"pretrained\.model\.blocks\.(\d+)\."),
        num_attention_heads=max(width // 64, 1),
        layer_norm_eps=1e-6,
        neck_hidden_sizes=[shapes[f"scratch.layer{i}_rn.weight"][1] for i in (1, 2, 3, 4)],
        fusion_hidden_size=shapes["scratch.layer1_rn.weight"][0],
    )
