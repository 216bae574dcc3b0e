"""Blur and sinc kernels against closed forms, slow loops and scipy."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage, special

from hi3d.degradation.kernels import (
    KERNEL_KINDS,
    KernelConfig,
    KernelDraws,
    SincConfig,
    draw_final_sinc,
    draw_kernels,
    filter_image,
    gaussian_kernels,
    sinc_kernels,
)
from hi3d.degradation.random_draws import Draws, SharedDraws


def draws(count: int, seed: int = 0, **shared: bool) -> Draws:
    return Draws(count, SharedDraws(**shared), torch.Generator().manual_seed(seed))


def one_kernel(kind: str, size: int, sigmas, angle: float, beta: float = 1.0) -> torch.Tensor:
    return KernelDraws(
        sizes=torch.tensor([size]),
        kinds=torch.tensor([KERNEL_KINDS.index(kind)]),
        sigmas=torch.tensor([sigmas]),
        angles=torch.tensor([angle]),
        betas=torch.tensor([beta]),
        are_sinc=torch.tensor([False]),
        cutoffs=torch.tensor([1.0]),
    ).kernel(0)


def test_kernels_sum_to_one():
    blur = draw_kernels(draws(64), KernelConfig(), 1.0)
    sinc = draw_final_sinc(draws(64), SincConfig(probability=1.0), 1.0)
    assert sinc.are_sinc.all()
    for kernels in (blur, sinc):
        for view in range(64):
            kernel = kernels.kernel(view)
            assert kernel.shape == (int(kernels.sizes[view]),) * 2
            assert abs(float(kernel.sum()) - 1) < 1e-5


def test_kernels_shrink_with_the_image():
    assert draw_kernels(draws(64), KernelConfig(), 1 / 8).sizes.max() == 3
    half = draw_kernels(draws(64), KernelConfig(sigma=(2.0, 2.0)), 1 / 2)
    assert half.sizes.max() <= 11
    assert (half.sigmas == 1).all()


def test_isotropic_gaussian_is_separable():
    """exp(-(x² + y²) / 2s²) is the product of two one-dimensional Gaussians."""
    line = torch.exp(-((torch.arange(15.0) - 7) ** 2) / (2 * 1.7**2))
    line /= line.sum()
    kernel = one_kernel("iso", 15, [1.7, 1.7], 0.4)
    torch.testing.assert_close(kernel, line[:, None] * line[None], rtol=1e-4, atol=1e-7)


def test_gaussian_kernel_has_its_covariance():
    kernel = one_kernel("aniso", 31, [3.0, 1.5], 0.5)
    axis = torch.arange(31.0) - 15
    variance_x = float((kernel * axis[None, :] ** 2).sum())
    covariance = float((kernel * axis[None, :] * axis[:, None]).sum())
    assert abs(variance_x - (9 * math.cos(0.5) ** 2 + 2.25 * math.sin(0.5) ** 2)) < 1e-2
    assert abs(covariance - (9 - 2.25) * math.sin(0.5) * math.cos(0.5)) < 1e-2


def test_rotation():
    """A quarter turn is `rot90`; the two widths exchanged are a quarter turn as well."""
    kernel = one_kernel("aniso", 21, [2.5, 1.0], 0.3)
    # Angles grow from x (right) to y (down), so against rot90's direction.
    turned = one_kernel("aniso", 21, [2.5, 1.0], 0.3 + math.pi / 2)
    torch.testing.assert_close(turned, torch.rot90(kernel, -1), rtol=1e-4, atol=1e-7)
    exchanged = one_kernel("aniso", 21, [1.0, 2.5], 0.3)
    torch.testing.assert_close(exchanged, turned, rtol=1e-4, atol=1e-7)
    diagonal = one_kernel("aniso", 21, [2.5, 1.0], math.pi / 4)
    torch.testing.assert_close(diagonal, diagonal.T, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("is_plateau", [False, True])
def test_generalised_and_plateau_against_a_loop(is_plateau):
    sigmas, angle, beta, size = (2.0, 0.8), 0.7, 1.4, 9
    covariance = np.diag(np.square(sigmas))
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    inverse = np.linalg.inv(turn @ covariance @ turn.T)
    expected = np.zeros((size, size))
    for row in range(size):
        for column in range(size):
            offset = np.array([column - size // 2, row - size // 2])
            q = offset @ inverse @ offset
            expected[row, column] = 1 / (1 + q**beta) if is_plateau else math.exp(-(q**beta) / 2)
    ours = gaussian_kernels(
        torch.tensor([sigmas]),
        torch.tensor([angle]),
        torch.tensor([beta]),
        torch.tensor([is_plateau]),
        size,
    )[0]
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("cutoff", [math.pi / 5, math.pi / 3, 2.0, math.pi])
def test_sinc_kernel_is_the_bessel_formula(cutoff):
    size = 21
    y, x = np.mgrid[:size, :size] - size // 2
    r = np.hypot(x, y)
    with np.errstate(invalid="ignore"):
        expected = cutoff * special.j1(cutoff * r) / (2 * math.pi * r)
    expected[size // 2, size // 2] = cutoff**2 / (4 * math.pi)
    ours = sinc_kernels(torch.tensor([cutoff]), size)[0].numpy()
    np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_sinc_kernel_is_a_low_pass():
    """A large kernel passes frequencies below the cutoff and stops those above."""
    kernel = sinc_kernels(torch.tensor([math.pi / 2]), 101)[0]
    x = torch.arange(101.0) - 50
    for frequency, gain in ((math.pi / 4, 1.0), (3 * math.pi / 4, 0.0)):
        response = float((kernel * torch.cos(frequency * x)).sum())
        assert abs(response - gain) < 0.05


@pytest.mark.parametrize("size", [3, 7, 21])
def test_filter_is_a_correlation_with_repeated_edges(size):
    generator = torch.Generator().manual_seed(size)
    image = torch.rand(3, 37, 26, generator=generator)
    kernel = torch.rand(size, size, generator=generator) / size**2
    expected = [ndimage.correlate(c, kernel.numpy(), mode="nearest") for c in image.numpy()]
    np.testing.assert_allclose(filter_image(image, kernel).numpy(), expected, atol=2e-6)


def test_filter_of_white_is_white():
    kernel = one_kernel("plateau_aniso", 21, [3.0, 0.5], 0.1, 1.5)
    white = torch.ones(3, 40, 40)
    torch.testing.assert_close(filter_image(white, kernel), white)
