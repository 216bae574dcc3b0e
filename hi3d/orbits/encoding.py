"""Images of an orbit: to and from the bytes of files, over white and back, and resized.

Pillow tries five PNG filters on every row, which costs more than the compression. Renderings are
smooth or flat, where the difference to the pixel on the left is nearly always the best of the five,
so `encode_png` writes one row filter and a fast DEFLATE (PNG specification, 3rd edition).
"""

import io
import struct
import zlib
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from hi3d.orbits.broken_orbits import UNREADABLE_IMAGE, WRONG_SIZE, BrokenOrbitError
from hi3d.views import depth_levels

IMAGE_SUFFIXES = ("png", "webp")
DECODING_ERRORS = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
"""What Pillow raises for broken images; SyntaxError for broken PNG chunks."""
WEBP_OPTIONS = {"lossless": True, "method": 1, "quality": 20, "exact": True}
"""Half the size of a PNG and 40 times the time; more effort takes 2.4 times as long for 16 %."""
SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # channels -> PNG color type
SUB = 1  # row filter: difference to the pixel on the left
ISAL_LEVEL = 1


def encode_png(pixels: np.ndarray) -> bytes:
    """Encode an image losslessly.

    Args:
        pixels: [H, W] or [H, W, C] with 1 to 4 channels, uint8 or uint16.

    Returns:
        The file. Its bytes depend on the pixels and on the DEFLATE library alone.

    Raises:
        ValueError: the array is no such image.
    """
    channels = 1 if pixels.ndim == 2 else pixels.shape[-1]
    if pixels.ndim not in (2, 3) or channels not in COLOR_TYPES or not pixels.size:
        raise ValueError(f"pixels must be [H, W] or [H, W, 1 to 4], got {pixels.shape}")
    if pixels.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"pixels must be uint8 or uint16, got {pixels.dtype}")
    height, width = pixels.shape[:2]
    depth = 8 * pixels.dtype.itemsize
    header = struct.pack(">IIBBBBB", width, height, depth, COLOR_TYPES[channels], 0, 0, 0)
    data = _deflate(_filtered(pixels, channels).data)
    return SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _filtered(pixels: np.ndarray, channels: int) -> np.ndarray:
    """Rows of bytes, each led by its filter type. [H, 1 + W * bytes per pixel]"""
    big_endian = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder(">"))
    rows = big_endian.view(np.uint8).reshape(len(pixels), -1)
    step = channels * pixels.dtype.itemsize
    filtered = np.empty((len(rows), 1 + rows.shape[1]), np.uint8)
    filtered[:, 0] = SUB
    filtered[:, 1 : 1 + step] = rows[:, :step]
    np.subtract(rows[:, step:], rows[:, :-step], out=filtered[:, 1 + step :])
    return filtered


def _deflate(data: memoryview) -> bytes:
    try:
        from isal import isal_zlib
    except ImportError:  # five times slower; runs are all that the Sub filter leaves to find
        packer = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, 9, zlib.Z_RLE)
        return packer.compress(data) + packer.flush()
    return isal_zlib.compress(data, ISAL_LEVEL)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def encode_webp(pixels: np.ndarray) -> bytes:
    """Encode [H, W, 4] uint8 losslessly."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", **WEBP_OPTIONS)
    return buffer.getvalue()


def decode_image(
    data: bytes, kind: Literal["RGBA", "RGB", "depth"], size: tuple[int, int], label: str
) -> np.ndarray:
    """One image, as [H, W, 4] or [H, W, 3] uint8, or [H, W] uint16 depth.

    Args:
        data: content of the file.
        kind: what it shows.
        size: height and width that it must have.
        label: how errors name the file.

    Raises:
        BrokenOrbitError: it is unreadable or of another size.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.size[::-1] != size:
                raise BrokenOrbitError(
                    WRONG_SIZE,
                    f"{label} is {image.width}x{image.height} pixels and its cameras "
                    f"{size[1]}x{size[0]}: render the orbit again",
                )
            if kind == "depth":
                return depth_levels(image)
            return np.asarray(image if image.mode == kind else image.convert(kind))
    except BrokenOrbitError:
        raise
    except DECODING_ERRORS as error:
        raise BrokenOrbitError(
            UNREADABLE_IMAGE, f"cannot read image {label} ({error}): render the orbit again"
        ) from error


def over_white(pixels: np.ndarray) -> np.ndarray:
    """Composite [H, W, 4] uint8 with straight alpha over white; alpha stays. [H, W, 4] uint8"""
    alpha = pixels[..., 3:].astype(np.uint16)
    rgb = (pixels[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255
    return np.concatenate([rgb.astype(np.uint8), pixels[..., 3:]], axis=2)


def without_white(image: np.ndarray) -> np.ndarray:
    """[H, W, 4] uint8 over white to straight alpha; the color of empty pixels is white."""
    alpha = image[..., 3:].astype(np.float32) / 255
    rgb = (image[..., :3] - 255 * (1 - alpha)) / np.maximum(alpha, 1 / 255)
    rgb = np.where(alpha > 0, rgb, 255).round().clip(0, 255).astype(np.uint8)
    return np.concatenate([rgb, image[..., 3:]], axis=-1)


def resize_rgba(pixels: np.ndarray, resolution: int | None) -> np.ndarray:
    """Resize [H, W, C] uint8, C = 3 or 4 (RGB over white), to [resolution, resolution, C] uint8.

    Pixel areas are averaged where the size shrinks by a whole factor, otherwise the filter is
    bicubic, widened for antialiasing. RGB over white is linear in coverage, so edges stay right.
    """
    height, width, channels = pixels.shape
    if resolution is None or (height, width) == (resolution, resolution):
        return pixels
    # Pillow would weigh RGBA by alpha; CMYK is its name for four channels without a meaning.
    mode = "CMYK" if channels == 4 else "RGB"
    image = Image.frombuffer(mode, (width, height), np.ascontiguousarray(pixels), "raw", mode, 0, 1)
    if height % resolution == 0 and width % resolution == 0:
        return np.asarray(image.reduce((width // resolution, height // resolution)))
    return np.asarray(image.resize((resolution, resolution), Image.Resampling.BICUBIC))


def resize_depth(values: np.ndarray, resolution: int | None) -> np.ndarray:
    """Resize [H, W] uint16 depth values to [resolution, resolution] uint16.

    A pixel is the mean of the surface within its area, 0 (no surface) where less than half of it
    is covered; where the size grows, pixels are repeated.
    """
    height, width = values.shape
    if resolution is None or (height, width) == (resolution, resolution):
        return values
    stored = torch.from_numpy(values.astype(np.float32))[None, None]
    size = (resolution, resolution)
    if resolution > min(height, width):
        resized = functional.interpolate(stored, size=size, mode="nearest-exact")
        return resized[0, 0].numpy().astype(np.uint16)
    surface = ((stored > 0) & (stored < 65535)).float()
    coverage: Tensor = functional.interpolate(surface, size=size, mode="area")
    total = functional.interpolate(stored * surface, size=size, mode="area")
    resized = torch.where(coverage >= 0.5, total / coverage.clamp_min(1e-6), torch.zeros(()))
    return resized[0, 0].round().numpy().astype(np.uint16)
