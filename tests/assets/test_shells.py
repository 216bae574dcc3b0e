"""Which back sides are drawn: those of shells are not, those of objects wound the wrong way are."""

from dataclasses import replace

import numpy as np
import pytest
import trimesh

from hi3d.assets import shells
from hi3d.assets.load import load_object
from hi3d.assets.parts import ObjectPart
from hi3d.assets.shells import with_seen_sides

ORANGE, BLUE, BLACK = (1.0, 0.6, 0.0, 1.0), (0.0, 0.0, 1.0, 1.0), (0.0, 0.0, 0.0, 1.0)


def part(mesh, color=ORANGE, inverted=False, **look):
    """A single-sided part."""
    faces = mesh.faces[:, ::-1] if inverted else mesh.faces
    look = {"single_sided": True, **look}
    return ObjectPart(mesh.vertices, np.array(faces), np.array(color, np.float32), **look)


def box(size=1.0, at=(0.0, 0.0, 0.0)):
    return trimesh.creation.box((size,) * 3, trimesh.transformations.translation_matrix(at))


def ball(radius=1.0):
    return trimesh.creation.icosphere(subdivisions=3, radius=radius)


def culled(*parts):
    """Share of each color's triangles whose backs are left out."""
    found = with_seen_sides(parts)
    shares = []
    for entry in parts:
        same = [p for p in found if np.array_equal(p.base_color_factor, entry.base_color_factor)]
        total = sum(len(p.faces) for p in same)
        assert total == len(entry.faces)
        shares.append(sum(len(p.faces) for p in same if p.single_sided) / total)
    return shares


@pytest.mark.parametrize("single_sided", [True, False])
def test_coincident_shells_show_on_their_fronts(single_sided):
    inside = part(box(), BLUE, inverted=True, single_sided=single_sided)
    assert culled(part(box(), single_sided=single_sided), inside) == [1, 1]


def test_coincident_shells_of_other_diagonals_and_finer_triangles():
    outside = box()
    turned = trimesh.Trimesh(*_with_other_diagonals(outside), process=False)
    assert culled(part(outside), part(turned, BLUE, inverted=True)) == [1, 1]
    fine = outside.subdivide().subdivide()
    assert culled(part(outside), part(fine, BLUE, inverted=True)) == [1, 1]


@pytest.mark.parametrize("few", [0, 10_000])
def test_coincident_shells_that_share_few_corners(monkeypatch, few):
    """A bottle's label and glass on one face of its inside."""
    monkeypatch.setattr(shells, "FEW_TRIANGLES", few)
    inside = part(box(), BLUE, inverted=True)
    lower = trimesh.creation.box(bounds=[[-0.5, -0.5, -0.5], [0.5, 0.5, 0.2]])
    upper = trimesh.creation.box(bounds=[[-0.5, -0.5, 0.2], [0.5, 0.5, 0.5]])
    lower.update_faces(lower.face_normals[:, 2] < 0.5)
    upper.update_faces(upper.face_normals[:, 2] > -0.5)
    assert culled(part(lower), part(upper, BLACK), inside) == [1, 1, 1]


def _with_other_diagonals(mesh):
    """The box with each square cut along its other diagonal."""
    faces = []
    for first, second in mesh.face_adjacency[mesh.face_adjacency_angles < 1e-6]:
        shared = np.intersect1d(mesh.faces[first], mesh.faces[second])
        a = np.setdiff1d(mesh.faces[first], shared)[0]
        b = np.setdiff1d(mesh.faces[second], shared)[0]
        for s in shared:
            corners = [a, b, s]
            normal = np.cross(*(mesh.vertices[corners[1:]] - mesh.vertices[a]))
            faces.append(corners if normal @ mesh.face_normals[first] > 0 else [b, a, s])
    return mesh.vertices, np.array(faces)


@pytest.mark.parametrize("gap", [0.01, 0.05])
@pytest.mark.parametrize("shape", [box, ball])
def test_inverted_hulls_show_on_their_fronts(shape, gap):
    hull = part(shape(1 + gap), BLACK, inverted=True)
    assert culled(part(shape()), hull) == [0, 1]
    assert culled(hull, part(shape(), single_sided=False)) == [1, 0]


def test_a_hull_of_several_pieces_around_a_bent_object():
    path = trimesh.creation.torus(0.4, 0.1)
    wide = trimesh.creation.torus(0.4, 0.115)
    assert culled(part(path), part(wide, BLACK, inverted=True)) == [0, 1]
    sides = box(1.05)
    sides.unmerge_vertices()  # hard edges come apart when they are moved along their normals
    sides.vertices = sides.vertices + 0.002 * np.repeat(sides.face_normals, 3, axis=0)
    assert culled(part(box()), part(sides, BLACK, inverted=True)) == [0, 1]


@pytest.mark.parametrize("inverted", [True, False])
def test_objects_wound_the_wrong_way_stay_whole(inverted):
    pot = trimesh.creation.annulus(0.4, 0.45, 0.6)
    assert culled(part(box(), inverted=inverted)) == [0]
    assert culled(part(ball(), inverted=inverted)) == [0]
    assert culled(part(pot, inverted=inverted)) == [0]
    # Two separate things, one in the other or side by side, wound alike or not.
    for other in (True, False):
        inner = part(ball(0.2), BLUE, inverted=other)
        assert culled(part(box(), inverted=inverted), inner) == [0, 0]
        beside = part(box(1.0, (1.03, 0, 0)), BLUE, inverted=other)
        assert culled(part(box(), inverted=inverted), beside) == [0, 0]


def test_walls_of_two_materials_wound_the_wrong_way_stay_whole():
    """Outside and inside meet at the rim: they are one piece, not a hull and its object."""
    pot = trimesh.creation.annulus(0.45, 0.47, 0.6)
    radius = np.linalg.norm(pot.triangles_center[:, :2], axis=1)
    outer = radius > 0.46
    outside, inside = (replace(part(pot, c, True), faces=pot.faces[m][:, ::-1]) for c, m in (
        (ORANGE, outer), (BLUE, ~outer)
    ))  # fmt: skip
    assert culled(outside, inside) == [0, 0]


def test_a_label_wound_the_wrong_way_stays():
    label = trimesh.Trimesh([[-0.4, -0.4, 0.51], [0.4, -0.4, 0.51], [0, 0.4, 0.51]], [[0, 2, 1]])
    assert culled(part(box()), part(label, BLUE)) == [0, 0]


def test_a_cover_with_a_picture_wound_the_wrong_way_stays():
    """Outlines have one color."""
    cover = box(1.02)
    texture = np.zeros((2, 2, 4), np.uint8)
    texture[0], texture[1] = 255, 128
    uvs = (cover.vertices[:, :2] / 1.02 + 0.5).astype(np.float32) * 0.98
    look = {"uvs": uvs, "texture": texture}
    assert culled(part(box()), part(cover, (*BLACK[:3], 0.9), True, **look))[1] == 1  # black
    assert culled(part(box()), part(cover, (1, 1, 1, 1), True, **look)) == [0, 0]


def test_a_sheet_under_a_box_keeps_its_other_side():
    """The box stands on part of the sheet: from below, all of the sheet is seen."""
    sheet = trimesh.Trimesh([[-3, -3, -0.5], [3, -3, -0.5], [0, 3, -0.5]], [[0, 1, 2]])
    assert culled(part(sheet, BLUE), part(box()))[0] == 0


def test_glass_and_double_sided_hulls_stay():
    for look in ({"single_sided": False}, {"alpha_mode": "BLEND"}):
        hull = part(box(1.05), (0.0, 0.0, 0.0, 0.5), inverted=True, **look)
        assert culled(part(box()), hull) == [0, 0]


def test_materials_of_gltf_say_how_many_sides_they_have(gltf, tmp_path):
    """Outline and walls as files hold them."""
    outside, hull = box(), box(1.05)
    for mesh, faces, material in ((outside, outside.faces, 0), (hull, hull.faces[:, ::-1], 1)):
        indices = gltf.accessor(np.array(faces, np.uint32).reshape(-1, 1))
        gltf.mesh(mesh.vertices.astype(np.float32), indices=indices, material=material)
    gltf.content["scenes"][0]["nodes"] = [0, 1]
    black = {"pbrMetallicRoughness": {"baseColorFactor": [0, 0, 0, 1]}}
    gltf.content["materials"] = [{}, black]
    assert [p.single_sided for p in gltf.load(tmp_path)] == [False, True]
    gltf.content["materials"][1] = black | {"doubleSided": True}
    assert [p.single_sided for p in gltf.load(tmp_path)] == [False, False]


def test_walls_of_obj_files(tmp_path):
    text = "v 0 0 0\nv 1 0 0\nv 0 1 0\nusemtl a\nf 1 2 3\nusemtl b\nf 3 2 1\n"
    (tmp_path / "m.mtl").write_text("newmtl a\nKd 1 0 0\nnewmtl b\nKd 0 0 1\n")
    (tmp_path / "a.obj").write_text("mtllib m.mtl\n" + text)
    assert [p.single_sided for p in load_object(tmp_path / "a.obj").parts] == [True, True]
