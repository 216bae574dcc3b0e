"""Noise against the moments and probabilities of its law."""

import numpy as np
import pytest
import torch
from scipy import stats

from hi3d.degradation.noise import add_gaussian_noise, add_poisson_noise, random_bits


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def poisson_counts(level: int, photons: float, seed: int = 0) -> np.ndarray:
    """Counts behind the noise of a dim flat image, which the noise does not drive over 1."""
    image = torch.full((3, 200, 200), level / 255)
    noisy = add_poisson_noise(image, 1.0, False, seeded(seed), photons)
    return (noisy.double() * photons).numpy().ravel()


@pytest.mark.parametrize(("level", "photons"), [(1, 255.0), (10, 255.0), (128, 64.0), (100, 256.0)])
def test_poisson_mean_variance_and_whole_counts(level, photons):
    counts = poisson_counts(level, photons)
    mean = level / 255 * photons
    assert np.abs(counts - counts.round()).max() < 1e-3
    deviation = (mean / counts.size) ** 0.5
    assert abs(counts.mean() - mean) < 4 * deviation
    # The variance of a sample variance is about (2 m² + m) / n for Poisson counts.
    assert abs(counts.var() - mean) < 4 * ((2 * mean**2 + mean) / counts.size) ** 0.5


@pytest.mark.parametrize("level", [3, 30])
def test_poisson_probabilities(level):
    """Chi-square against the probabilities, where 5 or more counts are expected."""
    counts = poisson_counts(level, 255.0).round().astype(int)
    values = np.arange(counts.max() + 1)
    expected = stats.poisson.pmf(values, level) * counts.size
    often = expected >= 5
    observed = np.bincount(counts, minlength=len(values))[often]
    scaled = expected[often] * observed.sum() / expected[often].sum()
    assert stats.chisquare(observed, scaled).pvalue > 1e-3


def test_poisson_of_black_is_black():
    black = torch.zeros(3, 8, 8)
    assert torch.equal(add_poisson_noise(black, 3.0, False, seeded(0), 256.0), black)


def test_poisson_counts_the_levels_of_the_image():
    """Five distinct levels make eight photons at white."""
    image = torch.tensor([0, 20, 40, 60, 80]).repeat(3, 40, 8) / 255
    noisy = add_poisson_noise(image, 1.0, False, seeded(0))
    counts = noisy * 8
    assert (counts - counts.round()).abs().max() < 1e-5
    assert counts.max() >= 3
    finer = add_poisson_noise(image, 1.0, False, seeded(0), 256.0) * 8
    assert (finer - finer.round()).abs().max() > 0.1


def test_grey_poisson_counts_the_luma():
    image = torch.tensor([0.6, 0.2, 0.4])[:, None, None].expand(3, 200, 200)
    noise = add_poisson_noise(image, 1.0, True, seeded(0), 256.0) - image
    assert torch.allclose(noise[0], noise[1], atol=1e-6)
    # Luma of the colour (ITU-R BT.601): 0.2989 * 0.6 + 0.587 * 0.2 + 0.114 * 0.4 = 0.342.
    assert abs(float(noise[0].var()) * 256 - 0.342) < 0.01


def test_gaussian_noise():
    image = torch.full((3, 200, 200), 0.5)
    noise = (add_gaussian_noise(image, 0.05, False, seeded(0)) - image).numpy()
    assert stats.kstest(noise.ravel()[:20_000] / 0.05, "norm").pvalue > 1e-3
    assert abs(noise.std() - 0.05) < 4 * 0.05 / (2 * noise.size) ** 0.5
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.03
    grey = add_gaussian_noise(image, 0.05, True, seeded(0))
    assert torch.equal(grey[0], grey[2])


def test_random_bits_are_uniform():
    bits = random_bits(100_001, seeded(0))
    assert bits.shape == (100_001,)
    observed = torch.bincount(bits // 4096, minlength=16).numpy()
    assert stats.chisquare(observed).pvalue > 1e-3
    assert bits.min() >= 0
    assert bits.max() <= 65_535
