"""JPEG against Pillow, which compresses with libjpeg."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from hi3d.degradation.jpeg import dct_matrix, jpeg_compress, quantisation_tables


def natural_image(height: int, width: int, seed: int) -> np.ndarray:
    """Colours with the 1/f spectrum of photographs, with two sharp-edged discs, over white."""
    random = np.random.default_rng(seed)
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None]
    amplitude = 1 / np.maximum(np.hypot(fy, fx), 1 / max(height, width))
    layers = []
    for _ in range(3):
        phase = np.exp(2j * np.pi * random.random((height, width)))
        layer = np.fft.ifft2(amplitude * phase).real
        layers.append(128 + 45 * layer / layer.std())
    grey, *chroma = layers
    pixels = np.stack([grey, 0.8 * grey + 0.2 * chroma[0], 0.8 * grey + 0.2 * chroma[1]], axis=-1)
    y, x = np.mgrid[:height, :width]
    pixels[np.hypot(y - 20, x - 24) < 12] = (200, 40, 60)
    pixels[np.hypot(y - height / 2, x - width / 2) > 0.55 * height] = 255
    return pixels.clip(0, 255).round().astype(np.uint8)


def pillow(pixels: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    return np.asarray(Image.open(buffer).convert("RGB")).astype(np.float32)


def ours(pixels: np.ndarray, quality: float) -> np.ndarray:
    rgb = torch.from_numpy(pixels.astype(np.float32) / 255).permute(2, 0, 1)[None]
    return jpeg_compress(rgb, torch.tensor([quality]))[0].permute(1, 2, 0).numpy() * 255


@pytest.mark.parametrize("quality", [10, 30, 50, 75, 95])
@pytest.mark.parametrize("size", [(128, 128), (61, 75)])
def test_as_pillow_does_it(quality, size):
    pixels = natural_image(*size, seed=quality)
    expected = pillow(pixels, quality)
    loss = np.abs(expected - pixels).mean()
    difference = np.abs(ours(pixels, quality) - expected)
    assert difference.mean() < min(1.5, 0.3 * loss)
    # The same error, not only one of the same size.
    error, expected_error = ours(pixels, quality) - pixels, expected - pixels
    assert np.corrcoef(error.ravel(), expected_error.ravel())[0, 1] > 0.95


def test_each_image_has_its_own_quality():
    pixels = natural_image(64, 64, 0)
    rgb = torch.from_numpy(pixels.astype(np.float32) / 255).permute(2, 0, 1)
    both = jpeg_compress(rgb.expand(2, 3, 64, 64), torch.tensor([30.0, 95.0]))
    for image, quality in zip(both, (30.0, 95.0), strict=True):
        alone = jpeg_compress(rgb[None], torch.tensor([quality]))[0]
        torch.testing.assert_close(image, alone)


def test_quantisation_tables():
    base = ((16,) * 8,) * 8
    # libjpeg: 50 keeps the table, 100 gives ones, 25 doubles it, 75 halves it.
    tables = quantisation_tables(torch.tensor([50.0, 100.0, 25.0, 75.0]), base)
    assert tables[:, 0, 0].tolist() == [16, 1, 32, 8]


def test_dct_is_orthonormal():
    torch.testing.assert_close(dct_matrix() @ dct_matrix().T, torch.eye(8))
