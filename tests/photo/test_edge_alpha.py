"""The opacity of an edge is the object's share of its color, whatever the two colors are."""

import numpy as np
import pytest

from hi3d.photo.edge_alpha import edge_alpha

COLUMNS = np.arange(20.0)


def edge(width: float) -> np.ndarray:
    """Opacity [12, 20] that rises over so many pixels around column 10."""
    profile = ((COLUMNS + 0.5 - 10) / width + 0.5).clip(0, 1)
    return np.tile(profile, (12, 1)).astype(np.float32)


def mixed(alpha: np.ndarray, color: float, background: float = 0.0) -> np.ndarray:
    """Absorption [12, 20, 3] of an edge between two grey levels."""
    return np.repeat((alpha * color + (1 - alpha) * background)[..., None], 3, axis=2)


@pytest.mark.parametrize("color", [0.02, 0.5, 1.0])
def test_an_antialiased_edge_on_exact_white(color):
    alpha = edge(1.0)
    alpha[:, 10] = 0.3
    absorption = mixed(alpha, color)
    found = edge_alpha(absorption, absorption[..., 0] > 0, width=1, outside=False)
    np.testing.assert_allclose(found, alpha, atol=1e-6)


@pytest.mark.parametrize(("color", "background"), [(0.9, 0.1), (0.08, 0.02)])
def test_a_blurred_edge_in_haze(color, background):
    alpha = edge(4.0)
    found = edge_alpha(mixed(alpha, color, background), alpha > 0.4, width=2, outside=True)
    np.testing.assert_allclose(found, alpha, atol=1e-5)


def test_what_is_thinner_than_its_edges_has_the_color_of_its_darkest_pixel():
    alpha = np.zeros((12, 20), np.float32)
    alpha[:, 9], alpha[:, 10], alpha[:, 11] = 0.25, 1, 0.5
    found = edge_alpha(mixed(alpha, 0.6), alpha > 0, width=2, outside=False)
    np.testing.assert_allclose(found, alpha, atol=1e-6)


def test_an_image_filled_by_its_object_is_opaque():
    full = np.ones((12, 20), bool)
    assert (edge_alpha(mixed(full, 0.5), full, width=1, outside=True) == 1).all()
