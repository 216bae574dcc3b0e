"""The PNG writer against Pillow's reader, for every kind of image it takes."""

import builtins
import io
import zlib

import numpy as np
import pytest
from PIL import Image

from hi3d.orbits.encoding import encode_png

SHAPES = {"L": (7, 5), "LA": (7, 5, 2), "RGB": (7, 5, 3), "RGBA": (7, 5, 4)}


def decode(data):
    image = Image.open(io.BytesIO(data))
    image.verify()  # checks the CRC of every chunk
    return Image.open(io.BytesIO(data))


@pytest.mark.parametrize("mode", SHAPES)
def test_eight_bits(mode):
    pixels = np.random.default_rng(0).integers(0, 256, SHAPES[mode], np.uint8)
    image = decode(encode_png(pixels))
    assert image.mode == mode
    assert np.array_equal(np.asarray(image), pixels)


def test_sixteen_bits_and_views_that_are_not_contiguous():
    values = np.random.default_rng(0).integers(0, 65536, (9, 6), np.uint16)[::2, ::3]
    image = decode(encode_png(values))
    assert image.mode == "I;16"
    assert np.array_equal(np.asarray(image), values)


def test_without_isal(monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 4), np.uint8)
    real = builtins.__import__

    def no_isal(name, *arguments, **keywords):
        if name.startswith("isal"):
            raise ImportError(name)
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", no_isal)
    assert np.array_equal(np.asarray(decode(encode_png(pixels))), pixels)


def test_bytes_by_hand(monkeypatch):
    # Row 0: filter 1 (Sub), 10, 20 - 10, 20 - 20; row 1: 1, 5, 250 - 5, (3 - 250) mod 256.
    data = encode_png(np.array([[10, 20, 20], [5, 250, 3]], np.uint8))
    start = data.index(b"IDAT") + 4
    packed = data[start : data.index(b"IEND") - 8]
    assert list(zlib.decompress(packed)) == [1, 10, 10, 0, 1, 5, 245, 9]


def test_what_is_no_image():
    for array in (np.zeros((2, 2), np.float32), np.zeros((2, 2, 5), np.uint8), np.zeros(4)):
        with pytest.raises(ValueError, match="pixels must be"):
            encode_png(array)
