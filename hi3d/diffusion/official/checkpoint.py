"""Released checkpoints (Hi3D's two stages, SVD's single file) as model folders."""

import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLTemporalDecoder,
    UNetSpatioTemporalConditionModel,
)
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection, DPTForDepthEstimation

from hi3d.diffusion.official.aesthetic import AestheticScorer
from hi3d.diffusion.official.keys import (
    KeyMap,
    aesthetic_keys,
    clip_keys,
    depth_keys,
    unet_keys,
    vae_keys,
)
from hi3d.diffusion.official.sizes import (
    aesthetic_config,
    clip_config,
    depth_config,
    unet_config,
    vae_config,
)
from hi3d.diffusion.official.unet import OfficialUNet
from hi3d.errors import InputError

Checkpoint = Mapping[str, Tensor]
"""Weights by the file's names, without the prefix that a training framework put before them."""

UNET = "model.diffusion_model."
VAE = "first_stage_model."
CONDITION_VAE = "conditioner.embedders.3.encoder."
CLIP = "conditioner.embedders.0.open_clip.model."
AESTHETIC = "conditioner.embedders.1."
DEPTH = "conditioner.embedders.2.model.model."
UNUSED = re.compile(
    r"conditioner\.embedders\.3\.encoder\.|"  # the VAE a second time
    r"conditioner\.embedders\.[01]\.(open_clip\.model|aesthetic_model)\.(positional_embedding|"
    r"text_projection|logit_scale|token_embedding\.|ln_final\.|attn_mask)|"  # CLIP's text half
    r"conditioner\.embedders\.2\.model\.model\.pretrained\.model\.head\.|"  # ImageNet's classifier
    r"model_ema\.|denoiser\.sigmas"
)
"""Weights in the released files that no network of ours needs."""
NAMED = 5
"""How many weights of a kind an error names."""


@dataclass(frozen=True)
class Part:
    """One network of a checkpoint."""

    name: str
    """Of its folder."""
    prefix: str
    """Of its weights."""
    network: nn.Module
    """On the meta device: its size, without weights."""
    keys: KeyMap


def checkpoint_file(path: str | Path) -> Path:
    """The one file of weights in a folder, or the file itself.

    Raises:
        InputError: there is none, or more than one.
    """
    path = Path(path)
    if path.is_file():
        return path
    suffixes = {".safetensors", ".pt", ".ckpt", ".pth", ".bin"}
    found = sorted(file for file in path.rglob("*") if file.suffix in suffixes)
    found = [file for file in found if "model_states" in file.name] or found
    if len(found) != 1:
        raise InputError(f"{path} holds {len(found)} checkpoint files: give one file as --input")
    return found[0]


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """The weights of a file, mapped from the disk and read where they are used.

    Args:
        path: `.safetensors`, or torch's format with the weights at the top, in `state_dict` or in
            DeepSpeed's `module`, with any prefix.

    Raises:
        InputError: no such file, truncated, not weights alone, or without a UNet.
    """
    path = checkpoint_file(path)
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        else:
            state = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except (OSError, RuntimeError, SafetensorError, pickle.UnpicklingError, EOFError) as error:
        cause = " ".join(str(error).split())[:200]
        raise InputError(f"cannot read {path}: truncated or foreign, get it again ({cause})") from (
            error
        )
    for name in ("module", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(name), dict):
            state = state[name]
    tensors = {str(k): v for k, v in dict(state).items() if isinstance(v, Tensor)}
    begin = [key.index(UNET) for key in tensors if UNET in key]
    if not begin:
        raise InputError(f"{path} holds no {UNET}*: give a checkpoint of Hi3D or SVD")
    prefix = next(key[: key.index(UNET)] for key in tensors if UNET in key)
    return {key.removeprefix(prefix): value for key, value in tensors.items()}


def official_parts(checkpoint: Checkpoint, source: str, head_channels: int = 64) -> list[Part]:
    """The networks of a checkpoint, at the sizes that its weights have.

    Args:
        checkpoint: from `read_checkpoint`.
        source: official-stage1, official-stage2 or svd.
        head_channels: width of an attention head of the UNet, which no shape tells.

    Raises:
        InputError: a weight that tells a size is missing.
    """
    shapes = {key: tuple(value.shape) for key, value in checkpoint.items()}
    svd, num_ids = source == "svd", 2 if source == "official-stage2" else 3

    def below(prefix: str) -> dict[str, tuple[int, ...]]:
        return {k.removeprefix(prefix): s for k, s in shapes.items() if k.startswith(prefix)}

    try:
        with torch.device("meta"):
            unet_settings = unet_config(below(UNET), num_ids, head_channels)
            vae_settings = vae_config(below(VAE))
            levels = len(unet_settings["block_out_channels"])
            unet = (UNetSpatioTemporalConditionModel if svd else OfficialUNet)(**unet_settings)
            vae = vae_network(vae_settings, temporal=svd)
            image_encoder = CLIPVisionModelWithProjection(
                CLIPVisionConfig(**clip_config(below(CLIP), 80, "gelu"))
            )
            parts = [
                Part("unet", UNET, unet, unet_keys(unet_settings["layers_per_block"], levels)),
                Part("vae", VAE, vae, vae_keys(len(vae_settings["block_out_channels"]))),
                Part("image_encoder", CLIP, image_encoder, clip_keys),
            ]
            if source == "official-stage1":
                scorer = AestheticScorer(**aesthetic_config(below(AESTHETIC)))
                parts.append(Part("aesthetic_scorer", AESTHETIC, scorer, aesthetic_keys))
            if source == "official-stage2":
                depth = DPTForDepthEstimation(depth_config(below(DEPTH)))
                parts.append(Part("depth_estimator", DEPTH, depth, depth_keys))
    except KeyError as error:
        raise InputError(
            f"the checkpoint has no weight {error}: is --source {source} what the file is?"
        ) from error
    return parts


def vae_network(settings: dict[str, Any], temporal: bool) -> nn.Module:
    """The image decoder's autoencoder, or the one whose decoder is temporal."""
    if temporal:
        names = ("down_block_types", "block_out_channels", "layers_per_block", "latent_channels")
        return AutoencoderKLTemporalDecoder(**{name: settings[name] for name in names})
    return AutoencoderKL(**settings)


def part_state(checkpoint: Checkpoint, part: Part) -> dict[str, Tensor]:
    """The weights of one part by our names."""
    state = {}
    for name, parameter in part.network.state_dict().items():
        source = part.keys(name)
        value = source.take(checkpoint[part.prefix + source.key])
        state[name] = value.reshape(parameter.shape)
    return state


def check_weights(checkpoint: Checkpoint, parts: list[Part]) -> None:
    """Compare the names and shapes of a checkpoint with those of its networks.

    Raises:
        InputError: names the weights that are missing, misshapen or not expected.
    """
    used, missing, misshapen = set(), [], []
    for part in parts:
        for name, parameter in part.network.state_dict().items():
            source = part.keys(name)
            key = part.prefix + source.key
            used.add(key)
            if key not in checkpoint:
                missing.append(key)
                continue
            found = source.shape(tuple(checkpoint[key].shape))
            # Attention of the VAE: 1 x 1 convolutions there, matrices here.
            if _squeezed(found) != _squeezed(tuple(parameter.shape)):
                misshapen.append(f"{key} {found}, expected {tuple(parameter.shape)}")
    unexpected = [key for key in checkpoint if key not in used and not UNUSED.match(key)]
    problems = {"missing": missing, "misshapen": misshapen, "unexpected": unexpected}
    if any(problems.values()):
        raise InputError(
            "the checkpoint does not fit: "
            + "; ".join(_listed(kind, names) for kind, names in problems.items() if names)
        )


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(side for side in shape if side != 1)


def _listed(kind: str, names: list[str]) -> str:
    names = sorted(set(names))
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{len(names)} {kind} ({', '.join(names[:NAMED])}{more})"
