"""Scores of meshes, against distances and volumes worked out by hand."""

import pytest
import torch
import trimesh

from hi3d.cameras import orbit_cameras
from hi3d.errors import InputError
from hi3d.evaluation.mesh_metrics import (
    MeshMetricsConfig,
    chamfer_distance,
    f_score,
    inside_grid,
    sample_surface,
    score_mesh,
    seen_chamfer_distance,
    volume_iou,
)
from hi3d.mesh import SurfaceMesh


def from_trimesh(mesh: trimesh.Trimesh, shift: tuple[float, float, float] = (0, 0, 0)):
    vertices = torch.tensor(mesh.vertices, dtype=torch.float32) + torch.tensor(shift)
    return SurfaceMesh(vertices, torch.tensor(mesh.faces), torch.zeros_like(vertices))


def sphere(radius: float) -> SurfaceMesh:
    return from_trimesh(trimesh.creation.icosphere(subdivisions=5, radius=radius))


def box(sides=(0.5, 0.5, 0.5), shift=(0.0, 0.0, 0.0)) -> SurfaceMesh:
    return from_trimesh(trimesh.creation.box(sides), shift)


def test_chamfer_of_concentric_spheres_is_the_difference_of_radii():
    # Sampling lengthens it by spacing^2 / gap: spacing 0.008 at 30k points, so about 2e-4.
    assert chamfer_distance(sphere(0.4), sphere(0.5), 30_000) == pytest.approx(0.1, abs=1e-3)


def test_chamfer_of_parallel_squares_is_their_distance():
    square = torch.tensor([[-0.5, -0.5, 0.0], [0.5, -0.5, 0], [0.5, 0.5, 0], [-0.5, 0.5, 0]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    low = SurfaceMesh(square, faces, torch.zeros(4, 3))
    high = SurfaceMesh(square + torch.tensor([0, 0, 0.2]), faces, torch.zeros(4, 3))
    assert chamfer_distance(low, high, 20_000) == pytest.approx(0.2, abs=1e-3)


def test_chamfer_of_a_mesh_with_itself_is_the_sampling_noise():
    # Area 3.14 * 0.8^2 = 2.0 holds 20k points: the mean distance to the nearest is
    # 0.5 / sqrt(points per area) = 0.005.
    assert chamfer_distance(sphere(0.4), sphere(0.4), 20_000) == pytest.approx(0.005, rel=0.1)


def test_iou_of_concentric_spheres_is_the_ratio_of_volumes():
    iou = volume_iou(sphere(0.4), sphere(0.5), resolution=64, half_extent=0.55)
    assert iou == pytest.approx(0.8**3, rel=0.01)


def test_iou_of_shifted_boxes():
    # Shifted by half a side: they share half of each, 1/2 / (1 + 1/2) = 1/3. Faces lie midway
    # between cell centres, so the grid counts exactly.
    assert volume_iou(box(), box(shift=(0.25, 0, 0))) == pytest.approx(1 / 3)
    assert volume_iou(box(), box(shift=(0.75, 0, 0))) == 0
    assert volume_iou(box(), box()) == 1


def test_iou_does_not_depend_on_orientation_or_a_hole():
    inverted = SurfaceMesh(box().vertices, box().faces.flip(-1), box().vertex_rgb)
    assert volume_iou(inverted, box()) == 1
    ball = sphere(0.4)
    open_ball = SurfaceMesh(ball.vertices, ball.faces[30:], ball.vertex_rgb)
    assert volume_iou(open_ball, ball) > 0.99


def joined(first: SurfaceMesh, second: SurfaceMesh) -> SurfaceMesh:
    return SurfaceMesh(
        torch.cat([first.vertices, second.vertices]),
        torch.cat([first.faces, second.faces + len(first.vertices)]),
        torch.cat([first.vertex_rgb, second.vertex_rgb]),
    )


def inverted(mesh: SurfaceMesh) -> SurfaceMesh:
    return SurfaceMesh(mesh.vertices, mesh.faces.flip(-1), mesh.vertex_rgb)


@pytest.mark.parametrize(("resolution", "half_extent"), [(64, 0.55), (64, 1.0), (41, 0.55)])
def test_a_closed_hollow_box_is_as_solid_as_it_looks(resolution, half_extent):
    # Walls of 0.03: by winding numbers alone 1 - 0.88^3 = 0.32 of the solid box.
    outer, inner = box((0.5, 0.5, 0.5)), inverted(box((0.44, 0.44, 0.44)))
    hollow = joined(outer, inner)
    assert volume_iou(hollow, outer, resolution, half_extent) == 1


def test_a_shell_without_thickness_is_solid_and_an_open_one_is_not():
    shell = joined(box(), inverted(box()))  # winding number 0 everywhere
    assert volume_iou(shell, box(), 44, 0.55) == 1
    # A box of two walls with an opening of 0.2 in the top keeps its walls alone.
    wall = 0.04
    outside, inside = trimesh.creation.box((0.6,) * 3), trimesh.creation.box((0.6 - 2 * wall,) * 3)
    lid_hole = trimesh.creation.box((0.2, 0.2, 0.2))
    lid_hole.apply_translation((0, 0, 0.3))
    grid = inside_grid(from_trimesh(outside), 64, 0.55)
    walls = grid & ~inside_grid(from_trimesh(inside), 64, 0.55)
    walls &= ~inside_grid(from_trimesh(lid_hole), 64, 0.55)
    open_box = from_trimesh(marched(walls))
    found = inside_grid(open_box, 64, 0.55)
    assert (found != walls).float().sum() < 0.05 * walls.sum()


def marched(occupied: torch.Tensor) -> trimesh.Trimesh:
    """The boundary of occupied cells of a grid over [-0.55, 0.55]^3."""
    from skimage.measure import marching_cubes

    padded = torch.nn.functional.pad(occupied.float(), (1,) * 6).numpy()
    vertices, faces, _, _ = marching_cubes(padded, 0.5)
    return trimesh.Trimesh((vertices - 0.5) * 1.1 / len(occupied) - 0.55, faces[:, ::-1])


def test_seen_chamfer_ignores_what_no_camera_sees():
    cameras = orbit_cameras(20, 64, 8)
    with_core = joined(sphere(0.4), sphere(0.1))
    alone = seen_chamfer_distance(sphere(0.4), sphere(0.4), cameras)
    assert seen_chamfer_distance(with_core, sphere(0.4), cameras) == pytest.approx(alone)
    assert chamfer_distance(with_core, sphere(0.4), 20_000) > 0.008
    grown = seen_chamfer_distance(sphere(0.45), sphere(0.4), cameras)
    assert grown == pytest.approx(0.05, abs=2e-3)
    with pytest.raises(InputError, match="no camera sees"):
        seen_chamfer_distance(box(shift=(0, 0, 9)), box(), cameras)


def test_inside_grid_is_indexed_x_y_z():
    inside = inside_grid(box((1.0, 0.5, 0.25)), 16, 1.0)
    assert inside.shape == (16, 16, 16)
    assert [int(inside.any(dim=d[0]).any(dim=d[1]).sum()) for d in ((2, 1), (2, 0), (1, 0))] == [
        8,
        4,
        2,
    ]


def test_f_score_counts_matched_points():
    assert f_score(sphere(0.4), sphere(0.41), 0.02, 20_000) > 0.99
    assert f_score(sphere(0.4), sphere(0.45), 0.02, 5_000) == 0
    # The second box is far away: all of pred is matched, half of gt: 2 * 1 * 0.5 / 1.5.
    near, far = box(), box(shift=(5, 0, 0))
    both = SurfaceMesh(
        torch.cat([near.vertices, far.vertices]),
        torch.cat([near.faces, far.faces + 8]),
        torch.zeros(16, 3),
    )
    assert f_score(near, both, 0.05, 20_000) == pytest.approx(2 / 3, abs=0.01)


def test_samples_are_uniform_and_repeatable():
    points = sample_surface(box((1.0, 0.5, 0.25)), 50_000)
    assert torch.equal(points, sample_surface(box((1.0, 0.5, 0.25)), 50_000))
    assert not torch.equal(points, sample_surface(box((1.0, 0.5, 0.25)), 50_000, seed=1))
    # Of the area 2 (0.5 + 0.25 + 0.125) = 1.75 the faces with |z| = 0.125 hold 1.0.
    share = (points[:, 2].abs() > 0.125 - 1e-6).float().mean().item()
    assert share == pytest.approx(1 / 1.75, abs=0.01)
    assert points.mean(0).abs().max() < 0.01


def test_score_mesh_is_the_single_scores():
    config = MeshMetricsConfig(num_samples=5_000, resolution=32, seed=3)
    scores = score_mesh(sphere(0.4), box(), config)
    assert scores.chamfer_distance == chamfer_distance(sphere(0.4), box(), 5_000, 3)
    assert scores.volume_iou == volume_iou(sphere(0.4), box(), 32)
    assert scores.f_score == f_score(sphere(0.4), box(), 0.02, 5_000, 3)


def test_bad_input_is_one_line():
    flat = SurfaceMesh(torch.zeros(3, 3), torch.tensor([[0, 1, 2]]), torch.zeros(3, 3))
    with pytest.raises(InputError, match="no surface"):
        chamfer_distance(flat, box(), 100)
    tiny = from_trimesh(trimesh.creation.icosphere(subdivisions=1, radius=1e-3))
    with pytest.raises(InputError, match="encloses a volume"):
        volume_iou(tiny, tiny, 16)
    with pytest.raises(InputError, match="num_samples is 0"):
        MeshMetricsConfig(num_samples=0)
