"""PLY files are written by hand here, in text and in both byte orders."""

import struct

import numpy as np
import pytest
from PIL import Image

from hi3d.assets.load import load_object
from hi3d.errors import InputError

CODES = {"uchar": "B", "char": "b", "short": "h", "ushort": "H", "int": "i", "uint": "I",
         "float": "f", "double": "d"}  # fmt: skip
SQUARE = [(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0)]
XYZ = "float x y z"
KINDS = ["ascii", "binary_little_endian", "binary_big_endian"]


def write(path, elements, comments=(), kind="ascii"):
    """Elements: name, property lines (`float x y z` or `list uchar int vertex_indices`), rows."""
    header, body = ["ply", f"format {kind} 1.0", *(f"comment {c}" for c in comments)], b""
    order = ">" if "big" in kind else "<"
    for name, properties, rows in elements:
        header.append(f"element {name} {len(rows)}")
        columns = []
        for line in properties:
            words = line.split()
            if words[0] == "list":
                header.append(f"property {line}")
                columns.append((CODES[words[1]], CODES[words[2]]))
            else:
                header += [f"property {words[0]} {word}" for word in words[1:]]
                columns += [CODES[words[0]]] * (len(words) - 1)
        for row in rows:
            for code, value in zip(columns, row, strict=True):
                counted = [len(value), *value] if isinstance(code, tuple) else [value]
                codes = code[0] + code[1] * len(value) if isinstance(code, tuple) else code
                if kind == "ascii":
                    body += (" ".join(map(repr, counted)) + " ").encode()
                else:
                    body += struct.pack(order + codes, *counted)
            body += b"\n" if kind == "ascii" else b""
    path.write_bytes("\n".join([*header, "end_header\n"]).encode() + body)
    return path


def load(folder, elements, comments=(), kind="ascii"):
    return load_object(write(folder / "a.ply", elements, comments, kind), normalise=False).parts


def vertices(*extra_columns, rows=SQUARE):
    """A vertex element; extra columns are (property line, values for each vertex)."""
    lines = [XYZ, *(line for line, _ in extra_columns)]
    extended = [
        (*row, *(v for _, values in extra_columns for v in np.atleast_1d(values[i]).tolist()))
        for i, row in enumerate(rows)
    ]
    return "vertex", lines, extended


def faces(*rows, extra=()):
    return "face", ["list uchar int vertex_indices", *extra], rows


QUAD = faces(([0, 1, 2, 3],))
FOUR = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [51, 102, 255]])


@pytest.mark.parametrize("kind", KINDS)
def test_mixed_polygons(tmp_path, kind):
    """Lists of different lengths, after a scalar and before another list."""
    rows = [(7, [0, 1, 2, 3], [0.5, 0.25]), (8, [0, 2, 3], [1.0])]
    element = "face", ["int flags", "list uchar uint vertex_index", "list int float other"], rows
    (part,) = load(tmp_path, [vertices(), element], kind=kind)
    assert part.faces.tolist() == [[0, 1, 2], [0, 2, 3], [0, 2, 3]]
    np.testing.assert_allclose(part.vertices, SQUARE)
    np.testing.assert_allclose(part.base_color_factor, [0.8, 0.8, 0.8, 1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("line", "scale"),
    [
        ("uchar red green blue", 1),
        ("uchar r g b", 1),
        ("uchar diffuse_red diffuse_green diffuse_blue", 1),
        ("uchar vertex_r vertex_g vertex_b", 1),
        ("float red green blue", 1 / 255),
        ("float red green blue", 1),
        ("double Red Green Blue", 1 / 255),
        ("ushort red green blue", 257),
        ("int red green blue", 1),
    ],
)
def test_vertex_colors_by_any_name_and_scale(tmp_path, kind, line, scale):
    number = float if line.split()[0] in ("float", "double") else int
    colors = (FOUR * scale).astype(number)
    (part,) = load(tmp_path, [vertices((line, colors)), QUAD], kind=kind)
    np.testing.assert_allclose(part.vertex_rgba[:, :3], FOUR / 255, atol=1e-6)
    np.testing.assert_allclose(part.vertex_rgba[:, 3], 1)


def test_alpha_signed_bytes_and_packed_colors(tmp_path):
    with_alpha = np.concatenate([FOUR, [[128]] * 4], axis=1)
    (part,) = load(tmp_path, [vertices(("uchar red green blue alpha", with_alpha)), QUAD])
    np.testing.assert_allclose(part.vertex_rgba, with_alpha / 255, atol=1e-6)
    signed = FOUR.astype(np.uint8).view(np.int8).astype(int)
    (part,) = load(tmp_path, [vertices(("char red green blue", signed)), QUAD])
    np.testing.assert_allclose(part.vertex_rgba[:, :3], FOUR / 255, atol=1e-6)
    packed = FOUR @ [1 << 16, 1 << 8, 1]
    (part,) = load(tmp_path, [vertices(("uint rgb", packed)), QUAD])
    np.testing.assert_allclose(part.vertex_rgba[:, :3], FOUR / 255, atol=1e-6)


def test_vertex_colors_in_a_list(tmp_path):
    rows = [(*xyz, color.tolist()) for xyz, color in zip(SQUARE, FOUR, strict=True)]
    element = "vertex", [XYZ, "list uchar uchar color"], rows
    (part,) = load(tmp_path, [element, QUAD])
    np.testing.assert_allclose(part.vertex_rgba[:, :3], FOUR / 255, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_face_colors_of_quads_and_triangles(tmp_path, kind):
    """Quads with colors were refused."""
    element = faces(
        ([0, 1, 2, 3], 255, 0, 51), ([0, 2, 3], 0, 255, 0), extra=["uchar red green blue"]
    )
    (part,) = load(tmp_path, [vertices(), element], kind=kind)
    rgb = part.vertex_rgba[part.faces][:, :, :3]
    expected = np.array([[1, 0, 0.2], [1, 0, 0.2], [0, 1, 0]])
    np.testing.assert_allclose(rgb, np.repeat(expected[:, None], 3, axis=1))


def test_face_colors_count_where_all_vertices_are_alike(tmp_path):
    white = vertices(("uchar red green blue", np.full((4, 3), 255)))
    element = faces(([0, 1, 2], 255, 0, 0), ([0, 2, 3], 0, 255, 0), extra=["uchar red green blue"])
    (part,) = load(tmp_path, [white, element])
    assert part.vertex_rgba[part.faces[0], 1].tolist() == [0, 0, 0]
    colored = vertices(("uchar red green blue", FOUR))
    (part,) = load(tmp_path, [colored, element])
    np.testing.assert_allclose(part.vertex_rgba[:, :3], FOUR / 255, atol=1e-6)


def test_colors_of_face_corners_and_of_materials(tmp_path):
    corners = (FOUR[[0, 1, 2, 3]] / 255).ravel().tolist()
    element = faces(([0, 1, 2, 3], corners), extra=["list uchar float color"])
    (part,) = load(tmp_path, [vertices(), element])
    np.testing.assert_allclose(part.vertex_rgba[part.faces[1], :3], FOUR[[0, 2, 3]] / 255)
    element = faces(([0, 1, 2], 1), ([0, 2, 3], 0), extra=["int material_index"])
    materials = "material", ["uchar diffuse_red diffuse_green diffuse_blue"], FOUR[:2].tolist()
    (part,) = load(tmp_path, [vertices(), element, materials])
    np.testing.assert_allclose(part.vertex_rgba[part.faces[0], :3], [[0, 1, 0]] * 3)


UVS = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], float)


@pytest.mark.parametrize("names", ["s t", "u v", "texture_u texture_v"])
def test_uvs_without_a_texture(tmp_path, names):
    """Both were a dark grey that stood nowhere in the file."""
    uvs = (f"float {names}", UVS)
    (part,) = load(tmp_path, [vertices(uvs), QUAD])
    np.testing.assert_allclose(part.base_color_factor, [0.8, 0.8, 0.8, 1])
    assert part.texture is None
    (part,) = load(tmp_path, [vertices(uvs, ("uchar red green blue", FOUR)), QUAD])
    np.testing.assert_allclose(part.vertex_rgba[:, :3], FOUR / 255, atol=1e-6)


def test_texture_of_vertex_uvs(tmp_path):
    Image.new("RGB", (1, 1), (9, 8, 7)).save(tmp_path / "my Wood.png")
    colored = vertices(("float s t", UVS), ("uchar red green blue", FOUR))
    (part,) = load(tmp_path, [colored, QUAD], ["TextureFile my wood.PNG"])
    assert part.texture[0, 0].tolist() == [9, 8, 7, 255]
    np.testing.assert_allclose(part.uvs, UVS)
    assert len(part.vertices) == 4
    assert part.vertex_rgba is None


def test_several_textures_of_face_uvs(tmp_path):
    for index in (1, 2):
        Image.new("RGB", (1, 1), (index, 0, 0)).save(tmp_path / f"{index}.png")
    half = (UVS / 2).ravel().tolist()
    element = faces(
        ([0, 1, 2, 3], half, 1), ([0, 1, 2], half[:6], 0), ([0, 1, 2], half[:6], -1),
        extra=["list uchar float texcoord", "int texnumber"],
    )  # fmt: skip
    parts = load(tmp_path, [vertices(), element], ["TextureFile 1.png", "TextureFile 2.png"])
    first, second, rest = parts
    assert first.texture[0, 0, 0] == 1
    assert second.texture[0, 0, 0] == 2
    assert rest.texture is None
    assert [len(part.faces) for part in parts] == [1, 2, 1]
    np.testing.assert_allclose(second.uvs[second.faces[1]], UVS[[0, 2, 3]] / 2)
    np.testing.assert_allclose(rest.base_color_factor, [0.8, 0.8, 0.8, 1])


def test_missing_texture_is_an_error_where_it_would_show(tmp_path, capsys):
    elements = [vertices(("float s t", UVS)), QUAD]
    with pytest.raises(InputError, match=r"texture gone.png of .* is missing: put it beside"):
        load(tmp_path, elements, ["TextureFile gone.png"])
    (part,) = load(tmp_path, [vertices(), QUAD], ["TextureFile gone.png"])
    assert part.texture is None
    assert not capsys.readouterr().err


@pytest.mark.parametrize("kind", KINDS)
def test_triangle_strips(tmp_path, kind):
    """Stanford's scans have them; their winding alternates, and starts anew after -1."""
    rows = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (1, 1, 0), (0, 2, 0)]
    strips = "tristrips", ["list int int vertex_indices"], [([0, 1, 2, 3, 4, -1, 2, 3, 4, -1],)]
    (part,) = load(tmp_path, [vertices(rows=rows), strips], kind=kind)
    assert part.faces.tolist() == [[0, 1, 2], [2, 1, 3], [2, 3, 4], [2, 3, 4]]
    a, b, c = part.vertices[part.faces].transpose(1, 0, 2)
    assert (np.cross(b - a, c - a)[:, 2] > 0).all()


def test_lines_of_text_may_be_longer_than_their_properties(tmp_path):
    path = write(tmp_path / "a.ply", [vertices(), faces(([0, 1, 2],), ([0, 2, 3],))])
    path.write_text(path.read_text().replace("3 0 1 2", "3 0 1 2 9 1 1"))
    (part,) = load_object(path).parts
    assert part.faces.tolist() == [[0, 1, 2], [0, 2, 3]]


@pytest.mark.parametrize("kind", KINDS)
def test_cut_off_files_are_one_clear_line(tmp_path, kind):
    path = write(tmp_path / "a.ply", [vertices(), faces(([0, 1, 2],), ([0, 1, 2, 3],))], kind=kind)
    data = path.read_bytes()
    for length in (len(data) - 9, len(data) - 30, 40):
        path.write_bytes(data[:length])
        with pytest.raises(InputError, match="cannot read object") as caught:
            load_object(path)
        assert "\n" not in str(caught.value)
