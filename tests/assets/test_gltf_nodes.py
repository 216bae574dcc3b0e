"""Scene graph, instances and skins of glTF."""

import numpy as np

from hi3d.assets import gltf as gltf_module


def test_a_mesh_of_several_nodes_is_drawn_for_each_through_the_hierarchy(gltf, tmp_path):
    turn = {"rotation": [0, 0, np.sqrt(0.5), np.sqrt(0.5)], "scale": [2, 2, 2]}
    gltf.mesh(node={"translation": [1, 0, 0]})
    gltf.content["nodes"] += [
        {"mesh": 0, "matrix": [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 7, 1]},
        {"children": [0, 1], **turn, "camera": 0},
        {"mesh": 0},  # belongs to no scene
    ]
    gltf.content["scenes"][0]["nodes"] = [2]
    (part,) = gltf.load(tmp_path)
    first, second = part.vertices[part.faces]
    # A quarter turn about z, (x, y, z) -> (-y, x, z), and a scale of 2 after the child's own move.
    np.testing.assert_allclose(first, [[0, 2, 0], [0, 6, 0], [-8, 2, 2]], atol=1e-6)
    np.testing.assert_allclose(second, [[0, 0, 14], [0, 4, 14], [-8, 0, 16]], atol=1e-6)


def test_gpu_instances(gltf, tmp_path):
    moves = gltf.accessor(np.array([[0, 0, 0], [10, 0, 0]], np.float32))
    scales = gltf.accessor(np.array([[1, 1, 1], [3, 3, 3]], np.float32))
    attributes = {"attributes": {"TRANSLATION": moves, "SCALE": scales}}
    gltf.mesh(node={"extensions": {"EXT_mesh_gpu_instancing": attributes}})
    (part,) = gltf.load(tmp_path)
    np.testing.assert_allclose(part.vertices[part.faces[1]], gltf.triangle * 3 + [10, 0, 0])


def test_loops_in_the_node_tree_end(gltf, tmp_path):
    gltf.mesh(node={"children": [0]})
    assert len(gltf.load(tmp_path)) == 1


def test_skinned_vertices_follow_their_joints_only(gltf, tmp_path):
    joints = gltf.accessor(np.array([[0, 1, 0, 0]] * 3, np.uint8))
    shares = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0.5, 0.5, 0, 0]], np.float32)
    attributes = {"JOINTS_0": joints, "WEIGHTS_0": gltf.accessor(shares)}
    gltf.mesh(attributes=attributes, node={"skin": 0, "translation": [100, 0, 0]})
    gltf.content["nodes"] += [{"translation": [1, 0, 0]}, {"translation": [0, 2, 0]}]
    gltf.content["scenes"][0]["nodes"] = [0, 1, 2]
    inverse_bind = np.stack([np.eye(4)] * 2)
    inverse_bind[:, 2, 3] = 5
    matrices = gltf.accessor(inverse_bind.swapaxes(1, 2).astype(np.float32).reshape(2, 16))
    gltf.content["skins"] = [{"joints": [1, 2], "inverseBindMatrices": matrices}]
    moves = [[1, 0, 5], [0, 2, 5], [0.5, 1, 5]]
    np.testing.assert_allclose(gltf.load(tmp_path)[0].vertices, gltf.triangle + moves)


def test_joints_outside_the_scene_count(gltf, tmp_path):
    """Such joints were taken for unmoved."""
    weights = gltf.accessor(np.ones((3, 4), np.float32) / 4)
    joints = gltf.accessor(np.array([[0, 0, 0, 0]] * 3, np.uint8))
    gltf.mesh(attributes={"JOINTS_0": joints, "WEIGHTS_0": weights}, node={"skin": 0})
    gltf.content["nodes"] += [
        {"translation": [0, 5, 0], "children": [2]},
        {"translation": [1, 0, 0]},
    ]
    gltf.content["skins"] = [{"joints": [2]}]
    (part,) = gltf.load(tmp_path)
    np.testing.assert_allclose(part.vertices, gltf.triangle + np.array([1, 5, 0]), atol=1e-6)


def test_second_set_of_joints_and_vertices_without_weights(gltf, tmp_path):
    first, second = np.zeros((3, 4), np.float32), np.zeros((3, 4), np.float32)
    first[:2, 0], second[0, 0] = 0.5, 0.5
    attributes = {
        "JOINTS_0": gltf.accessor(np.zeros((3, 4), np.uint8)),
        "WEIGHTS_0": gltf.accessor(first),
        "JOINTS_1": gltf.accessor(np.ones((3, 4), np.uint8)),
        "WEIGHTS_1": gltf.accessor(second),
    }
    gltf.mesh(attributes=attributes, node={"skin": 0})
    gltf.content["nodes"] += [{"translation": [0, 0, 2]}, {"translation": [0, 0, 6]}]
    gltf.content["skins"] = [{"joints": [1, 2]}]
    gltf.content["scenes"][0]["nodes"] = [0, 1, 2]
    (part,) = gltf.load(tmp_path)
    np.testing.assert_allclose(part.vertices[:, 2] - gltf.triangle[:, 2], [4, 2, 2], atol=1e-6)


def test_large_objects_are_announced_with_their_count(gltf, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gltf_module, "MANY_FACES", 2)
    moves = gltf.accessor(np.zeros((3, 3), np.float32))
    extension = {"EXT_mesh_gpu_instancing": {"attributes": {"TRANSLATION": moves}}}
    gltf.mesh(node={"extensions": extension})
    assert len(gltf.load(tmp_path)[0].faces) == 3
    assert "million triangles in up to 3 instances" in capsys.readouterr().err


def test_mirrored_instances_turn_their_faces(gltf, tmp_path):
    scales = gltf.accessor(np.array([[1, 1, 1], [-1, 1, 1]], np.float32))
    extension = {"EXT_mesh_gpu_instancing": {"attributes": {"SCALE": scales}}}
    gltf.mesh(node={"extensions": extension})
    (part,) = gltf.load(tmp_path)
    assert part.faces.tolist() == [[0, 1, 2], [5, 4, 3]]
