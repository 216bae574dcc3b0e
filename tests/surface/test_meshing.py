import math

import numpy as np
import pytest
import torch
import trimesh

from hi3d.cameras import orbit_cameras
from hi3d.errors import InputError
from hi3d.surface.grid import GridField
from hi3d.surface.meshing import (
    MeshingConfig,
    collapsed_carefully,
    decimated,
    extract_mesh,
    mesh_to_trimesh,
    without_floaters,
    without_folds,
)
from hi3d.surface.unseen_side import (
    closed_gaps,
    flatten_unseen_side,
    harmonic,
    seen_vertices,
)
from hi3d.surface.visual_hull import grid_points


def field_of(sdf_of_points, resolution: int = 40, half_extent: float = 0.55) -> GridField:
    points = grid_points(resolution, half_extent, "cpu").reshape(*(resolution,) * 3, 3)
    return GridField(sdf_of_points(points), 4 * points, half_extent)


def ball(points, radius=0.4, center=(0.0, 0.0, 0.0)):
    return (points - torch.tensor(center)).norm(dim=-1) - radius


def box(points, half_sides):
    outside = points.abs() - torch.tensor(half_sides)
    return outside.clamp_min(0).norm(dim=-1) + outside.amax(-1).clamp_max(0)


def test_a_ball_is_closed_oriented_and_has_its_volume_and_colors():
    mesh = extract_mesh(field_of(ball), MeshingConfig(target_faces=0))
    solid = mesh_to_trimesh(mesh)
    assert solid.is_watertight
    assert solid.is_winding_consistent
    assert solid.volume == pytest.approx(4 / 3 * math.pi * 0.4**3, rel=0.01)
    assert torch.allclose(mesh.vertices.norm(dim=-1), torch.tensor(0.4), atol=0.002)
    assert torch.allclose(mesh.vertex_rgb, torch.sigmoid(4 * mesh.vertices), atol=0.01)


def test_what_leaves_the_grid_is_closed_at_its_boundary():
    field = field_of(lambda p: p[..., 2], 20)
    mesh = mesh_to_trimesh(extract_mesh(field, MeshingConfig(target_faces=0)))
    assert mesh.is_watertight
    assert (
        1.1 * 1.1 * 0.55
        < mesh.volume
        < (1.1 + 2 * field.voxel_size) ** 2 * (0.55 + field.voxel_size)
    )


def test_decimation_reaches_the_target_and_stays_closed():
    field = field_of(ball)
    mesh = mesh_to_trimesh(extract_mesh(field, MeshingConfig(target_faces=1000)))
    assert len(mesh.faces) <= 1000
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(4 / 3 * math.pi * 0.4**3, rel=0.02)


def test_decimation_keeps_silhouettes():
    big = field_of(lambda p: box(p, (0.35, 0.3, 0.25)), 48)
    before = mesh_to_trimesh(extract_mesh(big, MeshingConfig(target_faces=0)))
    after = decimated(before, 1500)
    assert len(after.faces) <= 1500
    a, b = shadow(before), shadow(after)
    assert (a & b).sum() / (a | b).sum() > 0.995


def shadow(mesh):
    """Which points of a 64 x 64 grid an object covers, seen along an oblique direction."""
    u = np.linspace(-0.6, 0.6, 64)
    direction = np.array([0.6, 0.48, -0.64])
    across, up = np.array([-0.8, 0.36, -0.48]), np.array([0.0, 0.8, 0.6])
    starts = u[:, None, None] * across + u[None, :, None] * up - 2 * direction
    starts = starts.reshape(-1, 3)
    return mesh.ray.intersects_any(starts, np.broadcast_to(direction, starts.shape))


def test_where_the_fast_collapse_leaves_the_surface_open_the_careful_one_reaches_the_target():
    torus = trimesh.creation.torus(0.3, 0.1, major_sections=48, minor_sections=24)
    simple = collapsed_carefully(torus, 400)
    assert len(simple.faces) <= 400
    assert simple.is_watertight
    assert simple.volume == pytest.approx(torus.volume, rel=0.03)


def test_decimation_that_asks_for_too_little_returns_a_closed_mesh():
    torus = trimesh.creation.torus(0.3, 0.1, major_sections=24, minor_sections=12)
    small = decimated(torus, 4)
    assert small.is_watertight
    assert small.volume > 0


def test_folded_faces_cancel():
    faces = np.array([[0, 1, 2], [3, 4, 5], [2, 1, 0], [1, 2, 3]])
    assert without_folds(faces).tolist() == [[3, 4, 5], [1, 2, 3]]


def test_floaters_and_hollows_are_removed():
    big = trimesh.creation.icosphere(subdivisions=2, radius=0.4)
    hollow = trimesh.creation.icosphere(subdivisions=2, radius=0.2)
    hollow.invert()
    floater = trimesh.creation.icosphere(subdivisions=1, radius=0.03)
    floater.apply_translation([0.5, 0, 0])
    twin = trimesh.creation.icosphere(subdivisions=2, radius=0.3)
    twin.apply_translation([0, 2, 0])
    kept = without_floaters(trimesh.util.concatenate([big, hollow, floater, twin]), 0.02)
    assert kept.volume == pytest.approx(big.volume + twin.volume)
    assert kept.body_count == 2


def test_smoothing_removes_noise_and_keeps_the_volume():
    noise = 0.008 * torch.randn(40, 40, 40, generator=torch.Generator().manual_seed(0))
    field = field_of(lambda p: ball(p) + noise)
    rough = extract_mesh(field, MeshingConfig(target_faces=0, smoothing_iterations=0))
    smooth = extract_mesh(field, MeshingConfig(target_faces=0, smoothing_iterations=10))
    assert smooth.vertices.norm(dim=-1).std() < 0.7 * rough.vertices.norm(dim=-1).std()
    assert mesh_to_trimesh(smooth).volume == pytest.approx(mesh_to_trimesh(rough).volume, rel=0.01)
    assert mesh_to_trimesh(smooth).is_watertight


def test_an_empty_field_is_a_clear_error():
    with pytest.raises(InputError, match="no inside"):
        extract_mesh(field_of(lambda p: torch.ones(p.shape[:-1])))


def test_the_cone_below_a_flat_base_is_flattened():
    # What silhouettes at 30 degrees leave below a cylinder that stands on z = -0.2: a cone of
    # radius 0.3 and depth 0.3 tan(30 deg) = 0.173.
    def cylinder_with_cone(p):
        radius = p[..., :2].norm(dim=-1)
        cone = -(p[..., 2] + 0.2) - (0.3 - radius) * math.tan(math.radians(30))
        return torch.stack([radius - 0.3, p[..., 2] - 0.3, 0.866 * cone]).amax(0)

    field, cameras = field_of(cylinder_with_cone, 64), orbit_cameras(30.0, 32)
    plain = extract_mesh(field, MeshingConfig(flatten_unseen_side=False), cameras)
    flat = extract_mesh(field, MeshingConfig(), cameras)
    assert plain.vertices[:, 2].min() < -0.36
    assert flat.vertices[:, 2].min() > -0.23
    assert mesh_to_trimesh(flat).is_watertight
    assert mesh_to_trimesh(flat).volume == pytest.approx(math.pi * 0.3**2 * 0.5, rel=0.02)


def test_a_noisy_cone_that_the_grid_cuts_off_is_flattened():
    """Folds, spots that face up, and a cap where the cone leaves the grid: all go."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(1, 1, 32, 32, 32, generator=generator)
    noise = torch.nn.functional.interpolate(coarse, (64,) * 3, mode="trilinear")[0, 0]

    def cylinder_with_cone(p):
        radius = p[..., :2].norm(dim=-1)
        cone = -(p[..., 2] + 0.45) - (0.3 - radius) * math.tan(math.radians(30))
        noisy_cone = 0.866 * cone + 0.04 * noise * (p[..., 2] < -0.45)
        return torch.stack([radius - 0.3, p[..., 2] - 0.3, noisy_cone]).amax(0)

    field, cameras = field_of(cylinder_with_cone, 64), orbit_cameras(30.0, 32)
    plain = extract_mesh(field, MeshingConfig(flatten_unseen_side=False), cameras)
    assert plain.vertices[:, 2].min() < -0.54
    mesh = extract_mesh(field, MeshingConfig(smoothing_iterations=3), cameras)
    assert mesh_to_trimesh(mesh).is_watertight
    assert -0.5 < mesh.vertices[:, 2].min() < -0.43


def seen_limit(radius: float) -> float:
    """Polar angle from the south of the lowest points of a round surface that cameras at elevation
    20 and distance 1.5 see."""
    return math.radians(20) + math.asin(radius / 1.5)


@pytest.mark.parametrize("radius", [0.4, 0.5])  # the cone of the second leaves the grid
def test_the_cone_below_a_ball_becomes_round(radius):
    polar = seen_limit(radius)  # the tangent cone there ends at -radius / cos(polar)

    def ball_with_cone(p):
        across, apex = p[..., :2].norm(dim=-1), -radius / math.cos(polar)
        cone = across * math.sin(polar) - (p[..., 2] - apex) * math.cos(polar)
        return torch.where(p[..., 2] > -radius * math.cos(polar), ball(p, radius), cone)

    field, cameras = field_of(ball_with_cone, 64), orbit_cameras(20.0, 32)
    plain = extract_mesh(field, MeshingConfig(flatten_unseen_side=False), cameras)
    round_ = extract_mesh(field, MeshingConfig(), cameras)
    errors = [(mesh.vertices.norm(dim=-1) - radius).abs() for mesh in (plain, round_)]
    assert plain.vertices[:, 2].min() < -radius - 0.04
    assert errors[1].max() < 0.03
    assert errors[1].max() < 0.6 * errors[0].max()
    assert errors[1].mean() < 0.7 * errors[0].mean()


def test_a_saucer_that_turns_under_is_flat_below():
    """Its rim has turned away from the cameras, as a ball's, but so fast that it is soon level."""
    polar, edge, fillet = seen_limit(0.4), 0.3, 0.1
    tangent = edge + fillet * math.sin(polar)

    def saucer_with_cone(p):
        across, z = p[..., :2].norm(dim=-1), p[..., 2]
        outside = torch.stack([across - edge, z.abs()], -1)
        saucer = outside.clamp_min(0).norm(dim=-1) - fillet
        cone = (across - edge) * math.sin(polar) - z * math.cos(polar) - fillet
        return torch.minimum(saucer, torch.stack([cone, z, across - tangent]).amax(0))

    field, cameras = field_of(saucer_with_cone, 96), orbit_cameras(20.0, 32)
    plain = extract_mesh(field, MeshingConfig(flatten_unseen_side=False), cameras)
    flat = extract_mesh(field, MeshingConfig(), cameras)
    assert plain.vertices[:, 2].min() < -0.3
    assert -0.115 < flat.vertices[:, 2].min() < -0.085


def test_a_bowl_with_straight_walls_is_flat_below():
    """Its walls have nearly turned away, but do not go on turning: they would end in a tip."""
    ray, edge, base = seen_limit(0.2) - 0.05, 0.25, -0.2
    wall = ray + 0.3

    def bowl_with_cone(p):
        across, z = p[..., :2].norm(dim=-1) - edge, p[..., 2] - base
        sides = [across * math.sin(angle) - z * math.cos(angle) for angle in (wall, ray)]
        return torch.stack([*sides, z - 0.3]).amax(0)

    field, cameras = field_of(bowl_with_cone, 96), orbit_cameras(20.0, 32)
    plain = extract_mesh(field, MeshingConfig(flatten_unseen_side=False), cameras)
    flat = extract_mesh(field, MeshingConfig(), cameras)
    assert plain.vertices[:, 2].min() < base - 0.1
    assert base - 0.02 < flat.vertices[:, 2].min() < base + 0.02


def test_cameras_below_turn_the_rule_around():
    ball_mesh = trimesh.creation.icosphere(subdivisions=4, radius=0.4)
    above = flatten_unseen_side(ball_mesh, orbit_cameras(20.0, 32).positions.numpy())
    below = flatten_unseen_side(ball_mesh, orbit_cameras(-20.0, 32).positions.numpy())
    upper = ball_mesh.vertices[:, 2] > 0
    assert np.array_equal(above.vertices[upper], ball_mesh.vertices[upper])
    assert np.array_equal(below.vertices[~upper], ball_mesh.vertices[~upper])
    for flat in (above, below):
        change = np.abs(flat.vertices - ball_mesh.vertices).max(0)
        assert 0.01 < change[2] < 0.07
        assert change[:2].max() == 0


def test_each_leg_keeps_its_own_height():
    def table(p):
        top = box(p - torch.tensor([0, 0, 0.2]), (0.4, 0.4, 0.08))
        x, y, z = p.unbind(-1)
        long = box(torch.stack([x - 0.3, y, z + 0.1], -1), (0.07, 0.3, 0.3))
        short = box(torch.stack([x + 0.3, y, z], -1), (0.07, 0.3, 0.2))
        return torch.stack([top, long, short]).amin(0)

    field, cameras = field_of(table, 64), orbit_cameras(20.0, 32)
    before = mesh_to_trimesh(extract_mesh(field, MeshingConfig(target_faces=0)))
    after = mesh_to_trimesh(extract_mesh(field, MeshingConfig(target_faces=0), cameras))
    assert np.abs(after.vertices - before.vertices).max() < 0.04


def test_a_thin_dish_is_not_turned_inside_out():
    def dish(p):  # a shell 0.05 thick, of a ball so large that no camera sees its underside
        radius = (p - torch.tensor([0.0, 0.0, 1.2])).norm(dim=-1)
        return torch.stack([(radius - 1.2).abs() - 0.025, p[..., 2] - 0.08]).amax(0)

    mesh = mesh_to_trimesh(extract_mesh(field_of(dish, 64), MeshingConfig(target_faces=0)))
    flat = flatten_unseen_side(mesh, orbit_cameras(30.0, 32).positions.numpy())
    assert flat.is_watertight
    middle = np.linalg.norm(flat.vertices[:, :2], axis=1) < 0.1
    upper, lower = (flat.vertices[middle & side, 2] for side in _sides(mesh))
    assert upper.min() - lower.max() > 0.01


def _sides(mesh):
    up = mesh.vertex_normals[:, 2] > 0
    return up, ~up


def test_visibility_knows_occlusion_and_grazing():
    mesh = trimesh.creation.icosphere(subdivisions=3, radius=0.2)
    cover = trimesh.creation.box(extents=(0.6, 0.6, 0.02))
    cover.apply_translation([0, 0, 0.4])
    both = trimesh.util.concatenate([mesh, cover])
    above = np.array([[0.01, 0.0, 3.0]])
    seen = seen_vertices(mesh, above)
    assert seen[mesh.vertices[:, 2] > 0.05].all()
    assert not seen[mesh.vertices[:, 2] < 0].any()
    assert not seen_vertices(both, above)[: len(mesh.vertices)].any()


def test_gaps_up_to_six_edges_are_closed_and_spots_do_not_grow():
    x, y = np.meshgrid(np.arange(20), np.arange(20), indexing="ij")
    corner = (20 * x + y)[:-1, :-1].ravel()
    faces = np.concatenate(
        [
            np.stack([corner, corner + 20, corner + 21], 1),
            np.stack([corner, corner + 21, corner + 1], 1),
        ]
    )
    sheet = trimesh.Trimesh(np.stack([x, y, 0 * x], -1).reshape(-1, 3), faces, process=False)
    left = x.ravel() < 5
    assert closed_gaps(sheet, left | (x.ravel() >= 11), 3).all()  # a strip of six
    wide = left | (x.ravel() >= 12)
    assert np.array_equal(closed_gaps(sheet, wide, 3), wide)
    spot = np.arange(400) == 210
    assert np.array_equal(closed_gaps(sheet, spot, 3), spot)


def test_harmonic_values_by_hand():
    # An octahedron with its two poles free: each becomes the mean of the four on the equator.
    mesh = trimesh.creation.icosphere(subdivisions=0)
    octahedron = trimesh.convex.convex_hull(np.concatenate([np.eye(3), -np.eye(3)]))
    values = octahedron.vertices @ [1.0, 0.0, 0.0] + octahedron.vertices[:, 1] ** 2 * 3
    free = np.abs(octahedron.vertices[:, 2]) > 0.5
    assert harmonic(octahedron, values, free)[free] == pytest.approx([1.5, 1.5])
    everywhere = np.ones(len(mesh.vertices), dtype=bool)
    assert np.isfinite(harmonic(mesh, mesh.vertices[:, 2], everywhere)).all()


@pytest.mark.parametrize("key", ["target_faces", "smoothing_iterations"])
@pytest.mark.parametrize("value", [-1, math.nan])
def test_settings_out_of_their_range_are_one_line(key, value):
    with pytest.raises(InputError, match=rf"^meshing\.{key} is .*: give a number from 0 to"):
        MeshingConfig(**{key: value})
