"""What the other views leave of an object."""

import torch

from hi3d.cameras import Cameras, orbit_cameras
from hi3d.photo.hull_silhouettes import hull_silhouettes

SIZE, NUM_VIEWS = 64, 12


def ball_views() -> tuple[torch.Tensor, Cameras]:
    """Opacity [V, 1, H, W] of a ball of radius 0.3 at (0.1, 0, 0), and the cameras."""
    cameras, masks = orbit_cameras(20.0, SIZE, NUM_VIEWS), []
    for view in range(NUM_VIEWS):
        origins, directions = (rays.reshape(-1, 3) for rays in cameras.rays(view))
        to_center = torch.tensor([0.1, 0, 0]) - origins
        along = (to_center * directions).sum(-1, keepdim=True)
        masks.append((to_center - along * directions).norm(dim=-1) < 0.3)
    return torch.stack(masks).float().reshape(-1, 1, SIZE, SIZE), cameras


def test_an_empty_view_takes_no_part_and_is_predicted():
    alpha, cameras = ball_views()
    true = alpha[3].clone() > 0.5
    alpha[3] = 0
    found = hull_silhouettes(alpha, cameras, [3])[3] > 0.5
    assert (found & true).sum() / (found | true).sum() > 0.85


def test_haze_in_one_view_is_no_part_of_its_own_silhouette():
    alpha, cameras = ball_views()
    alpha[4, :, :, : SIZE // 2] = 1
    silhouette = hull_silhouettes(alpha, cameras, [4])[4]
    assert silhouette[:, :, :8].max() == 0


def test_one_view_that_loses_a_part_is_overruled():
    alpha, cameras = ball_views()
    true = alpha[6] > 0.5
    alpha[0, :, : SIZE // 2] = 0
    found = hull_silhouettes(alpha, cameras, [6])[6] > 0.5
    assert (found & true).sum() / true.sum() > 0.95


def test_few_views_or_none_in_common_say_nothing():
    alpha, cameras = ball_views()
    alpha[:8] = 0
    assert hull_silhouettes(alpha, cameras, [0]) == {}
    corners = torch.zeros_like(alpha)
    corners[::2, :, :4, :4] = 1
    corners[1::2, :, -4:, -4:] = 1
    assert hull_silhouettes(corners, cameras, [0]) == {}
