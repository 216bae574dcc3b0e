"""Names of weights: diffusers' and transformers' on the left, the released files' on the right.

The released files are in the layout of Stability's generative-models, with OpenCLIP's, OpenAI
CLIP's and MiDaS's networks inside. Every function gives the sources of one parameter of ours.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

SPATIAL_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


@dataclass(frozen=True)
class Source:
    """Where a parameter comes from."""

    key: str
    """Name in the released file, without the part's prefix."""
    third: int | None = None
    """Of queries, keys and values that are stacked in one matrix: which third of the rows."""
    transposed: bool = False

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Of the parameter, if the source has this shape."""
        if self.third is not None:
            return (shape[0] // 3, *shape[1:])
        return shape[::-1] if self.transposed else shape

    def take(self, value: Tensor) -> Tensor:
        """The parameter; a copy only where it is a part or a transpose of the source."""
        if self.third is not None:
            return value.chunk(3)[self.third].clone()
        return value.T.contiguous() if self.transposed else value


KeyMap = Callable[[str], Source]
"""Name of a parameter -> its source."""


def _renamed(name: str, rules: list[tuple[str, str]]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def _resnet(name: str, time_stack: str = "time_stack") -> str:
    for ours, theirs in SPATIAL_RESNET.items():
        name = name.replace(f"spatial_res_block.{ours}.", f"{theirs}.")
        name = name.replace(f"temporal_res_block.{ours}.", f"{time_stack}.{theirs}.")
    return name


def unet_keys(layers_per_block: int, num_levels: int) -> KeyMap:
    """Sources of `UNetSpatioTemporalConditionModel`.

    Args:
        layers_per_block: residual blocks per level.
        num_levels: resolutions; the last up block has no upsampler.
    """
    step = layers_per_block + 1

    def up(match: re.Match[str]) -> str:
        level, part, layer = int(match[1]), match[2], int(match[3])
        return f"output_blocks.{level * step + layer}.{int(part == 'attentions')}."

    def down(match: re.Match[str]) -> str:
        level, part, layer = int(match[1]), match[2], int(match[3])
        return f"input_blocks.{1 + level * step + layer}.{int(part == 'attentions')}."

    def downsampler(match: re.Match[str]) -> str:
        return f"input_blocks.{(int(match[1]) + 1) * step}.0.op."

    def upsampler(match: re.Match[str]) -> str:
        # The lowest level has no attention between its residual block and its upsampler.
        level = int(match[1])
        return f"output_blocks.{level * step + layers_per_block}.{1 if level == 0 else 2}.conv."

    def source(name: str) -> Source:
        name = re.sub(r"^down_blocks\.(\d+)\.downsamplers\.0\.conv\.", downsampler, name)
        name = re.sub(r"^up_blocks\.(\d+)\.upsamplers\.0\.conv\.", upsampler, name)
        name = re.sub(r"^down_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.", down, name)
        name = re.sub(r"^up_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.", up, name)
        rules = [
            (r"^mid_block\.resnets\.0\.", "middle_block.0."),
            (r"^mid_block\.attentions\.0\.", "middle_block.1."),
            (r"^mid_block\.resnets\.1\.", "middle_block.2."),
            (r"^conv_in\.", "input_blocks.0.0."),
            (r"^time_embedding\.linear_1\.", "time_embed.0."),
            (r"^time_embedding\.linear_2\.", "time_embed.2."),
            (r"^add_embedding\.linear_1\.", "label_emb.0.0."),
            (r"^add_embedding\.linear_2\.", "label_emb.0.2."),
            (r"^conv_norm_out\.", "out.0."),
            (r"^conv_out\.", "out.2."),
            (r"\.temporal_transformer_blocks\.", ".time_stack."),
            (r"\.time_pos_embed\.linear_1\.", ".time_pos_embed.0."),
            (r"\.time_pos_embed\.linear_2\.", ".time_pos_embed.2."),
        ]
        return Source(_resnet(_renamed(name, rules)))

    return source


def vae_keys(num_levels: int) -> KeyMap:
    """Sources of `AutoencoderKL` and of `AutoencoderKLTemporalDecoder`.

    Args:
        num_levels: resolutions; the decoder's are numbered from the finest in the released files.
    """

    def up(match: re.Match[str]) -> str:
        return f"decoder.up.{num_levels - 1 - int(match[1])}."

    def source(name: str) -> Source:
        rules = [
            (r"\.temporal_res_block\.norm1\.", ".time_stack.in_layers.0."),
            (r"\.temporal_res_block\.conv1\.", ".time_stack.in_layers.2."),
            (r"\.temporal_res_block\.norm2\.", ".time_stack.out_layers.0."),
            (r"\.temporal_res_block\.conv2\.", ".time_stack.out_layers.3."),
            (r"\.spatial_res_block\.", "."),
            (r"\.time_mixer\.mix_factor", ".mix_factor"),
            (r"^decoder\.time_conv_out\.", "decoder.conv_out.time_mix_conv."),
            (r"\.down_blocks\.", ".down."),
            (r"\.mid_block\.resnets\.0\.", ".mid.block_1."),
            (r"\.mid_block\.resnets\.1\.", ".mid.block_2."),
            (r"\.mid_block\.attentions\.0\.", ".mid.attn_1."),
            (r"\.attn_1\.group_norm\.", ".attn_1.norm."),
            (r"\.attn_1\.to_([qkv])\.", r".attn_1.\1."),
            (r"\.attn_1\.to_out\.0\.", ".attn_1.proj_out."),
            (r"\.resnets\.", ".block."),
            (r"\.(down|up)samplers\.0\.conv\.", r".\1sample.conv."),
            (r"\.conv_shortcut\.", ".nin_shortcut."),
            (r"\.conv_norm_out\.", ".norm_out."),
        ]
        return Source(_renamed(re.sub(r"^decoder\.up_blocks\.(\d+)\.", up, name), rules))

    return source


def clip_keys(name: str) -> Source:
    """Sources of `CLIPVisionModelWithProjection`, in OpenCLIP's and OpenAI's files alike."""
    stacked = re.search(r"self_attn\.([qkv])_proj\.(weight|bias)$", name)
    rules = [
        (r"^visual_projection\.weight$", "visual.proj"),
        (r"^vision_model\.embeddings\.class_embedding$", "visual.class_embedding"),
        (r"^vision_model\.embeddings\.patch_embedding\.", "visual.conv1."),
        (r"^vision_model\.embeddings\.position_embedding\.weight$", "visual.positional_embedding"),
        (r"^vision_model\.pre_layrnorm\.", "visual.ln_pre."),
        (r"^vision_model\.post_layernorm\.", "visual.ln_post."),
        (r"^vision_model\.encoder\.layers\.", "visual.transformer.resblocks."),
        (r"\.self_attn\.[qkv]_proj\.", ".attn.in_proj_"),
        (r"\.self_attn\.out_proj\.", ".attn.out_proj."),
        (r"\.layer_norm([12])\.", r".ln_\1."),
        (r"\.mlp\.fc1\.", ".mlp.c_fc."),
        (r"\.mlp\.fc2\.", ".mlp.c_proj."),
    ]
    third = "qkv".index(stacked[1]) if stacked else None
    return Source(_renamed(name, rules), third, name == "visual_projection.weight")


def aesthetic_keys(name: str) -> Source:
    """Sources of `hi3d.diffusion.official.aesthetic.AestheticScorer`."""
    if name.startswith("image_encoder."):
        source = clip_keys(name.removeprefix("image_encoder."))
        return Source(f"aesthetic_model.{source.key}", source.third, source.transposed)
    return Source(name.replace("layers.", "aesthetic_mlp.layers.", 1))


def depth_keys(name: str) -> Source:
    """Sources of `DPTForDepthEstimation`, of MiDaS's DPT-Hybrid."""
    stacked = re.search(r"attention\.attention\.(query|key|value)\.", name)
    name = re.sub(
        r"^neck\.fusion_stage\.layers\.(\d)\.", lambda m: f"scratch.refinenet{4 - int(m[1])}.", name
    )
    name = re.sub(r"^neck\.convs\.(\d)\.", lambda m: f"scratch.layer{int(m[1]) + 1}_rn.", name)
    name = re.sub(
        r"^neck\.reassemble_stage\.(readout_projects|layers)\.(\d)\.",
        lambda m: f"pretrained.act_postprocess{int(m[2]) + 1}.{m[1]}.",
        name,
    )
    backbone = "pretrained.model.patch_embed.backbone"
    rules = [
        (r"\.readout_projects\.0\.", ".0.project.0."),
        (r"(postprocess\d)\.layers\.projection\.", r"\1.3."),
        (r"(postprocess\d)\.layers\.resize\.", r"\1.4."),
        (r"\.projection\.", ".out_conv.") if name.startswith("scratch") else (r"^$", ""),
        (r"\.residual_layer(\d)\.convolution(\d)\.", r".resConfUnit\1.conv\2."),
        (r"^head\.head\.", "scratch.output_conv."),
        (r"^dpt\.embeddings\.cls_token", "pretrained.model.cls_token"),
        (r"^dpt\.embeddings\.position_embeddings", "pretrained.model.pos_embed"),
        (r"^dpt\.embeddings\.projection\.", "pretrained.model.patch_embed.proj."),
        (r"^dpt\.embeddings\.backbone\.bit\.embedder\.convolution\.", f"{backbone}.stem.conv."),
        (r"^dpt\.embeddings\.backbone\.bit\.embedder\.norm\.", f"{backbone}.stem.norm."),
        (
            r"^dpt\.embeddings\.backbone\.bit\.encoder\.stages\.(\d+)\.layers\.",
            rf"{backbone}.stages.\1.blocks.",
        ),
        (r"^dpt\.encoder\.layer\.", "pretrained.model.blocks."),
        (r"^dpt\.layernorm\.", "pretrained.model.norm."),
        (r"\.attention\.attention\.(query|key|value)\.", ".attn.qkv."),
        (r"\.attention\.output\.dense\.", ".attn.proj."),
        (r"\.intermediate\.dense\.", ".mlp.fc1."),
        (r"\.output\.dense\.", ".mlp.fc2."),
        (r"\.layernorm_before\.", ".norm1."),
        (r"\.layernorm_after\.", ".norm2."),
    ]
    third = ["query", "key", "value"].index(stacked[1]) if stacked else None
    return Source(_renamed(name, rules), third)
