"""glTF geometry, scene graph and broken files; the files are built by `Gltf` of conftest.py."""

import base64

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


@pytest.mark.parametrize(
    ("extension", "command"),
    [
        ("EXT_meshopt_compression", "npx @gltf-transform/cli copy"),
        ("KHR_texture_basisu", "npx @gltf-transform/cli ktxdecompress"),
        ("EXT_made_up", "export it without"),
    ],
)
def test_extensions_that_are_not_read_name_the_converter(gltf, tmp_path, extension, command):
    gltf.mesh()
    gltf.content["extensionsRequired"] = [extension]
    (tmp_path / "my folder").mkdir()
    path = gltf.save(tmp_path / "my folder" / "a.glb")
    with pytest.raises(InputError, match=extension) as caught:
        load_object(path)
    assert command in str(caught.value)
    if command.startswith("npx"):  # can be pasted as it is
        assert f"'{path}' '{path.with_name('a-plain.glb')}'" in str(caught.value)


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
