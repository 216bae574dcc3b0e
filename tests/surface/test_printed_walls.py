"""Walls with print move to where the views agree; what is round, plain or truly hollow stays."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh

from hi3d.assets.parts import ObjectPart, RenderObject
from hi3d.cameras import orbit_cameras
from hi3d.rendering.rasterizer import render_views
from hi3d.surface.color_agreement import ColorAgreement
from hi3d.surface.filled_pits import with_filled_pits
from hi3d.surface.grid import GridField
from hi3d.surface.meshing import MeshingConfig, smooth_surface, with_printed_walls
from hi3d.surface.printed_walls import PrintedWall
from hi3d.surface.ray_casting import RayCaster
from hi3d.surface.visual_hull import HALF_EXTENT, grid_points
from hi3d.views import Views

HALF = torch.tensor([0.3, 0.2, 0.4])
PITS = (
    (0.02, 0.2, 0.07, 0.06), (-0.08, -0.08, 0.08, 0.16), (0.05, -0.25, 0.06, 0.1),
    (0.1, 0.02, 0.06, 0.05), (-0.1, 0.28, 0.06, 0.08), (-0.1, -0.28, 0.05, 0.12),
)  # fmt: skip
"""y, z, radius and depth of pits in the wall at +x."""
NICHE = ((0.0, 0.0, 0.12, 0.2),)


def box_field(pits: tuple = (), resolution: int = 64) -> GridField:
    """A box with round pits."""
    points = grid_points(resolution, HALF_EXTENT, "cpu")
    apart = points.abs() - HALF
    sdf = apart.clamp_min(0).norm(dim=1) + apart.amax(1).clamp_max(0)
    for y, z, radius, depth in pits:
        around = (points[:, 1:] - torch.tensor([y, z])).norm(dim=1) - radius
        pit = torch.maximum(around, HALF[0] - depth - points[:, 0])
        sdf = torch.maximum(sdf, -pit)
    shape = (resolution,) * 3
    return GridField(sdf.reshape(shape), torch.zeros(*shape, 3), HALF_EXTENT)


def surface(field: GridField) -> trimesh.Trimesh:
    return smooth_surface(field, MeshingConfig())


def views_of(mesh: trimesh.Trimesh, printed: bool = True) -> Views:
    """An orbit of a mesh with fine checks in its vertex colors."""
    points = np.asarray(mesh.vertices)
    checks = np.sin(30 * points[:, 0] + 23 * points[:, 1]) * np.sin(25 * points[:, 2]) > 0
    rgba = np.ones((len(points), 4), np.float32)
    rgba[checks & printed, :3] = [0.1, 0.2, 0.6]
    part = ObjectPart(
        points.astype(np.float32), mesh.faces, np.ones(4, np.float32), vertex_rgba=rgba
    )
    return render_views(RenderObject((part,)), orbit_cameras(20.0, 96)).views


def finer(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    return trimesh.Trimesh(*trimesh.remesh.subdivide_to_size(mesh.vertices, mesh.faces, 0.02))


def fine_box() -> trimesh.Trimesh:
    return finer(trimesh.creation.box(2 * HALF.numpy()))


def depths(mesh: trimesh.Trimesh) -> np.ndarray:
    """How far behind the true wall at +x rays meet the mesh. [40, 40]"""
    y, z = torch.meshgrid(
        torch.linspace(-0.17, 0.17, 40), torch.linspace(-0.36, 0.36, 40), indexing="ij"
    )
    origins = torch.stack([torch.ones_like(y), y, z], dim=-1).reshape(-1, 3)
    caster = RayCaster(torch.tensor(mesh.vertices), torch.tensor(mesh.faces))
    distances = caster.distances(origins, torch.tensor([[-1.0, 0, 0]]).expand(len(origins), 3))
    return (distances.reshape(y.shape) - 1 + HALF[0]).numpy()


def wall_at(x: float) -> PrintedWall:
    """Given for the wall at +x."""
    outline = np.array([[1.0, 0, -0.2], [-1, 0, -0.2], [0, 1, -0.4], [0, -1, -0.4]])
    return PrintedWall(np.array([1.0, 0, 0]), x, np.array([[0.0, 1, 0], [0, 0, 1]]), outline)


def moved(field: GridField, views: Views) -> trimesh.Trimesh:
    return with_printed_walls(field, surface(field), MeshingConfig(), views)


@pytest.fixture(scope="module")
def box_views() -> Views:
    return views_of(fine_box())


def test_pits_that_print_has_made_are_filled_whatever_their_depth(box_views):
    field = box_field(PITS)
    assert np.percentile(depths(surface(field)), 99) > 0.1
    assert np.percentile(np.abs(depths(moved(field, box_views))), 99) < 0.002


def test_a_true_niche_is_told_from_the_pits_of_print(box_views):
    wall = wall_at(0.3)
    niche, pits = box_field(NICHE), box_field(PITS)
    inside = surface(niche)
    seen = ColorAgreement(views_of(finer(inside)), inside)
    torch.testing.assert_close(with_filled_pits(niche, wall, inside, seen).sdf, niche.sdf)
    dented = surface(pits)
    filled = with_filled_pits(pits, wall, dented, ColorAgreement(box_views, dented))
    assert np.percentile(np.abs(depths(surface(filled))), 99) < 0.01


def test_a_wall_with_a_true_niche_keeps_it():
    field = box_field(NICHE)
    before = surface(field)
    after = moved(field, views_of(finer(before)))
    assert np.median(depths(after)[18:22, 18:22]) > 0.19


def test_pits_that_no_view_speaks_against_stay():
    field = box_field(PITS)
    assert moved(field, views_of(fine_box(), printed=False)).volume == surface(field).volume


def test_what_is_round_stays():
    points = grid_points(64, HALF_EXTENT, "cpu")
    sdf = torch.maximum(points[:, :2].norm(dim=1) - 0.25, points[:, 2].abs() - 0.4)
    field = GridField(sdf.reshape(64, 64, 64), torch.zeros(64, 64, 64, 3), HALF_EXTENT)
    can = finer(trimesh.creation.cylinder(0.25, 0.8, sections=64))
    after = moved(field, views_of(can))
    around = np.linalg.norm(np.asarray(after.vertices)[:, :2], axis=1)
    side = np.abs(np.asarray(after.vertices)[:, 2]) < 0.37
    assert np.abs(around[side] - 0.25).max() < 0.004


def test_walls_that_silhouettes_contradict_move_nothing(box_views, monkeypatch):
    monkeypatch.setattr("hi3d.surface.meshing.find_printed_walls", lambda *_: [wall_at(0.28)])
    monkeypatch.setattr("hi3d.surface.printed_walls.MIN_DISAGREEMENT", 1.0)
    field = box_field()
    assert moved(field, box_views).volume == surface(field).volume
    monkeypatch.setattr("hi3d.surface.meshing.MAX_SILHOUETTE_LOSS", 1.0)
    assert moved(field, box_views).volume < surface(field).volume


def test_views_without_an_object_change_nothing(box_views):
    rgb, alpha = box_views.rgb, box_views.alpha
    empty = replace(box_views, rgb=torch.ones_like(rgb), alpha=torch.zeros_like(alpha))
    field = box_field(PITS)
    assert moved(field, empty).volume == surface(field).volume


def test_no_points_have_no_agreement():
    mesh = surface(box_field())
    agreement = ColorAgreement(views_of(mesh), mesh)
    none = np.zeros((0, 3))
    for found in (agreement.on_surface(none, none), agreement.on_plane(none, np.eye(3)[0])):
        assert len(found.variance) == len(found.alpha) == len(found.num_views) == 0
