"""From a photo to the reference image: read, cut out, and frame as training renders are framed."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from hi3d.config import check_number, check_path
from hi3d.errors import InputError
from hi3d.files import regular_file
from hi3d.photo.cutout import is_cutout, kept_objects, scale_to_opaque, without_specks
from hi3d.photo.formats import enable_heic, is_heic, to_srgb
from hi3d.photo.matting import (
    default_weights_path,
    estimate_foreground,
    key_white_background,
    predict_matte,
)
from hi3d.views import ReferenceImage

MIN_SIDE = 32
MAX_MEGAPIXELS = 100
WORKING_SIDE = 1536
"""Larger photos are reduced to this longest side before matting."""
MIN_OBJECT_SHARE = 5e-4
"""Below this share of the photo there is no object."""
# Mean of (longer side of the bounding box of alpha > 0.5) / (image side) over 1,600 orbit renders
# of 100 validation objects at random elevations in [-10, 40] deg: 0.787, standard deviation 0.121.
OBJECT_FRACTION = 0.79


@dataclass
class ForegroundConfig:
    """How the object is cut out of a photo and framed."""

    resolution: int = 512
    """Side of the reference image in pixels, 8 to 4096."""
    object_fraction: float = OBJECT_FRACTION
    """Longer side of the object's bounding box over the image side, 0.05 to 1."""
    matting: Literal["auto", "u2netp", "alpha", "white"] = "auto"
    """`alpha`: the photo's transparency; `white`: key out a white background; `u2netp`: the matting
    network; `auto`: `alpha` where the photo has transparency, else `u2netp`."""
    weights: str | None = None
    """Path of u2netp.onnx; None: data/weights/u2netp.onnx of the project."""
    keep: Literal["all", "largest"] = "all"
    """Of several objects in a photo: all of them, or the largest alone."""
    second_look: bool = True
    """Matte again on a crop around the first matte, which sharpens small objects."""

    def __post_init__(self) -> None:
        check_number("foreground.resolution", self.resolution, 8, 4096)
        check_number("foreground.object_fraction", self.object_fraction, 0.05, 1)
        if self.weights is not None:
            check_path("foreground.weights", self.weights)

    @property
    def weights_path(self) -> Path:
        """Of the matting network."""
        return Path(self.weights) if self.weights else default_weights_path()


def extract_foreground(
    photo: str | Path | Image.Image, config: ForegroundConfig | None = None
) -> ReferenceImage:
    """Cut the object out of a photo, put it on white and frame it.

    Args:
        photo: path of an image file, or a PIL image.
        config: None means the defaults.

    Returns:
        A square image of side `config.resolution`; the object's bounding box is centered and its
        longer side is `config.object_fraction` of the image side.

    Raises:
        InputError: the photo cannot be read or is too small or too large, it holds no object, or
            the matting weights are missing or broken.
    """
    config = config or ForegroundConfig()
    name = "the image" if isinstance(photo, Image.Image) else str(photo)
    rgb, alpha = load_photo(photo)
    scaled = scale_to_opaque(alpha, MIN_OBJECT_SHARE)
    if scaled is None:
        raise InputError(f"{name} is fully transparent: give a photo that shows an object")
    has_transparency = is_cutout(scaled)
    if config.matting == "alpha" and not has_transparency:
        raise InputError(f"{name} has no transparent background: use matting=auto")
    if config.matting == "alpha" or (config.matting == "auto" and has_transparency):
        # Some exporters write color noise under zero alpha: it must not reach the edge.
        return frame_object(rgb, kept_objects(without_specks(scaled), config.keep, name), config)
    rgb = rgb * alpha + (1 - alpha)
    if float((rgb.amax(dim=(1, 2)) - rgb.amin(dim=(1, 2))).max()) < 0.02:
        raise InputError(f"{name} is one uniform color: give a photo that shows an object")
    if config.matting == "white":
        alpha = key_white_background(rgb)
    else:
        alpha = predict_matte(rgb, config.weights_path, config.second_look)
    covered = float((alpha > 0.5).float().mean())
    if covered < MIN_OBJECT_SHARE or covered > 0.995:
        raise InputError(
            f"no object stands out from the background of {name}: give a photo of one object, or a "
            "PNG with a transparent background"
        )
    alpha = kept_objects(alpha, config.keep, name)
    return frame_object(estimate_foreground(rgb, alpha), alpha, config)


def load_photo(photo: str | Path | Image.Image) -> tuple[Tensor, Tensor]:
    """Read a photo upright, at most `WORKING_SIDE` pixels long.

    EXIF orientation, palettes, gray, CMYK and 16-bit images are converted; of an animation the
    first frame is read. The size is checked before any pixel is decoded.

    Returns:
        rgb [3, H, W] and alpha [1, H, W] in [0, 1], not premultiplied; alpha is 1 without an alpha
        channel.

    Raises:
        InputError: the file is missing or no image, or its size is out of range.
    """
    if isinstance(photo, Image.Image):
        return _decode(photo, "the image")
    path = Path(photo)
    check_path("the photo", path)
    if not regular_file(path).is_file():
        raise InputError(f"no photo at {path}: check the path")
    if is_heic(path):
        enable_heic(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return _decode(image, str(path))
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise _too_large(str(path)) from error
    except UnidentifiedImageError as error:
        raise InputError(
            f"{path} is not a readable image: give a PNG, JPEG or WebP file"
        ) from error
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise InputError(
            f"{path} is not a readable image ({_first_line(error)}): give a PNG, JPEG or WebP file"
        ) from error


def frame_object(
    rgb: Tensor,  # [3, H, W] [0,1]
    alpha: Tensor,  # [1, H, W] [0,1]
    config: ForegroundConfig,
) -> ReferenceImage:
    """Center the object's bounding box in a white square and scale it to `object_fraction`.

    Args:
        rgb: [3, H, W] in [0, 1], the object's own color, not premultiplied.
        alpha: [1, H, W] in [0, 1], somewhere above 0.5.
        config: resolution and fraction.
    """
    rows = (alpha[0] > 0.5).any(dim=1).nonzero()[:, 0]
    columns = (alpha[0] > 0.5).any(dim=0).nonzero()[:, 0]
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    left, right = int(columns[0]), int(columns[-1]) + 1
    side = max(bottom - top, right - left) / config.object_fraction
    x0, y0 = (left + right - side) / 2, (top + bottom - side) / 2
    margin = int(
        np.ceil(max(0.0, -x0, -y0, x0 + side - alpha.shape[2], y0 + side - alpha.shape[1]))
    )
    box = (x0 + margin, y0 + margin, x0 + margin + side, y0 + margin + side)
    # Premultiplied, so that the color of transparent pixels does not bleed into the edge.
    planes = torch.cat([rgb * alpha, alpha])
    planes = torch.nn.functional.pad(planes, (margin,) * 4)
    size = (config.resolution, config.resolution)
    resized = [
        np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.LANCZOS, box=box))
        for plane in planes.numpy()
    ]
    framed = torch.from_numpy(np.stack(resized)).clamp(0, 1)
    framed_alpha = framed[3:]
    premultiplied = torch.minimum(framed[:3], framed_alpha)
    return ReferenceImage((premultiplied + 1 - framed_alpha).clamp(0, 1), framed_alpha)


def _decode(image: Image.Image, name: str) -> tuple[Tensor, Tensor]:
    width, height = image.size
    if min(width, height) < MIN_SIDE:
        raise InputError(
            f"{name} is {width}x{height} pixels: give a photo of at least {MIN_SIDE}x{MIN_SIDE}"
        )
    if width * height > MAX_MEGAPIXELS * 1e6:
        raise _too_large(name, f"{width}x{height} pixels")
    image.draft("RGB", (WORKING_SIDE, WORKING_SIDE))  # JPEG decodes at a fraction of its size
    image = to_srgb(ImageOps.exif_transpose(image))
    if image.mode.startswith("I") or image.mode == "F":
        levels = np.asarray(image, dtype=np.float32)
        top = 65535.0 if image.mode.startswith("I") else max(1.0, float(levels.max()))
        # Pillow keeps 16-bit pixels in gray images only; 8 bits are what the networks see anyway.
        image = Image.fromarray((levels / top * 255).round().clip(0, 255).astype(np.uint8))
    if image.mode not in ("RGB", "RGBA"):
        has_alpha = "A" in image.mode or "a" in image.mode or "transparency" in image.info
        image = image.convert("RGBA" if has_alpha else "RGB")
    elif "transparency" in image.info:
        image = image.convert("RGBA")
    if max(image.size) > WORKING_SIDE:
        scale = WORKING_SIDE / max(image.size)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    rgba = torch.from_numpy(np.asarray(image.convert("RGBA")).astype(np.float32) / 255)
    rgba = rgba.permute(2, 0, 1).contiguous()
    return rgba[:3], rgba[3:]


def _too_large(name: str, size: str = "too large") -> InputError:
    return InputError(
        f"{name} is {size}, more than {MAX_MEGAPIXELS} megapixels: reduce it before use"
    )


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
