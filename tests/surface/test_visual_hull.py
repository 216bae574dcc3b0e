from dataclasses import replace

import pytest
import torch

from hi3d.cameras import orbit_cameras
from hi3d.errors import InputError
from hi3d.surface.visual_hull import (
    grid_points,
    hull_sdf,
    shared_hull,
    silhouette_distance,
)
from hi3d.views import Views

RADIUS = 0.4  # of the ball
ORBIT = orbit_cameras(20.0, 48, 16)


def test_hull_of_a_ball_contains_it_and_the_tangent_cone_below(ball_views):
    # The cone ends at RADIUS / cos(20 deg + asin(RADIUS / 1.5)) = 1.23 RADIUS.
    occupied = hull_sdf(ball_views(ORBIT), 32, 0.55) < 0
    distance = grid_points(32, 0.55, "cpu").reshape(32, 32, 32, 3).norm(dim=-1)
    assert occupied[distance < RADIUS - 0.03].all()
    assert not occupied[distance > RADIUS * 1.27].any()


def test_hull_sdf_is_a_distance_on_the_side_of_a_ball(ball_views):
    # On the equator the hull from elevation 0 touches the ball, where the distance is exact up to
    # perspective and half a pixel.
    sdf = hull_sdf(ball_views(orbit_cameras(0.0, 96, 32)), 23, 0.55)
    assert sdf[11, 11, 11].item() == pytest.approx(-RADIUS, abs=0.03)
    assert sdf[21, 11, 11].item() == pytest.approx(0.5 - RADIUS, abs=0.02)


def test_outside_every_image_is_outside_and_outside_one_image_is_unknown(ball_views):
    views = ball_views(orbit_cameras(0.0, 48, 2))  # from +x and -x
    Ks = views.cameras.Ks.clone()
    Ks[:, :2, :2] *= 4  # narrow: the whole image shows the ball
    close = replace(
        views, alpha=torch.ones_like(views.alpha), cameras=replace(views.cameras, Ks=Ks)
    )
    occupied = hull_sdf(close, 23, 0.55) < 0
    assert occupied[11, 11, 11]
    assert not occupied[11, 0, 11]  # no view sees the far left
    wide = views[[0]]
    both = Views(
        torch.cat([close.rgb[:1], wide.rgb]),
        torch.cat([close.alpha[:1], wide.alpha]),
        replace(
            wide.cameras,
            viewmats=close.cameras.viewmats[[0, 0]],
            Ks=torch.cat([Ks[:1], wide.cameras.Ks]),
        ),
    )
    assert (hull_sdf(both, 23, 0.55) < 0)[
        11, 16, 11
    ]  # 0.25: unknown to one, foreground to the other


def test_tolerance_ignores_dissenting_views(ball_views):
    views = ball_views(ORBIT)
    alpha = views.alpha.clone()
    alpha[3] = 0
    broken = replace(views, alpha=alpha)
    assert not (hull_sdf(broken, 16, 0.55) < 0).any()
    tolerant = hull_sdf(broken, 16, 0.55, tolerance=1) < 0
    assert tolerant.sum() >= (hull_sdf(views, 16, 0.55) < 0).sum()


def test_tolerance_keeps_nothing_in_corners_that_few_views_see(ball_views):
    distance = grid_points(16, 0.55, "cpu").reshape(16, 16, 16, 3).norm(dim=-1)
    tolerant = hull_sdf(ball_views(ORBIT), 16, 0.55, tolerance=4) < 0
    assert tolerant[distance < 0.35].all()
    assert not tolerant[distance > 0.75].any()


def test_half_of_the_views_may_be_overruled_but_not_more(ball_views):
    views = ball_views(orbit_cameras(20.0, 48, 16, distance=3.0))  # every point is in every image
    alpha = views.alpha.clone()
    alpha[:8] = 0
    half = shared_hull(replace(views, alpha=alpha), 16, 0.55)
    assert torch.equal(half, hull_sdf(replace(views, alpha=alpha), 16, 0.55, tolerance=8))
    alpha[8] = 0
    with pytest.raises(InputError, match="check the cameras"):
        shared_hull(replace(views, alpha=alpha), 16, 0.55)
    with pytest.raises(InputError, match="no view shows an object"):
        shared_hull(replace(views, alpha=0 * alpha), 16, 0.55)


def test_silhouette_distance_by_hand():
    alpha = torch.tensor([[0.0, 0.0, 1.0, 1.0, 1.0, 0.0]])
    expected = torch.tensor([[1.5, 0.5, -0.5, -1.5, -0.5, 0.5]])
    assert torch.equal(silhouette_distance(alpha), expected)
    assert (silhouette_distance(torch.zeros(3, 4)) == 5).all()
    assert (silhouette_distance(torch.ones(3, 4)) == -5).all()
