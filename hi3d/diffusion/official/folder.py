"""Writing a released checkpoint as a model folder."""

import os
import shutil
from pathlib import Path
from typing import Any

from torch import Tensor

from hi3d.diffusion.folders.model_card import converted_card, write_model_card
from hi3d.diffusion.official.checkpoint import (
    CONDITION_VAE,
    VAE,
    Checkpoint,
    Part,
    check_weights,
    official_parts,
    part_state,
    read_checkpoint,
)
from hi3d.diffusion.weights import hide_libraries_bars, svd_scheduler, write_model_index
from hi3d.errors import InputError
from hi3d.files import make_folder, refused_writes
from hi3d.progress import console, track

SHARD_SIZE = "1GB"
"""Weights are written in files of this size, one after the other."""
PIPELINES: dict[str, tuple[tuple[str, str], dict[str, Any]]] = {
    "official-stage1": (
        ("hi3d.pipelines.official", "OfficialOrbitPipeline"),
        {"conditioning": "official", "resolution": 512},
    ),
    "official-stage2": (
        ("hi3d.pipelines.official", "OfficialRefinerPipeline"),
        {"conditioning": "official", "resolution": 1024},
    ),
    "svd": (("diffusers", "StableVideoDiffusionPipeline"), {}),
}
"""Pipeline of each kind of checkpoint, and its settings."""


def convert_checkpoint(
    source: str, path: str | Path, output: str | Path, head_channels: int = 64
) -> None:
    """Write a model folder from a released checkpoint; it appears complete or not at all.

    Args:
        source: one of `PIPELINES`.
        path: file, or folder that holds one.
        output: folder, not there or empty.
        head_channels: width of an attention head of the UNet.

    Raises:
        InputError: the output is not empty, or the checkpoint is not what `source` says.
    """
    output = Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"{output} exists and is not empty: choose another --output")
    hide_libraries_bars()
    checkpoint = with_condition_encoder(read_checkpoint(path))
    parts = official_parts(checkpoint, source, head_channels)
    check_weights(checkpoint, parts)
    partial = make_folder(output.parent) / f".{output.name}.{os.getpid()}.part"
    try:
        with refused_writes(output):
            for part in track(parts, "converting"):
                write_part(partial, checkpoint, part)
            scheduler = svd_scheduler()
            scheduler.save_pretrained(partial / "scheduler")
            networks = {part.name: part.network for part in parts} | {"scheduler": scheduler}
            pipeline, settings = PIPELINES[source]
            write_model_index(partial, networks, pipeline, **settings)
            write_model_card(partial, converted_card(source, Path(path).name))
            os.replace(partial, output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    console.print(f"model folder: {output}", markup=False)


def with_condition_encoder(checkpoint: dict[str, Tensor]) -> dict[str, Tensor]:
    """SVD's file: the encoder that was kept with its quantization layer is the autoencoder's.

    SVD's first stage has no such layer, and diffusers' class has one; the encoder of the
    condition has both.
    """
    if (
        f"{VAE}quant_conv.weight" in checkpoint
        or f"{CONDITION_VAE}quant_conv.weight" not in checkpoint
    ):
        return checkpoint
    encoder = {
        VAE + key.removeprefix(CONDITION_VAE): value
        for key, value in checkpoint.items()
        if key.startswith((f"{CONDITION_VAE}encoder.", f"{CONDITION_VAE}quant_conv."))
    }
    return checkpoint | encoder


def write_part(folder: Path, checkpoint: Checkpoint, part: Part) -> None:
    """Write one network; its weights stay on the disk until their shard is written."""
    part.network.load_state_dict(part_state(checkpoint, part), assign=True)
    part.network.save_pretrained(folder / part.name, max_shard_size=SHARD_SIZE)  # type: ignore[operator]
    part.network.to("meta")
