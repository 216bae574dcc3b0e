"""Latents of true orbits, encoded once: the VAE sees all frames of an orbit in every step else."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from hi3d.diffusion.conditioning import encode_frames
from hi3d.errors import InputError
from hi3d.files import atomic_path, make_folder

ORBITS_PER_SHARD = 256
DTYPE = torch.float16
PARTS = ("mean", "std")
"""Of the VAE's posterior, each [V, C, h, w]."""


def cache_key(vae: nn.Module, resolution: int, num_views: int | None) -> str:
    """What cached latents depend on, in a few digits: the VAE's weights, size and views."""
    digest = hashlib.sha256(f"{resolution}/{num_views}".encode())
    for name, value in sorted(vae.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


class LatentCache:
    """Reads posteriors by the names of orbits; shards stay on the disk."""

    def __init__(self, folder: str | Path, key: str):
        """Args:
        folder: of shards, written by `write_latents`.
        key: of `cache_key`.

        Raises:
            InputError: there is no shard, one is damaged, or of another VAE, size or views.
        """
        self._shards: dict[str, Any] = {}
        for path in sorted(Path(folder).glob("latents-*.safetensors")):
            try:
                shard = safe_open(path, "pt")
            except (SafetensorError, OSError) as error:
                raise InputError(f"{path} is damaged: delete it and cache again") from error
            if (shard.metadata() or {}).get("key") != key:
                raise InputError(
                    f"{path} is of another VAE, resolution or number of views: cache the latents "
                    "again in another folder"
                )
            names = (name.removesuffix("/mean") for name in shard.keys())  # noqa: SIM118
            self._shards |= dict.fromkeys(names, shard)
        if not self._shards:
            raise InputError(f"no latents in {folder}: run scripts/cache_latents.py first")

    def __contains__(self, uid: str) -> bool:
        return uid in self._shards

    def posterior(self, uids: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation [B, V, C, h, w] of orbits in the cache, float32."""
        mean, std = (
            torch.stack([self._shards[uid].get_tensor(f"{uid}/{part}") for uid in uids]).float()
            for part in PARTS
        )
        return mean, std


def write_latents(
    vae: Any, batches: Iterable[dict[str, Any]], folder: Path, key: str, rank: int, chunk_size: int
) -> int:
    """Encode orbits and write them in shards.

    Args:
        vae: encoder.
        batches: with `rgb` [B, V, 3, H, W] in [0, 1] and `uid`.
        folder: of the shards.
        key: of `cache_key`.
        rank: of this process, part of the shards' names.
        chunk_size: frames encoded together.

    Returns:
        Orbits written.

    Raises:
        InputError: the folder cannot be written to.
    """
    make_folder(folder)
    waiting: dict[str, Tensor] = {}
    count = num_shards = 0

    def flush() -> None:
        nonlocal num_shards
        with atomic_path(folder / f"latents-{rank:04d}-{num_shards:05d}.safetensors") as partial:
            save_file(waiting, partial, metadata={"key": key})
        num_shards += 1
        waiting.clear()

    for batch in batches:
        with torch.no_grad():
            posterior = encode_frames(vae, batch["rgb"], chunk_size)
        for i, uid in enumerate(batch["uid"]):
            for part, value in zip(PARTS, posterior, strict=True):
                waiting[f"{uid}/{part}"] = value[i].to("cpu", DTYPE).contiguous()
            count += 1
        if len(waiting) >= len(PARTS) * ORBITS_PER_SHARD:
            flush()
    if waiting:
        flush()
    return count
