"""Analytic views of a ball."""

from collections.abc import Callable

import pytest
import torch

from hi3d.cameras import Cameras
from hi3d.views import Views


@pytest.fixture(scope="session")
def ball_views(sphere_views) -> Callable[..., Views]:
    """Views of a ball of radius 0.4 whose colour is 0.5 + position, samples^2 rays a pixel."""

    def views_of_a_ball(cameras: Cameras, samples: int = 1) -> Views:
        fine, _ = sphere_views(cameras.resized(samples * cameras.width, samples * cameras.height))
        pixels = [torch.nn.functional.avg_pool2d(t, samples) for t in (fine.rgb, fine.alpha)]
        return Views(*pixels, cameras)

    return views_of_a_ball
