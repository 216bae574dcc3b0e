"""Stage 1's own outputs, sampled once: stage 2 is trained on them too (paper, Section 4.3)."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hi3d.diffusion.base_orbit import BaseOrbit
from hi3d.diffusion.conditioning import decode_orbit
from hi3d.diffusion.edm import Generators, karras_sigmas
from hi3d.diffusion.guidance import guidance_scales
from hi3d.diffusion.sampling import sample_orbit_latents
from hi3d.diffusion.stage1_condition import stage1_condition
from hi3d.errors import InputError
from hi3d.files import atomic_path, make_folder
from hi3d.training.experiment import Stage2Experiment

ORBITS_PER_SHARD = 16
"""As many as a killed run loses at most."""


def sample_stage1(
    networks: dict[str, Any],
    reference: Tensor,  # [B, 3, H, W]
    elevation_deg: Tensor,  # [B]
    num_frames: int,
    experiment: Stage2Experiment,
    generators: Generators,
    base: BaseOrbit | None = None,
) -> Tensor:
    """Run stage 1 as at inference.

    Args:
        networks: `vae`, `image_encoder` and stage 1's `unet`.
        reference: [B, 3, H, W] in [0, 1], at stage 1's resolution.
        elevation_deg: [B].
        num_frames: T.
        experiment: steps, noise levels and guidance.
        generators: of the noise, on the CPU.
        base: of B orbits; None for the paper's model.

    Returns:
        [B, T, 3, H, W] in [0, 1].
    """
    strength = experiment.noise_aug_inference
    condition = stage1_condition(
        networks["vae"],
        networks["image_encoder"],
        reference,
        elevation_deg,
        torch.full((len(reference),), strength, device=reference.device),
        num_frames,
        None if base is None else base.rgb,
        generators,
    )
    sigmas = karras_sigmas(experiment.stage1_steps, sigma_max=experiment.stage1_sigma_max)
    scales = guidance_scales(experiment.stage1_guidance, num_frames)
    latents = sample_orbit_latents(networks["unet"], condition, sigmas, scales, generators)
    frames = decode_orbit(networks["vae"], latents, condition.base, experiment.frames_per_pass)
    return frames if base is None else base.within(frames)


def settings_of(experiment: Stage2Experiment) -> str:
    """What sampled orbits depend on, as JSON."""
    guidance = experiment.stage1_guidance
    return json.dumps(
        {
            "stage1": experiment.stage1,
            "resolution": experiment.stage1_resolution,
            "num_views": experiment.data.num_views,
            "steps": experiment.stage1_steps,
            "sigma_max": experiment.stage1_sigma_max,
            "noise_aug": experiment.noise_aug_inference,
            "decode_chunk_size": experiment.frames_per_pass,
            "guidance": [guidance.schedule, guidance.min_scale, guidance.max_scale],
            "seed": experiment.seed,
        }
    )


class Stage1Orbits:
    """Reads sampled orbits by the names of the true ones."""

    def __init__(self, folder: str | Path, settings: str | None = None):
        """Args:
        folder: of shards, written by `OrbitWriter`; none are needed with `settings`.
        settings: of `settings_of`, that the shards must have; None takes any.

        Raises:
            InputError: there is no shard, one is damaged, or sampled with other settings.
        """
        self._shards: dict[str, Any] = {}
        for path in sorted(Path(folder).glob("orbits-*.safetensors")):
            try:
                shard = safe_open(path, "pt")
            except (SafetensorError, OSError) as error:
                raise InputError(f"{path} is damaged: delete it and sample again") from error
            found = (shard.metadata() or {}).get("settings")
            if settings is not None and found != settings:
                raise InputError(
                    f"{path} was sampled with other settings ({found}): choose another folder"
                )
            self._shards |= dict.fromkeys(shard.keys(), shard)
        if not self._shards and settings is None:
            raise InputError(
                f"no stage-1 orbits in {folder}: run scripts/cache_latents.py --stage1-orbits "
                "first, or set stage1_orbits=null"
            )

    def __contains__(self, uid: str) -> bool:
        return uid in self._shards

    def orbits(self, uids: Sequence[str], resolution: int) -> Tensor:
        """Orbits brought to this resolution. [B, T, 3, R, R] in [0, 1]"""
        return torch.stack([resized(self._decoded(uid), resolution) for uid in uids])

    def _decoded(self, uid: str) -> Tensor:
        stored = self._shards[uid].get_tensor(uid)
        pixels = np.asarray(Image.open(io.BytesIO(stored.numpy().tobytes())))
        side = pixels.shape[1]  # the views are below one another
        frames = torch.from_numpy(pixels.copy()).reshape(-1, side, side, 3)
        return frames.permute(0, 3, 1, 2).float() / 255


def resized(frames: Tensor, resolution: int) -> Tensor:
    """Stage 1's frames [..., 3, H, W] as stage 2 gets them, [..., 3, resolution, resolution]."""
    flat = frames.reshape(-1, *frames.shape[-3:])
    large = F.interpolate(flat, (resolution, resolution), mode="bicubic").clamp(0, 1)
    return large.reshape(*frames.shape[:-2], resolution, resolution)


def encoded(frames: Tensor) -> Tensor:
    """Frames [T, 3, H, W] in [0, 1] as the bytes of one PNG, below one another. [N] uint8"""
    pixels = (frames.clamp(0, 1) * 255).round().to("cpu", torch.uint8)
    sheet = pixels.permute(0, 2, 3, 1).flatten(0, 1).numpy()
    stream = io.BytesIO()
    Image.fromarray(sheet).save(stream, "png", compress_level=1)
    return torch.frombuffer(bytearray(stream.getvalue()), dtype=torch.uint8)


class OrbitWriter:
    """Writes sampled orbits in shards, each a whole file or none."""

    def __init__(self, folder: Path, settings: str, rank: int):
        """Args:
        folder: of the shards; those of an earlier run stay.
        settings: of `settings_of`.
        rank: of this process, part of the shards' names.

        Raises:
            InputError: the folder cannot be written to, or holds orbits of other settings.
        """
        make_folder(folder)
        self.known = Stage1Orbits(folder, settings)
        self._folder, self._settings, self._rank = folder, settings, rank
        self._waiting: dict[str, Tensor] = {}

    def add(self, uid: str, frames: Tensor) -> None:
        """One orbit [T, 3, H, W] in [0, 1]."""
        self._waiting[uid] = encoded(frames)
        if len(self._waiting) >= ORBITS_PER_SHARD:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        if not self._waiting:
            return
        taken = {path.name for path in self._folder.glob("orbits-*.safetensors")}
        names = (f"orbits-{self._rank:04d}-{i:05d}.safetensors" for i in range(len(taken) + 1))
        name = next(name for name in names if name not in taken)
        with atomic_path(self._folder / name) as partial:
            save_file(self._waiting, partial, metadata={"settings": self._settings})
        self._waiting = {}
