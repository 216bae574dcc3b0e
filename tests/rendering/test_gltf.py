"""glTF files are built by hand here from the standard, so that reader and oracle share no code."""

import base64
import builtins
import io
import json
import struct

import numpy as np
import pytest
from PIL import Image

from hi3d.errors import InputError
from hi3d.rendering.objects import load_object

TRIANGLE = np.array([[0, 0, 0], [2, 0, 0], [0, 4, 1]], np.float32)
SQUARE = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]], np.float32)
KINDS = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}
TYPES = {"i1": 5120, "u1": 5121, "i2": 5122, "u2": 5123, "u4": 5125, "f4": 5126}


class Gltf:
    """A glTF file that grows: one buffer, one scene."""

    def __init__(self):
        self.binary = b""
        self.content = {"asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": [0]}]}
        self.content |= {"nodes": [], "meshes": [], "bufferViews": [], "accessors": []}

    def view(self, data, **extra):
        entry = {"buffer": 0, "byteOffset": len(self.binary), "byteLength": len(data), **extra}
        self.content["bufferViews"].append(entry)
        self.binary += data + b"\0" * (-len(data) % 4)
        return len(self.content["bufferViews"]) - 1

    def accessor(self, array, **extra):
        array = np.asarray(array)
        array = array.reshape(len(array), -1)
        entry = {"bufferView": self.view(array.tobytes())} if "bufferView" not in extra else {}
        entry |= {"componentType": TYPES[array.dtype.str[1:]], "count": len(array)}
        entry |= {"type": KINDS[array.shape[1]], **extra}
        self.content["accessors"].append(entry)
        return len(self.content["accessors"]) - 1

    def mesh(self, positions=TRIANGLE, attributes=None, node=None, **primitive):
        """A node with a mesh of one primitive."""
        at = positions if isinstance(positions, int) else self.accessor(positions)
        entry = {"attributes": {"POSITION": at, **(attributes or {})}, **primitive}
        self.content["meshes"].append({"primitives": [entry]})
        self.content["nodes"].append({"mesh": len(self.content["meshes"]) - 1, **(node or {})})
        return entry

    def textured(self, image, uvs, info=None, texture=None, positions=TRIANGLE, **material):
        """A mesh whose base colour is a PNG."""
        png = io.BytesIO()
        Image.fromarray(np.array(image, np.uint8)).save(png, "PNG")
        self.content["images"] = [{"bufferView": self.view(png.getvalue())}]
        self.content["textures"] = [texture or {"source": 0}]
        surface = {"baseColorTexture": {"index": 0, **(info or {})}}
        self.content["materials"] = [{"pbrMetallicRoughness": surface, **material}]
        uvs = {"TEXCOORD_0": self.accessor(np.array(uvs, np.float32))}
        return self.mesh(positions, uvs, material=0)

    def save(self, path):
        content = self.content | {"buffers": [{"byteLength": len(self.binary)}]}
        if path.suffix == ".gltf":
            content["buffers"][0]["uri"] = "data.bin"
            path.with_name("data.bin").write_bytes(self.binary)
            path.write_text(json.dumps(content))
            return path
        text = json.dumps(content).encode()
        text += b" " * (-len(text) % 4)
        chunks = struct.pack("<I4s", len(text), b"JSON") + text
        chunks += struct.pack("<I4s", len(self.binary), b"BIN\0") + self.binary
        path.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks)
        return path

    def load(self, folder, **options):
        """As read, without normalisation and with the file's axes."""
        path = self.save(folder / "a.glb")
        return load_object(path, normalise=False, up="z", **options).parts


def black(shape=(2, 2)):
    return np.zeros((*shape, 4), np.uint8)


def test_separate_buffer_and_image_files(tmp_path):
    gltf = Gltf()
    gltf.textured(black(), [[0, 0]] * 3)
    Image.new("RGB", (4, 2), (9, 8, 7)).save(tmp_path / "my wood.png")
    gltf.content["images"] = [{"uri": "my%20wood.png"}]
    part = load_object(gltf.save(tmp_path / "a.gltf")).parts[0]
    assert part.texture.shape == (2, 4, 4)
    assert part.texture[0, 0].tolist() == [9, 8, 7, 255]


@pytest.mark.parametrize("where", ["beside", "textures", "../textures"])
def test_textures_are_found_in_the_usual_folders(tmp_path, where):
    gltf = Gltf()
    gltf.textured(black(), [[0, 0]] * 3)
    gltf.content["images"] = [{"uri": "C:\\art\\Wood.PNG"}]
    folder = tmp_path / "object" / "source"
    place = folder if where == "beside" else folder / where
    folder.mkdir(parents=True)
    place.mkdir(exist_ok=True)
    Image.new("RGB", (1, 1), (9, 8, 7)).save(place / "wood.png")
    part = load_object(gltf.save(folder / "a.gltf")).parts[0]
    assert part.texture[0, 0].tolist() == [9, 8, 7, 255]


@pytest.mark.parametrize(
    "uri", ["../secret.bin", "/etc/hostname", "a/../../secret.bin", "gone.bin"]
)
def test_buffers_stay_in_the_folder(tmp_path, uri):
    (tmp_path / "secret.bin").write_bytes(b"\0" * 100)
    (tmp_path / "object").mkdir()
    gltf = Gltf()
    gltf.mesh()
    path = gltf.save(tmp_path / "object" / "a.gltf")
    path.write_text(path.read_text().replace("data.bin", uri))
    with pytest.raises(
        InputError, match="is missing" if uri == "gone.bin" else "leaves its folder"
    ):
        load_object(path)


def test_missing_texture_is_an_error(tmp_path):
    gltf = Gltf()
    gltf.textured(black(), [[0, 0]] * 3)
    gltf.content["images"] = [{"uri": "gone.png"}]
    with pytest.raises(InputError, match=r"texture gone.png .* is missing: put it beside"):
        gltf.load(tmp_path)


def test_data_uris(tmp_path):
    gltf = Gltf()
    gltf.mesh()
    path = gltf.save(tmp_path / "a.gltf")
    data = "data:application/octet-stream;base64," + base64.b64encode(gltf.binary).decode()
    path.write_text(path.read_text().replace("data.bin", data))
    part = load_object(path, normalise=False, up="z").parts[0]
    np.testing.assert_allclose(part.vertices, TRIANGLE)


def test_texture_transform_moves_uvs(tmp_path):
    transform = {"offset": [0.25, 0.5], "rotation": np.pi / 2, "scale": [2, 3]}
    gltf = Gltf()
    info = {"extensions": {"KHR_texture_transform": transform}}
    gltf.textured(black(), [[1, 0], [0, 1], [0, 0]], info)
    uvs = gltf.load(tmp_path)[0].uvs
    # u' = cos * 2u + sin * 3v + 0.25 = 3v + 0.25, v' = -sin * 2u + cos * 3v + 0.5 = 0.5 - 2u,
    # then v up: 1 - v' = 0.5 + 2u.
    np.testing.assert_allclose(uvs, [[0.25, 2.5], [3.25, 0.5], [0.25, 0.5]], atol=1e-6)


@pytest.mark.parametrize("by_transform", [False, True])
def test_texture_uses_the_uv_set_it_names(tmp_path, by_transform):
    gltf = Gltf()
    info = {"texCoord": 1}
    if by_transform:
        info = {"texCoord": 0, "extensions": {"KHR_texture_transform": {"texCoord": 1}}}
    primitive = gltf.textured(black(), [[0.9, 0.9]] * 3, info)
    second = np.array([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]], np.float32)
    primitive["attributes"]["TEXCOORD_1"] = gltf.accessor(second)
    np.testing.assert_allclose(gltf.load(tmp_path)[0].uvs, second * [1, -1] + [0, 1], atol=1e-6)


def test_mirrored_repeat_becomes_plain_repeat(tmp_path):
    image = black((1, 2))
    image[0, :, 0] = 10, 20
    gltf = Gltf()
    gltf.textured(image, [[0, 0], [2, 0], [0, 1]], texture={"source": 0, "sampler": 0})
    gltf.content["samplers"] = [{"wrapS": 33648}]
    part = gltf.load(tmp_path)[0]
    assert part.texture[0, :, 0].tolist() == [10, 20, 20, 10]
    np.testing.assert_allclose(part.uvs, [[0, 1], [1, 1], [0, 0]])


def test_webp_textures(tmp_path):
    gltf = Gltf()
    texture = {"source": 0, "extensions": {"EXT_texture_webp": {"source": 1}}}
    gltf.textured(black(), [[0, 0]] * 3, texture=texture)
    webp = io.BytesIO()
    Image.new("RGB", (3, 1), (50, 100, 150)).save(webp, "WEBP", lossless=True)
    gltf.content["images"].append({"bufferView": gltf.view(webp.getvalue())})
    texture = gltf.load(tmp_path)[0].texture
    assert texture.tolist() == [[[50, 100, 150, 255]] * 3]


def test_ktx2_textures_are_refused(tmp_path):
    gltf = Gltf()
    texture = {"extensions": {"KHR_texture_basisu": {"source": 0}}}
    gltf.textured(black(), [[0, 0]] * 3, texture=texture)
    with pytest.raises(InputError, match="KHR_texture_basisu"):
        gltf.load(tmp_path)


def test_specular_glossiness_gives_its_diffuse_colour(tmp_path):
    gltf = Gltf()
    gltf.mesh(material=0)
    diffuse = {"diffuseFactor": [0.5, 1, 0, 1], "specularFactor": [1, 1, 1]}
    extensions = {"KHR_materials_pbrSpecularGlossiness": diffuse}
    gltf.content["materials"] = [{"extensions": extensions}]
    factor = gltf.load(tmp_path)[0].base_color_factor
    np.testing.assert_allclose(factor, [0.735357, 1, 0, 1], atol=1e-6)


def test_unlit_material_gives_its_base_colour(tmp_path):
    gltf = Gltf()
    gltf.mesh(material=0)
    gltf.content["extensionsRequired"] = ["KHR_materials_unlit"]
    surface = {"baseColorFactor": [0.5, 1, 0, 1]}
    gltf.content["materials"] = [
        {"pbrMetallicRoughness": surface, "extensions": {"KHR_materials_unlit": {}}}
    ]
    factor = gltf.load(tmp_path)[0].base_color_factor
    np.testing.assert_allclose(factor, [0.735357, 1, 0, 1], atol=1e-6)


@pytest.mark.parametrize("base", [0.0, 1.0])
def test_emission_is_the_colour_only_where_the_base_is_black(tmp_path, base):
    gltf = Gltf()
    gltf.textured(black(), [[0, 0]] * 3)
    surface = {"baseColorFactor": [base, base, base, 1]}
    emission = {"emissiveFactor": [1, 0.5, 0], "emissiveTexture": {"index": 0}}
    gltf.content["materials"] = [{"pbrMetallicRoughness": surface, **emission}]
    part = gltf.load(tmp_path)[0]
    assert (part.texture is None) == (base == 1)
    expected = [1, 0.735357, 0, 1] if base == 0 else [1, 1, 1, 1]
    np.testing.assert_allclose(part.base_color_factor, expected, atol=1e-6)


def test_quantised_attributes(tmp_path):
    gltf = Gltf()
    positions = gltf.accessor(np.array([[0, 0, 0], [200, 0, 0], [0, 100, 50]], np.int16))
    signed = np.array([[-127, 127, 0], [127, 0, 0], [-128, 0, 127]], np.int8)
    fractions = gltf.accessor(signed, normalized=True)
    uvs = gltf.accessor(np.array([[0, 0], [65535, 0], [0, 13107]], np.uint16), normalized=True)
    gltf.textured(black(), [[0, 0]] * 3)
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


def test_sparse_accessors(tmp_path):
    gltf = Gltf()
    rows = gltf.view(np.array([1, 2], np.uint16).tobytes())
    values = gltf.view(np.array([[5, 0, 0], [0, 6, 0]], np.float32).tobytes())
    sparse = {
        "count": 2,
        "indices": {"bufferView": rows, "componentType": 5123},
        "values": {"bufferView": values},
    }
    dense = gltf.accessor(SQUARE[:3], sparse=sparse)
    zeros = {"componentType": 5126, "count": 3, "type": "VEC3", "sparse": sparse}
    gltf.content["accessors"].append(zeros)
    gltf.mesh(dense)
    gltf.content["meshes"][0]["primitives"].append({"attributes": {"POSITION": dense + 1}})
    for part in gltf.load(tmp_path):
        np.testing.assert_allclose(part.vertices, [[0, 0, 0], [5, 0, 0], [0, 6, 0]])


def test_interleaved_attributes(tmp_path):
    gltf = Gltf()
    rows = np.concatenate([TRIANGLE, np.full((3, 2), 9, np.float32)], axis=1)
    view = gltf.view(rows.tobytes(), byteStride=20)
    gltf.mesh(gltf.accessor(TRIANGLE, bufferView=view))
    np.testing.assert_allclose(gltf.load(tmp_path)[0].vertices, TRIANGLE)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (4, [[0, 1, 2]]),
        (5, [[0, 1, 2], [1, 3, 2]]),  # strips turn every second triangle
        (6, [[1, 2, 0], [2, 3, 0]]),
    ],
)
def test_lists_strips_and_fans(tmp_path, mode, expected):
    gltf = Gltf()
    indices = gltf.accessor(np.array([0, 1, 2, 3], np.uint8))
    gltf.mesh(SQUARE, mode=mode, indices=indices)
    part = gltf.load(tmp_path)[0]
    corners = part.vertices[part.faces]
    np.testing.assert_allclose(corners, SQUARE[np.array(expected)])


def test_points_and_lines_are_left_out(tmp_path):
    gltf = Gltf()
    for mode in (0, 1, 3):
        gltf.mesh(mode=mode)
    with pytest.raises(InputError, match="no triangles"):
        gltf.load(tmp_path)
    gltf.mesh()
    gltf.content["scenes"][0]["nodes"] = [0, 1, 2, 3]
    assert len(gltf.load(tmp_path)) == 1


def test_a_mesh_of_several_nodes_is_drawn_for_each_through_the_hierarchy(tmp_path):
    gltf = Gltf()
    turn = {"rotation": [0, 0, np.sqrt(0.5), np.sqrt(0.5)], "scale": [2, 2, 2]}
    gltf.mesh(node={"translation": [1, 0, 0]})
    gltf.content["nodes"] += [
        {"mesh": 0, "matrix": [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 7, 1]},
        {"children": [0, 1], **turn, "camera": 0},
        {"mesh": 0},  # belongs to no scene
    ]
    gltf.content["scenes"][0]["nodes"] = [2]
    first, second = gltf.load(tmp_path)
    # A quarter turn about z, (x, y, z) -> (-y, x, z), and a scale of 2 after the child's own move.
    np.testing.assert_allclose(first.vertices, [[0, 2, 0], [0, 6, 0], [-8, 2, 2]], atol=1e-6)
    np.testing.assert_allclose(second.vertices, [[0, 0, 14], [0, 4, 14], [-8, 0, 16]], atol=1e-6)


def test_gpu_instances(tmp_path):
    gltf = Gltf()
    moves = gltf.accessor(np.array([[0, 0, 0], [10, 0, 0]], np.float32))
    scales = gltf.accessor(np.array([[1, 1, 1], [3, 3, 3]], np.float32))
    attributes = {"attributes": {"TRANSLATION": moves, "SCALE": scales}}
    gltf.mesh(node={"extensions": {"EXT_mesh_gpu_instancing": attributes}})
    parts = gltf.load(tmp_path)
    np.testing.assert_allclose(parts[1].vertices, TRIANGLE * 3 + [10, 0, 0])


def test_loops_in_the_node_tree_end(tmp_path):
    gltf = Gltf()
    gltf.mesh(node={"children": [0]})
    assert len(gltf.load(tmp_path)) == 1


def test_skinned_vertices_follow_their_joints_only(tmp_path):
    gltf = Gltf()
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
    np.testing.assert_allclose(gltf.load(tmp_path)[0].vertices, TRIANGLE + moves)


def test_default_morph_weights_are_applied(tmp_path):
    gltf = Gltf()
    target = gltf.accessor(np.full((3, 3), 4, np.float32))
    gltf.mesh(targets=[{"POSITION": target}])
    gltf.content["meshes"][0]["weights"] = [0.25]
    np.testing.assert_allclose(gltf.load(tmp_path)[0].vertices, TRIANGLE + 1)


def test_integer_vertex_colours_are_linear_fractions(tmp_path):
    gltf = Gltf()
    colors = np.array([[65535, 0, 0], [32768, 0, 0], [0, 0, 0]], np.uint16)
    gltf.mesh(attributes={"COLOR_0": gltf.accessor(colors, normalized=True)})
    red = gltf.load(tmp_path)[0].vertex_rgba[:, 0]
    np.testing.assert_allclose(red, [1, 0.735364, 0], atol=1e-5)  # of linear 32768 / 65535


def test_one_vertex_buffer_for_many_primitives_is_not_copied_whole(tmp_path):
    gltf = Gltf()
    positions = np.random.default_rng(0).random((3000, 3)).astype(np.float32)
    indices = gltf.accessor(np.array([2997, 2998, 2999], np.uint32))
    gltf.mesh(positions, indices=indices)
    part = gltf.load(tmp_path)[0]
    np.testing.assert_allclose(part.vertices[part.faces[0]], positions[2997:])
    assert len(part.vertices) == 3


def test_draco_meshes(tmp_path):
    draco = pytest.importorskip("DracoPy")
    encoded = draco.encode(
        points=SQUARE.astype(np.float64),
        faces=np.array([[0, 1, 2], [1, 3, 2]], np.uint32),
        tex_coord=SQUARE[:, :2].astype(np.float64),
        preserve_order=True,
        quantization_bits=14,
    )
    ids = {
        entry["attribute_type"]: entry["unique_id"] for entry in draco.decode(encoded).attributes
    }
    gltf = Gltf()
    gltf.textured(black(), [[0, 0]] * 4, positions=SQUARE)
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
    np.testing.assert_allclose(corners, SQUARE[[[0, 1, 2], [1, 3, 2]]], atol=1e-4)
    uvs = part.uvs[part.faces]
    np.testing.assert_allclose(uvs, corners[..., :2] * [1, -1] + [0, 1], atol=2e-3)


def test_draco_without_its_library_names_the_extra(tmp_path, monkeypatch):
    plain_import = builtins.__import__

    def without_draco(name, *arguments):
        if name == "DracoPy":
            raise ImportError(name)
        return plain_import(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without_draco)
    gltf = Gltf()
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
def test_broken_files_are_one_clear_line(tmp_path, change, message):
    gltf = Gltf()
    gltf.mesh()
    gltf.content |= change
    with pytest.raises(InputError, match=message) as caught:
        gltf.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_cut_off_glb(tmp_path):
    gltf = Gltf()
    gltf.mesh()
    path = gltf.save(tmp_path / "a.glb")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="cut off"):
        load_object(path)


def test_too_many_triangles_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("hi3d.rendering.gltf.MAX_FACES", 1)
    gltf = Gltf()
    gltf.mesh()
    gltf.content["nodes"].append({"mesh": 0})
    gltf.content["scenes"][0]["nodes"] = [0, 1]
    with pytest.raises(InputError, match="over 1 triangles: simplify it"):
        gltf.load(tmp_path)


def test_nan_vertices_and_uvs(tmp_path):
    positions = np.concatenate([TRIANGLE, TRIANGLE])
    positions[4, 1] = np.nan
    uvs = np.full((6, 2), 0.5)
    uvs[0] = np.nan
    gltf = Gltf()
    gltf.textured(black(), uvs, positions=positions)
    part = gltf.load(tmp_path)[0]
    assert len(part.faces) == 1
    assert np.isfinite(part.uvs).all()
    assert np.isfinite(load_object(tmp_path / "a.glb").bounds).all()


@pytest.mark.parametrize(
    ("mode", "alpha", "expected"),
    [("BLEND", 0.5, "BLEND"), ("BLEND", 1.0, "OPAQUE"), ("OPAQUE", 0.5, "OPAQUE")],
)
def test_blending_only_where_something_is_clear(tmp_path, mode, alpha, expected):
    gltf = Gltf()
    gltf.mesh(material=0)
    surface = {"baseColorFactor": [1, 1, 1, alpha]}
    gltf.content["materials"] = [{"pbrMetallicRoughness": surface, "alphaMode": mode}]
    assert gltf.load(tmp_path)[0].alpha_mode == expected


def test_invisible_parts_do_not_count(tmp_path):
    gltf = Gltf()
    gltf.mesh()
    gltf.mesh(TRIANGLE * 100, material=0)
    gltf.content["scenes"][0]["nodes"] = [0, 1]
    clear = {"pbrMetallicRoughness": {"baseColorFactor": [1, 1, 1, 0]}, "alphaMode": "BLEND"}
    gltf.content["materials"] = [clear]
    (part,) = gltf.load(tmp_path)
    np.testing.assert_allclose(part.vertices, TRIANGLE)
