"""Analytic views of a ball."""

from collections.abc import Callable

import pytest
import torch

from hi3d.cameras import Cameras
from hi3d.views import Views

RADIUS = 0.4


def views_of_a_ball(cameras: Cameras, samples: int = 1) -> Views:
    """A ball of radius 0.4 whose colour is 0.5 + position, with samples^2 rays a pixel."""
    fine = cameras.resized(samples * cameras.width, samples * cameras.height)
    rgb, alpha = [], []
    for view in range(len(cameras)):
        origins, directions = fine.rays(view)
        along = (origins * directions).sum(-1)
        discriminant = along**2 - origins.square().sum(-1) + RADIUS**2
        hit = discriminant > 0
        distance = -along - discriminant.clamp_min(0).sqrt()
        color = 0.5 + origins + distance[..., None] * directions
        rgb.append(torch.where(hit[..., None], color, 1.0).clamp(0, 1).permute(2, 0, 1))
        alpha.append(hit.float()[None])
    pixels = [torch.nn.functional.avg_pool2d(torch.stack(t), samples) for t in (rgb, alpha)]
    return Views(*pixels, cameras)


@pytest.fixture(scope="session")
def ball_views() -> Callable[..., Views]:
    """`views_of_a_ball`"""
    return views_of_a_ball
