"""Each fault of a mesh is counted where a hand-made one has it, and nowhere else."""

from dataclasses import asdict

import numpy as np
import pytest
import trimesh

from hi3d.surface.topology import topology

BOX = trimesh.creation.box((1.0, 0.5, 0.25))


def faults(vertices, faces) -> dict[str, int]:
    return {name: count for name, count in asdict(topology(vertices, faces)).items() if count}


def boxes_at(offset) -> tuple[np.ndarray, np.ndarray]:
    """A unit cube at the origin and another one `offset` away."""
    cube = trimesh.creation.box((1.0, 1.0, 1.0))
    vertices = np.concatenate([cube.vertices, cube.vertices + offset])
    return vertices, np.concatenate([cube.faces, cube.faces + 8])


def test_a_box_is_sound_also_with_its_faces_apart():
    assert topology(BOX.vertices, BOX.faces).sound
    assert faults(BOX.vertices[BOX.faces].reshape(-1, 3), np.arange(36).reshape(-1, 3)) == {}
    assert faults(*boxes_at([1.5, 0, 0])) == {}


def test_a_missing_face_opens_three_edges():
    assert faults(BOX.vertices, BOX.faces[1:])["open_edges"] == 3


def test_a_turned_face_flips_three_edges():
    faces = BOX.faces.copy()
    faces[0] = faces[0, ::-1]
    assert faults(BOX.vertices, faces) == {"flipped_edges": 3}


def test_a_surface_inside_out_is_inverted():
    assert faults(BOX.vertices, BOX.faces[:, ::-1]) == {"inverted": 1}


def test_cubes_that_share_a_corner_or_an_edge_are_not_manifold():
    assert faults(*boxes_at([1, 1, 1])) == {"pinched_vertices": 1}
    assert faults(*boxes_at([1, 1, 0])) == {"crowded_edges": 1, "pinched_vertices": 2}


def test_faces_without_an_area_are_counted():
    vertices = np.concatenate([BOX.vertices, BOX.vertices[BOX.faces[0, :2]].mean(0, keepdims=True)])
    sliver = [BOX.faces[0, 0], 8, BOX.faces[0, 1]]
    assert faults(vertices, np.concatenate([BOX.faces, [sliver]]))["flat_faces"] == 1


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_size_does_not_matter(scale):
    assert faults(scale * BOX.vertices, BOX.faces) == {}
