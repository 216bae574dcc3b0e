"""Fusion of exact depth maps of a ball, and of maps with holes and faults."""

import math

import pytest
import torch

from hi3d.cameras import orbit_cameras
from hi3d.errors import InputError
from hi3d.surface.meshing import MeshingConfig, extract_mesh, mesh_to_trimesh
from hi3d.surface.tsdf import fuse_depth
from hi3d.views import Views

RADIUS = 0.4
RESOLUTION = 64


@pytest.fixture(scope="module")
def orbit(sphere_views) -> tuple[Views, torch.Tensor]:
    return sphere_views(orbit_cameras(20, 128, 8))


def test_the_visible_part_of_a_ball_has_its_radius_and_colours(orbit):
    views, depth = orbit
    field = fuse_depth(views, depth, RESOLUTION)
    mesh = extract_mesh(field, MeshingConfig(target_faces=0, smoothing_iterations=0))
    solid = mesh_to_trimesh(mesh)
    assert solid.is_watertight
    # Cameras at 1.5 and elevation 20 see these heights at 75 degrees or less.
    visible = (mesh.vertices[:, 2] > -0.22) & (mesh.vertices[:, 2] < 0.36)
    radii = mesh.vertices[visible].norm(dim=-1)
    # A voxel is 0.017: exact depth places the surface far within one.
    assert (radii - RADIUS).abs().mean() < 0.0005
    assert (radii - RADIUS).abs().max() < 0.006
    assert (mesh.vertex_rgb[visible] - 0.5 - mesh.vertices[visible]).abs().mean() < 0.01
    # Below, the hull's cone stays: its tip is where the tangents from the cameras meet the z axis.
    elevation, tangent = math.radians(20), math.asin(RADIUS / 1.5)
    tip = 1.5 * math.sin(elevation) - 1.5 * math.cos(elevation) * math.tan(elevation + tangent)
    assert mesh.vertices[:, 2].min().item() == pytest.approx(tip, abs=0.01)


def test_the_sign_and_size_of_the_field(orbit):
    views, depth = orbit
    field = fuse_depth(views, depth, RESOLUTION)
    truncation = 3 * field.voxel_size
    slanted = 0.405 * math.sqrt(0.5)
    points = torch.tensor([[0.0, 0, 0], [0.5, 0.5, 0.5], [slanted, 0, slanted], [0.39, 0, 0]])
    sdf, _ = field.query(points)
    assert sdf[0] == pytest.approx(-truncation)
    assert sdf[1] == pytest.approx(truncation)
    assert sdf[2] == pytest.approx(0.005, abs=0.002)
    assert sdf[3] == pytest.approx(-0.01, abs=0.002)
    assert torch.isfinite(field.sdf).all()


def test_holes_leave_the_ball(orbit):
    views, depth = orbit
    depth = depth.clone()
    depth[:, 40:44] = torch.nan
    depth[:, :, 60:63] = torch.inf
    field = fuse_depth(views, depth, RESOLUTION)
    volume = mesh_to_trimesh(extract_mesh(field, cameras=views.cameras)).volume
    clean = mesh_to_trimesh(
        extract_mesh(fuse_depth(*orbit, RESOLUTION), cameras=views.cameras)
    ).volume
    assert volume == pytest.approx(clean, rel=0.03)


def test_a_view_that_sees_through_empties_the_ball(orbit):
    views, depth = orbit
    wrong = depth.clone()
    wrong[3] = torch.where(wrong[3] > 0, 5.0, 0.0)
    inside = torch.zeros(1, 3)
    assert fuse_depth(views, depth, RESOLUTION).query(inside)[0] < 0
    assert fuse_depth(views, wrong, RESOLUTION).query(inside)[0] > 0


def test_wrong_input_is_one_line(orbit, sphere_views):
    views, depth = orbit
    with pytest.raises(InputError, match="no view shows an object"):
        fuse_depth(Views(views.rgb, 0 * views.alpha, views.cameras), depth, RESOLUTION)
    with pytest.raises(InputError, match="outside the cube"):
        fuse_depth(*sphere_views(orbit_cameras(20, 128, 8), 0.03), 12)
    with pytest.raises(ValueError, match="depth must be"):
        fuse_depth(views, depth[:2], RESOLUTION)
