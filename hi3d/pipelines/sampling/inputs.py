"""What users give a pipeline: photos in any form, one or many, and generators for them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hi3d.diffusion.edm import Generators
from hi3d.errors import InputError
from hi3d.photo.framing import ForegroundConfig, extract_foreground
from hi3d.views import ReferenceImage

Photo = ReferenceImage | str | Path | Image.Image | Tensor | np.ndarray[Any, Any]
"""A photo; a `ReferenceImage` is taken as it is, all others are cut out and framed."""
Photos = Photo | Sequence[Photo]
"""One, or several: a list, or a tensor or array of four dimensions."""
T = TypeVar("T")


def is_batch(given: Any) -> bool:
    """Whether several photos are given, so that a list is returned."""
    return isinstance(given, list | tuple) or (
        isinstance(given, Tensor | np.ndarray) and given.ndim == 4
    )


def reference_images(photos: Photos, side: int) -> list[ReferenceImage]:
    """Photos as reference images.

    Args:
        photos: file names, PIL images, tensors [3 or 4, H, W] in [0, 1], arrays [H, W, 3 or 4] of
            bytes or in [0, 1], or reference images.
        side: of the reference images in pixels, for all that is not one yet.

    Raises:
        InputError: there is none, or one is no image or cannot be cut out.
    """
    each: list[Photo] = list(photos) if is_batch(photos) else [photos]  # type: ignore[arg-type, list-item]
    if not each:
        raise InputError("no photo is given: give at least one")
    return [_reference_image(photo, side) for photo in each]


def _reference_image(photo: Photo, side: int) -> ReferenceImage:
    if isinstance(photo, ReferenceImage):
        return photo
    if isinstance(photo, Tensor) and photo.ndim:
        photo = np.moveaxis(photo.detach().float().cpu().numpy(), 0, -1)
    if isinstance(photo, np.ndarray):
        photo = _pil(photo)
    if not isinstance(photo, str | Path | Image.Image):
        raise InputError("a photo is a file name, a PIL image, a tensor or an array")
    return extract_foreground(photo, ForegroundConfig(resolution=side))


def _pil(pixels: np.ndarray[Any, Any]) -> Image.Image:
    if pixels.ndim != 3 or pixels.shape[2] not in (3, 4):
        raise InputError(
            f"an image of shape {pixels.shape}: give tensors [3 or 4, H, W] in [0, 1] or arrays "
            "[H, W, 3 or 4]"
        )
    if pixels.dtype != np.uint8:
        if not np.isfinite(pixels).all() or pixels.min() < 0 or pixels.max() > 1:
            raise InputError("pixels lie outside [0, 1]: give values in [0, 1], or bytes")
        pixels = (pixels * 255).round().astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(pixels))


def spread(name: str, given: T | Sequence[T], count: int) -> list[T]:
    """One value for each photo.

    Raises:
        InputError: a list of another length.
    """
    if not isinstance(given, list | tuple):
        return [given] * count  # type: ignore[list-item]
    if len(given) != count:
        raise InputError(f"{len(given)} of {name} for {count} photos: give one, or one for each")
    return list(given)


def generators_for(generator: Generators, count: int) -> list[torch.Generator] | None:
    """One generator for each orbit; of a single one for several orbits, its children.

    Raises:
        InputError: a list of another length.
    """
    if generator is None:
        return None
    if not isinstance(generator, torch.Generator):
        return spread("generator", list(generator), count)
    if count == 1:
        return [generator]
    seeds = torch.randint(2**63 - 1, (count,), generator=generator, device=generator.device)
    return [torch.Generator().manual_seed(seed) for seed in seeds.tolist()]
