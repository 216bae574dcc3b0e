import pytest
import torch
import torch.nn.functional as F

from hi3d.nano.base_orbit import repeat_around
from hi3d.nano.reference_detail import TOLERANCE, add_reference_detail


def random_reference(size: int = 64) -> torch.Tensor:
    return torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))


def averaged(frames: torch.Tensor) -> torch.Tensor:
    """Each 8 x 8 cell replaced by its mean."""
    means = F.avg_pool2d(frames.flatten(0, 1), 8)
    return means.repeat_interleave(8, -1).repeat_interleave(8, -2).unflatten(0, frames.shape[:2])


def test_views_that_look_alike_get_the_detail_back():
    reference = random_reference()
    around = repeat_around(reference, 4)
    detailed = add_reference_detail(averaged(around), reference)
    assert torch.allclose(detailed, around, atol=1e-5)
    assert torch.allclose(add_reference_detail(around, reference), around, atol=1e-5)


def test_views_that_differ_are_left_alone():
    reference = random_reference()
    orbit = averaged(repeat_around(reference, 4)) / 4
    orbit[:, 0] = reference
    detailed = add_reference_detail(orbit, reference)
    assert torch.allclose(detailed[:, 1:], orbit[:, 1:], atol=1e-4)
    assert torch.allclose(detailed[:, 0], reference, atol=1e-5)


def test_the_weight_falls_with_the_difference():
    """All cells differ by TOLERANCE: what is exchanged is multiplied by 1/e."""
    reference = random_reference() * 0.5
    frames = averaged(repeat_around(reference, 2)) + TOLERANCE
    detailed = add_reference_detail(frames, reference)
    weight = torch.exp(torch.tensor(-1.0))
    detail = repeat_around(reference, 2) - averaged(repeat_around(reference, 2))
    assert torch.allclose(detailed, (frames + weight * detail).clamp(0, 1), atol=1e-5)


@pytest.mark.parametrize("size", [16, 24, 20])
def test_any_size(size):
    reference = random_reference(size)
    orbit = torch.rand(1, 2, 3, size, size)
    detailed = add_reference_detail(orbit, reference)
    assert detailed.shape == orbit.shape
    assert 0 <= detailed.min() <= detailed.max() <= 1
