"""Pockets that no camera looks into become solid; what a camera sees does not change."""

import pytest
import torch

from hi3d.cameras import Cameras, cameras_at, orbit_cameras
from hi3d.surface.grid import GridField
from hi3d.surface.marching_cubes import marching_cubes
from hi3d.surface.unseen_space import fill_unseen_space
from hi3d.surface.visual_hull import grid_points

RESOLUTION, HALF_EXTENT, RADIUS = 49, 0.6, 0.4
ORBIT = orbit_cameras(20, 64, 8)


def field_of(sdf: torch.Tensor) -> GridField:
    sdf = sdf.reshape((RESOLUTION,) * 3)
    return GridField(sdf, torch.zeros(*sdf.shape, 3), HALF_EXTENT)


@pytest.fixture(scope="module")
def points() -> torch.Tensor:
    return grid_points(RESOLUTION, HALF_EXTENT, "cpu")


def sphere(points: torch.Tensor, radius: float, center=(0.0, 0.0, 0.0)) -> torch.Tensor:
    return (points - torch.tensor(center)).norm(dim=1) - radius


def tunnel(points: torch.Tensor, direction: tuple[float, float, float]) -> torch.Tensor:
    """A thin straight hole from the centre of the ball outwards."""
    axis = torch.tensor(direction)
    along = points @ axis
    return torch.maximum((points - along[:, None] * axis).norm(dim=1) - 0.04, -along)


def test_a_hollow_with_a_tunnel_to_the_underside_is_filled(points):
    solid = sphere(points, RADIUS)
    pocket = torch.minimum(sphere(points, 0.2), tunnel(points, (0.0, 0.0, -1.0)))
    field = field_of(torch.maximum(solid, -pocket))
    filled = fill_unseen_space(field, ORBIT)
    volume = marching_cubes(field_of(solid)).volume
    assert marching_cubes(field).volume < 0.9 * volume
    assert marching_cubes(filled).volume == pytest.approx(volume, rel=0.02)
    inner = sphere(points, 0.3) < 0
    assert (filled.sdf.flatten()[inner] < 0).all()
    # Distances inside are those to the outside, to about a voxel.
    deep = inner & (pocket < -field.voxel_size) & (points[:, 2] > -0.1)
    error = filled.sdf.flatten()[deep] - solid[deep]
    assert error.abs().max() < 1.5 * field.voxel_size


def test_a_tunnel_towards_a_camera_stays(points):
    camera = cameras_at(torch.tensor([0.0]), torch.tensor([0.0]), 64)
    hole = tunnel(points, (1.0, 0.0, 0.0))
    field = field_of(torch.maximum(sphere(points, RADIUS), -hole))
    seen = fill_unseen_space(field, camera)
    in_hole = (hole < -0.01) & (points[:, 0] > 0.05)
    assert (seen.sdf.flatten()[in_hole] > 0).all()
    from_behind = cameras_at(torch.tensor([180.0]), torch.tensor([0.0]), 64)
    shadow = fill_unseen_space(field, from_behind).sdf.flatten()
    assert (shadow[in_hole & (sphere(points, RADIUS) < -0.05)] < 0).all()


def test_a_solid_in_plain_view_is_as_it_was(points):
    field = field_of(torch.minimum(sphere(points, 0.2, (0.3, 0, 0)), sphere(points, 0.15)))
    filled = fill_unseen_space(field, ORBIT)
    changed = filled.sdf != field.sdf
    # At most the slit where the balls meet.
    assert changed.float().mean() < 1e-3
    assert torch.equal(filled.rgb_logits, field.rgb_logits)


def test_what_no_camera_has_in_its_frame_stays(points):
    """A plate before the camera hides all behind it, of which the camera frames a part."""
    plate = (points - torch.tensor([0.4, 0, 0])).abs().amax(1) - 0.05
    ball = sphere(points, 0.3, (-0.2, 0, 0))
    camera = cameras_at(torch.tensor([0.0]), torch.tensor([0.0]), 64)
    zoom = torch.tensor([6.0, 6.0, 1.0])
    Ks = camera.Ks * zoom[:, None]
    Ks[:, :2, 2] = 32
    camera = Cameras(camera.viewmats, Ks, 64, 64)
    framed = camera.project(points, 0)[2]
    both = torch.minimum(plate, ball)
    filled = fill_unseen_space(field_of(both), camera).sdf.flatten()
    assert torch.equal(filled[~framed], both[~framed])
    between = framed & (points[:, 0] > 0.15) & (points[:, 0] < 0.3)
    between &= points[:, 1:].abs().amax(1) < 0.03
    assert between.any()
    assert (filled[between] < 0).all()
