"""Walls with print move to where the views agree; what is round, plain or truly hollow stays."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh

from hi3d.assets.parts import ObjectPart, RenderObject
from hi3d.cameras import orbit_cameras
from hi3d.rendering.rasterizer import render_views
from hi3d.surface.printed_walls import with_printed_walls
from hi3d.views import Views

HALF = np.array([0.3, 0.2, 0.4])


def views_of(mesh: trimesh.Trimesh, printed: bool = True) -> Views:
    """An orbit of a mesh with fine checks in its vertex colors."""
    points = np.asarray(mesh.vertices)
    checks = np.sin(50 * points[:, 0] + 31 * points[:, 1]) * np.sin(45 * points[:, 2]) > 0
    rgba = np.ones((len(points), 4), np.float32)
    rgba[checks & printed, :3] = [0.1, 0.2, 0.6]
    part = ObjectPart(
        points.astype(np.float32), mesh.faces, np.ones(4, np.float32), vertex_rgba=rgba
    )
    return render_views(RenderObject((part,)), orbit_cameras(20.0, 96)).views


def fine_box() -> trimesh.Trimesh:
    box = trimesh.creation.box(2 * HALF)
    return box.subdivide_to_size(0.04)


def dented(mesh: trimesh.Trimesh, depth: float) -> trimesh.Trimesh:
    """The wall at +x of a box, pushed in at two places."""
    vertices = np.array(mesh.vertices)
    for center in ((0.09, 0.15), (-0.09, -0.2), (0.08, -0.02), (-0.08, 0.22)):
        apart = np.square(vertices[:, 1:] - center).sum(1) / 0.06**2
        vertices[:, 0] -= np.where(vertices[:, 0] > HALF[0] - 1e-6, depth * np.exp(-apart), 0)
    return trimesh.Trimesh(vertices, mesh.faces, process=False)


def error(mesh: trimesh.Trimesh, true: trimesh.Trimesh) -> float:
    return float(np.abs(np.asarray(mesh.vertices) - np.asarray(true.vertices)).max())


def test_a_wall_that_print_has_bent_becomes_flat():
    box = fine_box()
    bent = dented(box, 0.05)
    assert error(with_printed_walls(bent, views_of(box)), box) < 0.004
    assert error(bent, box) > 0.04


@pytest.mark.parametrize("printed", [True, False])
def test_true_dents_and_plain_walls_stay(printed):
    box, dents = fine_box(), dented(fine_box(), 0.05)
    views = views_of(dents, printed) if printed else views_of(box, printed)
    assert error(with_printed_walls(dents, views), dents) == 0


def test_what_is_round_stays():
    can = trimesh.creation.cylinder(0.25, 0.8, sections=64).subdivide_to_size(0.1)
    moved = with_printed_walls(can, views_of(can))
    around = np.abs(np.asarray(can.vertices)[:, 2]) < 0.38
    assert np.abs((moved.vertices - can.vertices)[around]).max() < 0.004


def test_a_plane_far_from_its_side_moves_nothing(monkeypatch):
    box = fine_box()
    plane = np.array([1.0, 0.0, 0.0, 5.0])
    monkeypatch.setattr("hi3d.surface.printed_walls._agreed_plane", lambda *_: plane)
    assert error(with_printed_walls(box, views_of(box)), box) == 0


def test_views_without_an_object_change_nothing():
    box = fine_box()
    views = views_of(box)
    empty = replace(views, rgb=torch.ones_like(views.rgb), alpha=torch.zeros_like(views.alpha))
    assert error(with_printed_walls(dented(box, 0.05), empty), dented(box, 0.05)) == 0
