from collections.abc import Callable

import pytest
import torch

from hi3d.cameras import Cameras, orbit_cameras
from hi3d.errors import InputError
from hi3d.splatting.initialization import initial_splats, mean_colors
from hi3d.splatting.rasterization.projection import rotation_matrices
from hi3d.surface.initial_points import fog_points, hull_points, initial_hull, initial_points
from hi3d.views import Views

BallViews = Callable[..., Views]
RADIUS = 0.4  # of the ball


def test_hull_points_fill_the_sphere_and_take_its_colors(ball_views: BallViews) -> None:
    views = ball_views(orbit_cameras(20, 32, 8), 4)
    hull = initial_hull(views, 0.55, 32)
    start = hull_points(hull, 2000, 0.0, 0.55, torch.Generator().manual_seed(0))
    points = start.means
    assert start.normals.abs().max() == 0
    distance = points.norm(dim=-1)
    inside = (distance < RADIUS).float().mean()
    assert inside > 0.85  # the hull of 8 views bulges a little
    # Through the volume: half of a ball's points lie beyond 0.794 of its radius.
    assert 0.35 < (distance[distance < RADIUS] < 0.794 * RADIUS).float().mean() < 0.65
    colors = mean_colors(views, points)
    assert colors.min() >= 0
    assert colors.max() <= 1
    # Red grows with x, but each point is coloured by views from all sides: the trend remains.
    assert torch.corrcoef(torch.stack([colors[:, 2], points[:, 2]]))[0, 1] > 0.5


def test_discs_lie_on_the_hull(ball_views: BallViews) -> None:
    hull = initial_hull(ball_views(orbit_cameras(20, 48, 16), 4), 0.55, 32)
    start = hull_points(hull, 1000, 0.7, 0.55, torch.Generator().manual_seed(0))
    points, normals = start.means, start.normals
    discs = normals.norm(dim=-1) > 0
    assert discs.sum() == 700
    assert discs[:700].all()
    # Around the equator the hull of a ball is the ball.
    low = discs & (points[:, 2].abs() < 0.2)
    assert low.sum() > 100
    assert (points[low].norm(dim=-1) - RADIUS).abs().max() < 0.05
    outward = points[low] / points[low].norm(dim=-1, keepdim=True)
    assert ((normals[low] * outward).sum(-1) > 0.7).float().mean() > 0.95
    splats = initial_splats(points, torch.rand(1000, 3), 0.1, 0, normals)
    thin = rotation_matrices(splats.quats)[:, :, 2]
    torch.testing.assert_close(thin[discs], normals[discs], rtol=0, atol=1e-4)
    assert (splats.scales[discs, 2] < 0.11 * splats.scales[discs, 0]).all()
    assert (splats.scales[~discs, 2] == splats.scales[~discs, 0]).all()


def test_points_outside_the_image_are_unknown_not_empty(ball_views: BallViews) -> None:
    cameras = orbit_cameras(20, 32, 4)
    # A field of view so narrow that the sphere covers the whole of every image.
    narrow = Cameras(cameras.viewmats, cameras.Ks * torch.tensor([6.0, 6.0, 1.0])[:, None], 32, 32)
    shifted = narrow.Ks.clone()
    shifted[:, :2, 2] = 16
    views = ball_views(Cameras(narrow.viewmats, shifted, 32, 32), 4)
    assert views.alpha.min() == 1
    points = fog_points(initial_hull(views, 0.55, 16), 500, 0.55, torch.Generator().manual_seed(0))
    assert points.norm(dim=-1).max() > 0.3


def test_no_object_is_an_input_error() -> None:
    cameras = orbit_cameras(20, 16, 3)
    views = Views(torch.ones(3, 3, 16, 16), torch.zeros(3, 1, 16, 16), cameras)
    with pytest.raises(InputError, match="no view shows an object"):
        initial_points(views, 10, torch.Generator(), 16)
