"""A PNG writer for renderings: one row filter and a fast DEFLATE (PNG specification, 3rd edition).

Pillow tries five filters on every row, which costs more than the compression. Renderings are smooth
or flat, where the difference to the pixel on the left is nearly always the best of the five.
"""

import struct
import zlib

import numpy as np

SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # channels -> PNG colour type
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
