"""The degradation depends on video, config and seed only, and its parts are what they claim."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

from hi3d.data.blur_kernels import (
    KernelConfig,
    draw_blur_kernels,
    draw_sinc_kernels,
    gaussian_kernels,
)
from hi3d.data.degradation import DegradationConfig, DegradationPass, degrade
from hi3d.data.jpeg import dct_matrix, jpeg_compress, quantisation_tables

SMALL = DegradationConfig(reference_resolution=128, mask_probability=0.5)


@pytest.fixture
def video():
    generator = torch.Generator().manual_seed(5)
    rgb = torch.rand(2, 3, 3, 48, 40, generator=generator)
    alpha = torch.zeros(2, 3, 1, 48, 40)
    alpha[..., 12:36, 10:30] = 1
    alpha[..., 12, :] = 0.5
    return torch.where(alpha > 0, rgb, torch.ones_like(rgb)), alpha


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("seed", range(6))
def test_shape_range_first_frame_and_background(video, seed):
    rgb, alpha = video
    degraded = degrade(rgb, alpha, SMALL, seeded(seed))
    assert degraded.shape == rgb.shape
    assert degraded.min() >= 0
    assert degraded.max() <= 1
    assert torch.equal(degraded[:, 0], rgb[:, 0])
    assert (degraded[(alpha == 0).expand_as(degraded)] == 1).all()
    assert (degraded[:, 1:] - rgb[:, 1:]).abs().mean() > 0.01


def test_same_seed_same_pixels(video):
    first = degrade(*video, SMALL, seeded(1))
    assert torch.equal(first, degrade(*video, SMALL, seeded(1)))
    assert not torch.equal(first, degrade(*video, SMALL, seeded(2)))


def test_only_the_generator_is_random(video):
    torch.manual_seed(0)
    first = degrade(*video, SMALL, seeded(1))
    torch.manual_seed(1)
    assert torch.equal(first, degrade(*video, SMALL, seeded(1)))


def test_off_is_the_identity(video):
    rgb, alpha = video
    assert torch.equal(degrade(rgb, alpha, DegradationConfig(probability=0), seeded(0)), rgb)
    nothing = DegradationPass(
        blur_probability=0,
        resize_up_probability=0,
        resize_down_probability=0,
        noise_probability=0,
        jpeg_probability=0,
    )
    off = DegradationConfig(
        first=nothing,
        second=None,
        bottleneck=None,
        final_sinc_probability=0,
        clean_first_frame=False,
    )
    assert torch.equal(degrade(rgb, alpha, off, seeded(0)), rgb)


def test_noise_has_the_stated_deviation():
    grey = torch.full((1, 2, 3, 128, 128), 0.5)
    ranges = DegradationPass(
        blur_probability=0,
        resize_up_probability=0,
        resize_down_probability=0,
        gaussian_probability=1,
        gaussian_sigma=(20, 20),
        grey_probability=0,
        jpeg_probability=0,
    )
    config = DegradationConfig(
        first=ranges,
        second=None,
        bottleneck=None,
        final_sinc_probability=0,
        clean_first_frame=False,
    )
    noisy = degrade(grey, torch.ones(1, 2, 1, 128, 128), config, seeded(0))
    assert abs(float(noisy.std()) * 255 - 20) < 0.2
    ranges.gaussian_probability, ranges.poisson_scale, ranges.grey_probability = 0, (1, 1), 1
    noisy = degrade(grey, torch.ones(1, 2, 1, 128, 128), config, seeded(0))
    # Shot noise of 127.5 photons: its deviation is sqrt(127.5) = 11.29 of 255 levels.
    assert abs(float(noisy.std()) * 255 - math.sqrt(127.5)) < 0.2
    assert torch.equal(noisy[:, :, 0], noisy[:, :, 1])


def test_kernels_sum_to_one():
    for draw in (draw_blur_kernels, draw_sinc_kernels):
        kernels = draw(64, KernelConfig(), 1.0, seeded(0))
        assert kernels.shape[1] == kernels.shape[2] <= 21
        torch.testing.assert_close(kernels.sum(dim=(1, 2)), torch.ones(64))


def test_kernels_shrink_with_the_image():
    assert draw_blur_kernels(64, KernelConfig(), 1 / 8, seeded(0)).shape[-1] == 3
    assert draw_blur_kernels(64, KernelConfig(), 1 / 2, seeded(0)).shape[-1] <= 11


def test_gaussian_kernel_has_its_covariance():
    angle = torch.tensor([0.5])
    kernel = gaussian_kernels(
        torch.tensor([[3.0, 1.5]]), angle, torch.ones(1), torch.tensor([False]), 31
    )[0]
    kernel = kernel / kernel.sum()
    axis = torch.arange(31.0) - 15
    variance_x = (kernel * axis[None, :] ** 2).sum()
    expected = 9 * math.cos(0.5) ** 2 + 2.25 * math.sin(0.5) ** 2
    assert abs(float(variance_x) - expected) < 1e-2


@pytest.mark.parametrize("quality", [30, 60, 95])
def test_jpeg_is_as_pillow_does_it(quality):
    y, x = np.mgrid[:61, :75]
    pixels = np.stack([128 + 90 * np.sin(x / 5), 2.5 * x + y, 120 + 60 * np.cos(y / 7)], axis=-1)
    pixels = (pixels + 8 * np.random.default_rng(0).normal(size=(61, 75, 1))).clip(0, 255)
    image = Image.fromarray(pixels.astype(np.uint8))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    expected = np.asarray(Image.open(buffer).convert("RGB")).astype(np.float32)
    rgb = torch.from_numpy(np.asarray(image).astype(np.float32) / 255).permute(2, 0, 1)[None]
    ours = jpeg_compress(rgb, torch.tensor([float(quality)]))[0].permute(1, 2, 0).numpy() * 255
    loss = np.abs(expected - np.asarray(image)).mean()
    assert np.abs(ours - expected).mean() < max(0.25 * loss, 1.2)


def test_quantisation_tables():
    base = ((16,) * 8,) * 8
    # libjpeg: 50 keeps the table, 100 gives ones, 25 doubles it, 75 halves it.
    tables = quantisation_tables(torch.tensor([50.0, 100.0, 25.0, 75.0]), base)
    assert tables[:, 0, 0].tolist() == [16, 1, 32, 8]


def test_dct_is_orthonormal():
    torch.testing.assert_close(dct_matrix() @ dct_matrix().T, torch.eye(8))


def test_wrong_shapes(video):
    rgb, alpha = video
    with pytest.raises(ValueError, match="rgb must be"):
        degrade(rgb[0], alpha, SMALL, seeded(0))
    with pytest.raises(ValueError, match="alpha must be"):
        degrade(rgb, alpha[:, :, 0], SMALL, seeded(0))
