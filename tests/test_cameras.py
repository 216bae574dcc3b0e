"""The orbit's cameras, against values worked out by hand."""

import math

import pytest
import torch

from hi3d.cameras import (
    FOV_DEG,
    Cameras,
    between_views,
    concatenate_cameras,
    look_at_origin,
    orbit_cameras,
)


def project(cameras: Cameras, point: list[float]) -> torch.Tensor:
    """Pixel coordinates [V, 2] of a world point."""
    world = torch.tensor([*point, 1.0])
    pixel = torch.einsum("vij,vj->vi", cameras.Ks, (cameras.viewmats @ world)[:, :3])
    return pixel[:, :2] / pixel[:, 2:]


def test_field_of_view_is_a_35_mm_lens_on_a_32_mm_sensor():
    assert pytest.approx(49.134, abs=1e-3) == FOV_DEG
    # SyncDreamer's camera at 256 px: focal length 280, principal point 128.
    K = orbit_cameras(30, 256).Ks[0]
    torch.testing.assert_close(K, torch.tensor([[280.0, 0, 128], [0, 280, 128], [0, 0, 1]]))


def test_first_camera_of_the_standard_orbit():
    # The published first pose: [0,1,0], [.5,0,-.866], [-.866,0,-.5]; t [0,0,1.5].
    viewmat = orbit_cameras(30, 256).viewmats[0]
    c = math.sqrt(3) / 2
    expected = torch.tensor(
        [[0, 1, 0, 0], [0.5, 0, -c, 0], [-c, 0, -0.5, 1.5], [0, 0, 0, 1]], dtype=torch.float32
    )
    torch.testing.assert_close(viewmat, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("elevation_deg", [-10.0, 0.0, 37.5])
def test_orbit_looks_at_the_origin(elevation_deg):
    cameras = orbit_cameras(elevation_deg, 64)
    center = torch.full((16, 2), 32.0)
    torch.testing.assert_close(project(cameras, [0, 0, 0]), center, atol=1e-4, rtol=0)
    torch.testing.assert_close(cameras.positions.norm(dim=-1), torch.full((16,), 1.5))
    torch.testing.assert_close(
        cameras.elevation_deg, torch.full((16,), elevation_deg), atol=1e-3, rtol=0
    )
    steps = cameras.azimuth_deg.diff() % 360
    torch.testing.assert_close(steps, torch.full((15,), 22.5), atol=1e-3, rtol=0)


def test_project_tells_pixel_depth_and_frame():
    cameras = orbit_cameras(0, 64)  # camera 0 at (1.5, 0, 0), 32 px of image to each side
    points = torch.tensor([[0.0, 0.3, 0.15], [0.5, 0.0, 0.0], [0.0, 0.7, 0.0], [2.0, 0.0, 0.0]])
    pixels, depths, framed = cameras.project(points, 0)
    torch.testing.assert_close(pixels[:1], project(cameras, points[0].tolist())[:1])
    torch.testing.assert_close(pixels[1], torch.tensor([32.0, 32.0]))
    torch.testing.assert_close(depths, torch.tensor([1.5, 1.0, 1.5, -0.5]))
    assert framed.tolist() == [True, True, False, False]  # beside the image, behind the camera


def test_known_point_projects_to_known_pixel():
    # Camera 0 is at (1.5, 0, 0): +y is to its right, +z is up. Focal length 70 px at 64 px.
    cameras = orbit_cameras(0, 64)
    pixel = project(cameras, [0.0, 0.3, 0.15])[0]
    expected = torch.tensor([32 + 70 * 0.3 / 1.5, 32 - 70 * 0.15 / 1.5])
    torch.testing.assert_close(pixel, expected, atol=1e-4, rtol=0)
    # Camera 4 is at (0, 1.5, 0) and sees +x to its left.
    assert project(cameras, [0.3, 0.0, 0.0])[4, 0] < 32


def test_rays_go_through_the_pixels_they_are_named_after():
    cameras = orbit_cameras(20, 16)
    origins, directions = cameras.rays(3)
    points = origins + 1.3 * directions
    pixel = project(cameras, points[5, 11].tolist())[3]
    torch.testing.assert_close(pixel, torch.tensor([11.5, 5.5]), atol=1e-4, rtol=0)
    torch.testing.assert_close(directions.norm(dim=-1), torch.ones(16, 16))


def test_resized_cameras_see_the_same():
    cameras = orbit_cameras(10, 64)
    torch.testing.assert_close(
        2 * project(cameras, [0.1, 0.2, 0.3]), project(cameras.resized(128, 128), [0.1, 0.2, 0.3])
    )


@pytest.mark.parametrize("num_views", [0, 5, 16, 32, 48])
def test_between_views_lie_evenly_between_neighbours(num_views):
    cameras = orbit_cameras(25, 64)
    between = between_views(cameras, num_views)
    assert len(between) == num_views
    if num_views == 0:
        return
    torch.testing.assert_close(
        between.elevation_deg, torch.full((num_views,), 25.0), atol=1e-3, rtol=0
    )
    torch.testing.assert_close(between.positions.norm(dim=-1), torch.full((num_views,), 1.5))
    if num_views % 16 == 0:
        per_gap = num_views // 16
        step = 22.5 / (per_gap + 1)
        expected = [g * 22.5 + k * step for g in range(16) for k in range(1, per_gap + 1)]
        found = between.azimuth_deg.sort().values
        torch.testing.assert_close(found, torch.tensor(expected), atol=1e-3, rtol=0)


def test_between_views_follow_a_varying_elevation():
    two = concatenate_cameras(orbit_cameras(0, 64)[0], orbit_cameras(20, 64)[8])
    between = between_views(two, 2)
    torch.testing.assert_close(between.elevation_deg, torch.full((2,), 10.0), atol=1e-3, rtol=0)


def test_wrong_shapes_and_places_are_errors():
    cameras = orbit_cameras(0, 64)
    with pytest.raises(ValueError, match="Ks must be"):
        Cameras(cameras.viewmats, cameras.Ks[:3], 64, 64)
    with pytest.raises(ValueError, match="z axis"):
        look_at_origin(torch.tensor([[0.0, 0.0, 1.5]]))
    with pytest.raises(ValueError, match="M >= 0"):
        between_views(cameras, -1)
    with pytest.raises(ValueError, match="resized"):
        concatenate_cameras(cameras, orbit_cameras(0, 32))
