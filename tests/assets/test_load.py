"""Loading objects: files are written by hand here, so that loader and oracle share no code."""

import base64
import io
import json
import struct

import numpy as np
import pytest
import trimesh
from PIL import Image

from hi3d.assets.load import load_object
from hi3d.color import linear_from_srgb, srgb_from_linear
from hi3d.errors import InputError

POINT_CLOUD = (
    "ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\n"
    "property float z\nend_header\n0 0 0\n"
)
TRIANGLE = [[0, 0, 0], [2, 0, 0], [0, 4, 1]]


def write_glb(
    path, positions=TRIANGLE, material=None, node=None, colors=None, uvs=None, image=None
):
    """A GLB of one triangle list with float attributes."""
    arrays = {"POSITION": positions, "COLOR_0": colors, "TEXCOORD_0": uvs}
    arrays = {name: np.array(a, np.float32) for name, a in arrays.items() if a is not None}
    binary, views, accessors = b"", [], []
    for array in arrays.values():
        kind = {2: "VEC2", 3: "VEC3", 4: "VEC4"}[array.shape[1]]
        views.append({"buffer": 0, "byteOffset": len(binary), "byteLength": array.nbytes})
        accessors.append(
            {
                "bufferView": len(accessors),
                "componentType": 5126,
                "count": len(array),
                "type": kind,
                "min": array.min(axis=0).tolist(),
                "max": array.max(axis=0).tolist(),
            }
        )
        binary += array.tobytes()
    primitive = {"attributes": {name: i for i, name in enumerate(arrays)}}
    content = {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, **(node or {})}],
        "meshes": [{"primitives": [primitive]}],
        "bufferViews": views,
        "accessors": accessors,
        "buffers": [{"byteLength": len(binary)}],
    }
    if material is not None:
        content["materials"] = [material]
        primitive["material"] = 0
    if image is not None:
        png = io.BytesIO()
        Image.fromarray(np.array(image, np.uint8)).save(png, "PNG")
        uri = "data:image/png;base64," + base64.b64encode(png.getvalue()).decode()
        content |= {"images": [{"uri": uri}], "textures": [{"source": 0}]}
    text = json.dumps(content).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text
    chunks += struct.pack("<I4s", len(binary), b"BIN\0") + binary
    path.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks)
    return path


def test_srgb_curve_at_known_values():
    # IEC 61966-2-1: 1.055 * 0.5^(1/2.4) - 0.055 = 0.735357 and 12.92 * 0.002 = 0.02584.
    encoded = srgb_from_linear(np.array([0.5, 0.002, 1.0, 0.3]))
    np.testing.assert_allclose(encoded, [0.735357, 0.02584, 1.0, 0.3], atol=1e-6)
    np.testing.assert_allclose(linear_from_srgb(encoded), [0.5, 0.002, 1.0, 0.3], atol=1e-6)


def test_gltf_is_y_up_and_becomes_z_up(tmp_path):
    part = load_object(write_glb(tmp_path / "a.glb"), normalise=False).parts[0]
    np.testing.assert_allclose(part.vertices, [[0, 0, 0], [2, 0, 0], [0, -1, 4]])  # (x, -z, y)
    np.testing.assert_allclose(part.base_color_factor, [0.8, 0.8, 0.8, 1])  # no material: grey
    kept = load_object(tmp_path / "a.glb", normalise=False, up="z").parts[0]
    np.testing.assert_allclose(kept.vertices, TRIANGLE)


def test_scene_graph_moves_vertices_and_mirrors_turn_faces(tmp_path):
    node = {"translation": [1, 0, 0], "scale": [-2, 1, 1]}
    part = load_object(write_glb(tmp_path / "a.glb", node=node), normalise=False, up="z").parts[0]
    np.testing.assert_allclose(part.vertices, [[1, 0, 0], [-3, 0, 0], [1, 4, 1]])
    a, b, c = part.vertices[part.faces[0]]
    # The unmirrored normal is (0, -2, 8); mirrored in x it keeps its side: z stays positive.
    assert np.cross(b - a, c - a)[2] > 0


def test_a_stretched_box_has_the_proportions_of_its_factors(tmp_path):
    trimesh.creation.box().export(tmp_path / "box.ply")
    box = load_object(tmp_path / "box.ply")
    sides = np.ptp(box.stretched((2.0, 1.0, 0.5), 0.0).bounds, axis=0)
    np.testing.assert_allclose(sides, [1, 0.5, 0.25], atol=1e-6)
    turned = box.stretched((2.0, 1.0, 1.0), 45.0).points
    along = turned @ [0.5**0.5, 0.5**0.5, 0]  # the diagonal, which is twice as long as the other
    across = turned @ [0.5**0.5, -(0.5**0.5), 0]
    assert np.ptp(along) == pytest.approx(2 * np.ptp(across))
    assert np.ptp(turned, axis=0).max() == pytest.approx(1)


def test_normalised_box_is_centred_with_longest_side_1(tmp_path):
    part = load_object(write_glb(tmp_path / "a.glb"), up="z").parts[0]
    # The box [0,2]x[0,4]x[0,1] shrinks by 4 around (1, 2, 0.5).
    np.testing.assert_allclose(part.vertices.min(axis=0), [-0.25, -0.5, -0.125])
    np.testing.assert_allclose(part.vertices.max(axis=0), [0.25, 0.5, 0.125])


def test_unused_vertices_and_degenerate_faces_do_not_count(tmp_path):
    (tmp_path / "a.obj").write_text(
        "v 0 0 0\nv 2 0 0\nv 0 2 0\nv 99 0 0\nv 50 0 0\nf 1 2 3\nf 1 4 4\nf 1 4 5\n"
    )
    loaded = load_object(tmp_path / "a.obj", up="z")
    assert len(loaded.parts[0].faces) == 1
    np.testing.assert_allclose(loaded.bounds, [[-0.5, -0.5, 0], [0.5, 0.5, 0]])


def test_gltf_factor_is_linear_and_exact(tmp_path):
    material = {"pbrMetallicRoughness": {"baseColorFactor": [0.5, 0.0, 0.002, 0.25]}}
    part = load_object(write_glb(tmp_path / "a.glb", material=material)).parts[0]
    # An 8-bit factor would turn 0.002 into 1/255, sRGB 0.0498.
    np.testing.assert_allclose(part.base_color_factor, [0.735357, 0, 0.02584, 0.25], atol=1e-6)
    assert part.alpha_mode == "OPAQUE"


def test_gltf_material_without_factor_is_white(tmp_path):
    part = load_object(write_glb(tmp_path / "a.glb", material={"name": "plain"})).parts[0]
    np.testing.assert_allclose(part.base_color_factor, 1)


@pytest.mark.parametrize("material", [None, {"name": "plain"}])
def test_gltf_vertex_colors_are_linear(tmp_path, material):
    colors = [[0.5, 0, 0, 1], [0, 1, 0, 1], [0, 0, 0.002, 1]]
    path = write_glb(tmp_path / "a.glb", material=material, colors=colors)
    part = load_object(path).parts[0]
    # Without a material the loader below keeps 8 bits: 0.002 is 1/255 there, 0.5 is 128/255.
    expected = [[0.735357, 0, 0, 1], [0, 1, 0, 1], [0, 0, 0.02584, 1]]
    np.testing.assert_allclose(part.vertex_rgba, expected, atol=2e-3 if material else 0.03)


def test_gltf_texture_and_alpha_mask(tmp_path):
    image = np.zeros((2, 3, 4), np.uint8)
    image[0, 0] = [10, 20, 30, 40]
    material = {
        "alphaMode": "MASK",
        "alphaCutoff": 0.3,
        "pbrMetallicRoughness": {
            "baseColorTexture": {"index": 0},
            "baseColorFactor": [0.5, 1, 1, 1],
        },
    }
    uvs = [[0, 0], [1, 0], [0, 0.25]]  # glTF: v down
    path = write_glb(tmp_path / "a.glb", material=material, uvs=uvs, image=image)
    part = load_object(path).parts[0]
    np.testing.assert_array_equal(part.texture, image)
    np.testing.assert_allclose(part.uvs, [[0, 1], [1, 1], [0, 0.75]])  # v up
    np.testing.assert_allclose(part.base_color_factor, [0.735357, 1, 1, 1], atol=1e-6)
    assert (part.alpha_mode, part.alpha_cutoff) == ("MASK", 0.3)


def test_obj_diffuse_is_srgb_and_y_up(tmp_path):
    (tmp_path / "a.mtl").write_text("newmtl red\nKd 0.6 0.2 0.0\n")
    (tmp_path / "a.obj").write_text(
        "mtllib a.mtl\nusemtl red\nv 0 0 0\nv 1 0 0\nv 0 1 2\nf 1 2 3\n"
    )
    part = load_object(tmp_path / "a.obj", normalise=False).parts[0]
    np.testing.assert_allclose(part.base_color_factor, [0.6, 0.2, 0, 1], atol=1e-6)
    np.testing.assert_allclose(part.vertices[2], [0, -2, 1])


def test_obj_texture_replaces_diffuse(tmp_path):
    Image.new("RGB", (2, 2), (9, 8, 7)).save(tmp_path / "a.png")
    (tmp_path / "a.mtl").write_text("newmtl m\nKd 0.1 0.1 0.1\nmap_Kd a.png\n")
    (tmp_path / "a.obj").write_text(
        "mtllib a.mtl\nusemtl m\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\nf 1/1 2/2 3/3\n"
    )
    part = load_object(tmp_path / "a.obj").parts[0]
    np.testing.assert_allclose(part.base_color_factor, 1)
    assert part.texture[0, 0].tolist() == [9, 8, 7, 255]
    np.testing.assert_allclose(part.uvs, [[0, 0], [1, 0], [0, 1]])


def test_ply_is_z_up_with_srgb_colors(tmp_path):
    (tmp_path / "a.ply").write_text(
        "ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\n"
        "property float z\nproperty uchar red\nproperty uchar green\nproperty uchar blue\n"
        "element face 1\nproperty list uchar int vertex_indices\nend_header\n"
        "0 0 0 51 0 0\n1 0 0 0 102 0\n0 1 2 0 0 255\n3 0 1 2\n"
    )
    part = load_object(tmp_path / "a.ply", normalise=False).parts[0]
    np.testing.assert_allclose(part.vertices[2], [0, 1, 2])
    expected = [[0.2, 0, 0, 1], [0, 0.4, 0, 1], [0, 0, 1, 1]]
    np.testing.assert_allclose(part.vertex_rgba, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.glb", None, "no object file"),
        ("a.txt", "x", "not an object file"),
        ("a.glb", "not a GLB at all", "cannot read object"),
        ("a.obj", "v 0 0 0\n", "object|triangles"),
        ("a.obj", "v 0 0 0\nv 1 1 1\nv 2 2 2\nf 1 2 3\n", "no triangles with an area"),
        ("a.obj", "v 0 0 0\nv 1 0 0\nv nan 0 0\nf 1 2 3\n", "no triangles with an area"),
        ("a.ply", POINT_CLOUD, "no triangles with an area"),
        ("a.ply", "ply\nformat ascii 1.0\n", "cannot read object"),
    ],
)
def test_bad_files_are_one_clear_line(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        load_object(tmp_path / name)
    assert "\n" not in str(caught.value)
