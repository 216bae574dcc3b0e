"""glTF geometry, scene graph and broken files; the files are built by `Gltf` of conftest.py."""

import base64
import builtins

import numpy as np
import pytest

from hi3d.assets.load import load_object
from hi3d.errors import InputError


@pytest.mark.parametrize(
    "uri", ["../secret.bin", "/etc/hostname", "a/../../secret.bin", "gone.bin"]
)
def test_buffers_stay_in_the_folder(gltf, tmp_path, uri):
    (tmp_path / "secret.bin").write_bytes(b"\0" * 100)
    (tmp_path / "object").mkdir()
    gltf.mesh()
    path = gltf.save(tmp_path / "object" / "a.gltf")
    path.write_text(path.read_text().replace("data.bin", uri))
    with pytest.raises(
        InputError, match="is missing" if uri == "gone.bin" else "leaves its folder"
    ):
        load_object(path)


def test_data_uris(gltf, tmp_path):
    gltf.mesh()
    path = gltf.save(tmp_path / "a.gltf")
    data = "data:application/octet-stream;base64," + base64.b64encode(gltf.binary).decode()
    path.write_text(path.read_text().replace("data.bin", data))
    part = load_object(path, normalise=False, up="z").parts[0]
    np.testing.assert_allclose(part.vertices, gltf.triangle)


def test_quantised_attributes(gltf, tmp_path):
    positions = gltf.accessor(np.array([[0, 0, 0], [200, 0, 0], [0, 100, 50]], np.int16))
    signed = np.array([[-127, 127, 0], [127, 0, 0], [-128, 0, 127]], np.int8)
    fractions = gltf.accessor(signed, normalized=True)
    uvs = gltf.accessor(np.array([[0, 0], [65535, 0], [0, 13107]], np.uint16), normalized=True)
    gltf.textured(gltf.black(), [[0, 0]] * 3)
    gltf.content["meshes"][0]["primitives"] = [
        {"attributes": {"POSITION": positions, "TEXCOORD_0": uvs}, "material": 0},
        {"attributes": {"POSITION": fractions}},
    ]
    gltf.content["extensionsRequired"] = ["KHR_mesh_quantization"]
    whole, unit = gltf.load(tmp_path)
    np.testing.assert_allclose(whole.vertices, [[0, 0, 0], [200, 0, 0], [0, 100, 50]])
    np.testing.assert_allclose(whole.uvs, [[0, 1], [1, 1], [0, 0.8]], atol=1e-6)
    # c / 127, at least -1 (glTF 2.0, Section 3.6.2.2)
    np.testing.assert_allclose(unit.vertices, [[-1, 1, 0], [1, 0, 0], [-1, 0, 1]], atol=1e-6)


def test_sparse_accessors(gltf, tmp_path):
    rows = gltf.view(np.array([1, 2], np.uint16).tobytes())
    values = gltf.view(np.array([[5, 0, 0], [0, 6, 0]], np.float32).tobytes())
    sparse = {
        "count": 2,
        "indices": {"bufferView": rows, "componentType": 5123},
        "values": {"bufferView": values},
    }
    dense = gltf.accessor(gltf.square[:3], sparse=sparse)
    zeros = {"componentType": 5126, "count": 3, "type": "VEC3", "sparse": sparse}
    gltf.content["accessors"].append(zeros)
    gltf.mesh(dense)
    gltf.content["meshes"][0]["primitives"].append({"attributes": {"POSITION": dense + 1}})
    for part in gltf.load(tmp_path):
        np.testing.assert_allclose(part.vertices, [[0, 0, 0], [5, 0, 0], [0, 6, 0]])


def test_interleaved_attributes(gltf, tmp_path):
    rows = np.concatenate([gltf.triangle, np.full((3, 2), 9, np.float32)], axis=1)
    view = gltf.view(rows.tobytes(), byteStride=20)
    gltf.mesh(gltf.accessor(gltf.triangle, bufferView=view))
    np.testing.assert_allclose(gltf.load(tmp_path)[0].vertices, gltf.triangle)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (4, [[0, 1, 2]]),
        (5, [[0, 1, 2], [1, 3, 2]]),  # strips turn every second triangle
        (6, [[1, 2, 0], [2, 3, 0]]),
    ],
)
def test_lists_strips_and_fans(gltf, tmp_path, mode, expected):
    indices = gltf.accessor(np.array([0, 1, 2, 3], np.uint8))
    gltf.mesh(gltf.square, mode=mode, indices=indices)
    part = gltf.load(tmp_path)[0]
    corners = part.vertices[part.faces]
    np.testing.assert_allclose(corners, gltf.square[np.array(expected)])


def test_points_and_lines_are_left_out(gltf, tmp_path):
    for mode in (0, 1, 3):
        gltf.mesh(mode=mode)
    with pytest.raises(InputError, match="no triangles"):
        gltf.load(tmp_path)
    gltf.mesh()
    gltf.content["scenes"][0]["nodes"] = [0, 1, 2, 3]
    assert len(gltf.load(tmp_path)) == 1


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


def test_default_morph_weights_are_applied(gltf, tmp_path):
    target = gltf.accessor(np.full((3, 3), 4, np.float32))
    gltf.mesh(targets=[{"POSITION": target}])
    gltf.content["meshes"][0]["weights"] = [0.25]
    np.testing.assert_allclose(gltf.load(tmp_path)[0].vertices, gltf.triangle + 1)


def test_one_vertex_buffer_for_many_primitives_is_not_copied_whole(gltf, tmp_path):
    positions = np.random.default_rng(0).random((3000, 3)).astype(np.float32)
    indices = gltf.accessor(np.array([2997, 2998, 2999], np.uint32))
    gltf.mesh(positions, indices=indices)
    part = gltf.load(tmp_path)[0]
    np.testing.assert_allclose(part.vertices[part.faces[0]], positions[2997:])
    assert len(part.vertices) == 3


def test_draco_meshes(gltf, tmp_path):
    draco = pytest.importorskip("DracoPy")
    encoded = draco.encode(
        points=gltf.square.astype(np.float64),
        faces=np.array([[0, 1, 2], [1, 3, 2]], np.uint32),
        tex_coord=gltf.square[:, :2].astype(np.float64),
        preserve_order=True,
        quantization_bits=14,
    )
    ids = {
        entry["attribute_type"]: entry["unique_id"] for entry in draco.decode(encoded).attributes
    }
    gltf.textured(gltf.black(), [[0, 0]] * 4, positions=gltf.square)
    extension = {"bufferView": gltf.view(encoded), "attributes": {"POSITION": ids[0]}}
    extension["attributes"]["TEXCOORD_0"] = ids[3]
    for kind, width, at in ((5126, "VEC3", 0), (5126, "VEC2", 1), (5125, "SCALAR", 2)):
        placeholder = {"componentType": kind, "count": 6 if at == 2 else 4, "type": width}
        gltf.content["accessors"].append(placeholder)
    primitive = gltf.content["meshes"][0]["primitives"][0]
    last = len(gltf.content["accessors"])
    primitive["attributes"] = {"POSITION": last - 3, "TEXCOORD_0": last - 2}
    primitive |= {"indices": last - 1, "extensions": {"KHR_draco_mesh_compression": extension}}
    gltf.content["extensionsRequired"] = ["KHR_draco_mesh_compression"]
    part = gltf.load(tmp_path)[0]
    corners = part.vertices[part.faces]
    np.testing.assert_allclose(corners, gltf.square[[[0, 1, 2], [1, 3, 2]]], atol=1e-4)
    uvs = part.uvs[part.faces]
    np.testing.assert_allclose(uvs, corners[..., :2] * [1, -1] + [0, 1], atol=2e-3)


def test_draco_without_its_library_names_the_extra(gltf, tmp_path, monkeypatch):
    plain_import = builtins.__import__

    def without_draco(name, *arguments):
        if name == "DracoPy":
            raise ImportError(name)
        return plain_import(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without_draco)
    gltf.mesh(extensions={"KHR_draco_mesh_compression": {"bufferView": 0, "attributes": {}}})
    with pytest.raises(InputError, match=r"pip install 'hi3d\[draco\]'"):
        gltf.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extensionsRequired": ["EXT_meshopt_compression"]}, "requires EXT_meshopt_compression"),
        ({"asset": {"version": "1.0"}}, "glTF 1.0: convert it"),
        ({"meshes": [{"primitives": [{"attributes": {"POSITION": 7}}]}]}, "accessors 7"),
        ({"scenes": [{"nodes": [5]}]}, "nodes 5"),
        ({"bufferViews": [{"buffer": 0, "byteLength": 9999}]}, "cut off"),
        (
            {"accessors": [{"componentType": 5126, "count": 10**12, "type": "VEC3"}]},
            "more than can be read",
        ),
    ],
)
def test_broken_files_are_one_clear_line(gltf, tmp_path, change, message):
    gltf.mesh()
    gltf.content |= change
    with pytest.raises(InputError, match=message) as caught:
        gltf.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_cut_off_glb(gltf, tmp_path):
    gltf.mesh()
    path = gltf.save(tmp_path / "a.glb")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="cut off"):
        load_object(path)


def test_too_many_triangles_are_refused(gltf, tmp_path, monkeypatch):
    monkeypatch.setattr("hi3d.assets.gltf.MAX_FACES", 1)
    gltf.mesh()
    gltf.content["nodes"].append({"mesh": 0})
    gltf.content["scenes"][0]["nodes"] = [0, 1]
    with pytest.raises(InputError, match="over 1 triangles: simplify it"):
        gltf.load(tmp_path)


def test_nan_vertices_and_uvs(gltf, tmp_path):
    positions = np.concatenate([gltf.triangle, gltf.triangle])
    positions[4, 1] = np.nan
    uvs = np.full((6, 2), 0.5)
    uvs[0] = np.nan
    gltf.textured(gltf.black(), uvs, positions=positions)
    part = gltf.load(tmp_path)[0]
    assert len(part.faces) == 1
    assert np.isfinite(part.uvs).all()
    assert np.isfinite(load_object(tmp_path / "a.glb").bounds).all()
