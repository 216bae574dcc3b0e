"""Orbits from WebDataset shards, and the decoding that folders of orbits share with them."""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hi3d.cameras import Cameras
from hi3d.errors import InputError
from hi3d.views import DEPTH_NEAR, DEPTH_RANGE


@dataclass(frozen=True)
class OrbitSample:
    """One orbit of one object."""

    uid: str
    """Name of the orbit."""
    rgb: Tensor  # [V, 3, H, W]
    """Colour in [0, 1], over white."""
    alpha: Tensor  # [V, 1, H, W]
    """Opacity in [0, 1]."""
    depth: Tensor | None  # [V, H, W]
    """Along the camera's z axis, 0 where there is no surface; None if not stored or wanted."""
    cameras: Cameras
    """V cameras; view 0 is the reference image."""
    elevation_deg: float
    """Of the orbit."""


def find_shards(shards: str | Path | Sequence[str | Path]) -> list[Path]:
    """The complete shards: of a folder, of a list, or one file. Hidden files are unfinished.

    Raises:
        InputError: there are none, or a file is missing.
    """
    if isinstance(shards, (str, Path)):
        folder = Path(shards)
        if folder.is_dir():
            found = [p for p in sorted(folder.glob("*.tar")) if not p.name.startswith(".")]
            if not found:
                raise InputError(f"{folder} holds no shard (*.tar): run scripts/render_orbits.py")
            return found
        shards = [folder]
    paths = [Path(path) for path in shards]
    for path in paths:
        if not path.is_file():
            raise InputError(f"no shard at {path}: run scripts/render_orbits.py")
    return paths


def read_orbits(
    shards: str | Path | Sequence[str | Path],
    shuffle_buffer: int = 0,
    seed: int = 0,
    load_depth: bool = True,
    split_by_node: bool = False,
) -> Any:
    """Stream orbits from shards, for collections too large for `hi3d.data.orbit_dataset`.

    Args:
        shards: a folder of shards, one shard, or a list of them.
        shuffle_buffer: orbits held back to be drawn from at random; 0 keeps the stored order.
            With a buffer the shards are shuffled too. The order changes with every epoch where the
            iterating process lives on: give the `DataLoader` `persistent_workers=True`.
        seed: of the shuffling.
        load_depth: decode the depth maps, where there are any.
        split_by_node: give each process of a distributed run its own shards.

    Returns:
        A `webdataset.WebDataset` (an `IterableDataset`) of `OrbitSample`; the workers of a
        `DataLoader` take different shards.

    Raises:
        InputError: there are no shards; while iterating: a view is missing or broken.
    """
    import webdataset

    paths = [str(path) for path in find_shards(shards)]
    dataset = webdataset.WebDataset(
        paths,
        shardshuffle=len(paths) if shuffle_buffer else False,
        detshuffle=True,
        nodesplitter=webdataset.split_by_node if split_by_node else webdataset.single_node_only,
        seed=seed,
        empty_check=False,  # more workers than shards is no mistake
    )
    if shuffle_buffer:
        dataset = dataset.compose(webdataset.detshuffle(shuffle_buffer, shuffle_buffer, seed=seed))
    return dataset.map(partial(_decode_sample, load_depth=load_depth))


def _decode_sample(sample: dict[str, Any], load_depth: bool) -> OrbitSample:
    uid, shard = sample["__key__"], sample["__url__"]
    if "json" not in sample:
        raise InputError(f"{shard}: {uid}.json is missing: render the shard again")
    content = parse_cameras(sample["json"], f"{shard}: {uid}.json")
    rgba, depth = [], []
    for i in range(len(content["frames"])):
        name = f"{i:03d}.png"
        if name not in sample:
            raise InputError(f"{shard}: {uid}.{name} is missing: render the shard again")
        rgba.append(decode_rgba(sample[name], f"{shard}: {uid}.{name}"))
        name = f"{i:03d}.depth.png"
        if load_depth and name in sample:
            depth.append(decode_depth(sample[name], f"{shard}: {uid}.{name}"))
    rgb, alpha = rgba_to_float(np.stack(rgba))
    return OrbitSample(
        uid=uid,
        rgb=rgb,
        alpha=alpha,
        depth=depth_to_float(np.stack(depth)) if len(depth) == len(rgba) else None,
        cameras=Cameras(
            torch.tensor([frame["viewmat"] for frame in content["frames"]]),
            torch.tensor([frame["K"] for frame in content["frames"]]),
            content["width"],
            content["height"],
        ),
        elevation_deg=stored_elevation_deg(content),
    )


def parse_cameras(data: bytes, name: str) -> dict[str, Any]:
    """The content of a `cameras.json`, with at least one frame.

    Args:
        data: the file.
        name: of the file, for the error.

    Raises:
        InputError: it is not such a file.
    """
    try:
        content = json.loads(data)
        for key in ("frames", "width", "height"):
            content[key]
        stored_elevation_deg(content)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise InputError(
            f"{name} is not a camera file ({error}): render the orbit again"
        ) from error
    return content


def stored_elevation_deg(content: dict[str, Any]) -> float:
    """Elevation of the orbit, in degrees: noted by the renderer, else that of view 0."""
    return float(content.get("elevation_deg", content["frames"][0]["elevation_deg"]))


def decode_rgba(data: bytes, name: str) -> np.ndarray:
    """Pixels of an 8-bit PNG, RGB over white. An image without alpha is opaque.

    Args:
        data: the file.
        name: of the file, for the error.

    Returns:
        [H, W, 4] uint8.

    Raises:
        InputError: the data are no image.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert("RGBA"))
    except (OSError, ValueError, SyntaxError) as error:  # Pillow: SyntaxError for broken PNG chunks
        raise InputError(f"cannot read image {name} ({error}): render the orbit again") from error


def decode_depth(data: bytes, name: str) -> np.ndarray:
    """Values of a 16-bit depth PNG (see `hi3d.views.save_depth`).

    Args:
        data: the file.
        name: of the file, for the error.

    Returns:
        [H, W] uint16; 0 and 65535 mean no surface.

    Raises:
        InputError: the data are no image.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image).astype(np.uint16)
    except (OSError, ValueError, SyntaxError) as error:
        raise InputError(f"cannot read image {name} ({error}): render the orbit again") from error


def rgba_to_float(pixels: np.ndarray) -> tuple[Tensor, Tensor]:
    """Split [V, H, W, 4] uint8 into rgb [V, 3, H, W] and alpha [V, 1, H, W], both in [0, 1]."""
    rgba = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    return rgba[:, :3].contiguous(), rgba[:, 3:].contiguous()


def depth_to_float(values: np.ndarray) -> Tensor:
    """Depth of 16-bit values of any shape; 0 where there is no surface (the ends of the range)."""
    stored = torch.from_numpy(values.astype(np.float32))
    surface = (stored > 0) & (stored < 65535)
    return torch.where(surface, stored / 65535 * DEPTH_RANGE + DEPTH_NEAR, torch.zeros(()))
