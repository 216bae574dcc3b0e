"""Guidance schedules and the combination rule."""

import pytest
import torch

from hi3d.diffusion.guidance import GuidanceConfig, guidance_scales, guide
from hi3d.errors import InputError


def test_schedules():
    linear = guidance_scales(GuidanceConfig("linear", 1.0, 2.5), 16)
    assert linear[0] == 1
    assert linear[15] == 2.5
    torch.testing.assert_close(linear.diff(), torch.full((15,), 0.1))
    triangle = guidance_scales(GuidanceConfig("triangle", 1.0, 3.0), 5)
    torch.testing.assert_close(triangle, torch.tensor([1.0, 2.0, 3.0, 2.0, 1.0]))
    assert (guidance_scales(GuidanceConfig("constant", 1.0, 2.0), 3) == 2).all()
    with pytest.raises(InputError, match="give one of"):
        GuidanceConfig("cubic")


def test_guide_extrapolates_per_frame():
    conditional = torch.full((1, 2, 1, 1, 1), 3.0)
    unconditional = torch.full((1, 2, 1, 1, 1), 1.0)
    guided = guide(conditional, unconditional, torch.tensor([1.0, 2.0]))
    torch.testing.assert_close(guided.flatten(), torch.tensor([3.0, 5.0]))
