"""Names, encodings, options and vertex values of OBJ and MTL files as tools write them."""

import codecs
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hi3d.assets.load import load_object
from hi3d.assets.parts import Sampler
from hi3d.assets.wavefront.materials import parse_map
from hi3d.errors import InputError

OBJ = "v 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\nusemtl m\nf 1/1 2/2 3/3\n"
COLOR = [9, 8, 7, 255]


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    if content is None:
        Image.new("RGB", (1, 1), tuple(COLOR[:3])).save(path)
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def load(path, **options):
    return load_object(path, normalise=False, up="z", **options).parts


@pytest.mark.parametrize(
    ("obj", "mtl", "name", "texture"),
    [
        ("a.obj", "mats/a.mtl", "t.png", "mats/t.png"),  # beside the MTL
        ("a.obj", "mats/a.mtl", "t.png", "t.png"),  # beside the OBJ
        ("models/a.obj", "models/a.mtl", "../images/t.jpg", "images/t.jpg"),  # ShapeNet
        ("mesh/a.obj", "mesh/a.mtl", "..\\maps\\t.png", "maps/t.png"),
        ("mesh/a.obj", "mtl/a.mtl", "../maps/t.png", "maps/t.png"),
        ("a.obj", "a.mtl", "Maps/T.png", "maps/t.PNG.png"),  # its folder differs in case
    ],
)
def test_textures_are_looked_up_from_the_mtl_then_the_obj(tmp_path, obj, mtl, name, texture):
    """They were looked up beside the OBJ alone."""
    put(tmp_path / "1" / texture.replace(".PNG", ""), None)
    put(tmp_path / "1" / mtl, f"newmtl m\nmap_Kd {name}\n")
    up = "../" * obj.count("/")
    path = put(tmp_path / "1" / obj, f"mtllib {up}{mtl}\n{OBJ}")
    assert load(path)[0].texture[0, 0] == pytest.approx(COLOR, abs=3)


def test_paths_leave_the_collection_with_a_message(tmp_path):
    put(tmp_path / "maps" / "t.png", None)
    put(tmp_path / "all" / "1" / "mesh" / "m.mtl", "newmtl m\nmap_Kd ../../../maps/t.png\n")
    path = put(tmp_path / "all" / "1" / "mesh" / "a.obj", "mtllib m.mtl\n" + OBJ)
    with pytest.raises(InputError, match=rf"leaves its folder {tmp_path}/all: move it there"):
        load(path, root=tmp_path / "all")
    with pytest.raises(InputError, match=rf"leaves its folder {tmp_path}/all/1: move it there"):
        load(path)
    assert load(path, root=tmp_path)[0].texture[0, 0].tolist() == COLOR
    put(path, "mtllib ../../../m.mtl\n" + OBJ)
    with pytest.raises(InputError, match=r"material file .* leaves its folder"):
        load(path)


@pytest.mark.parametrize(
    ("line", "files"),
    [
        ("my materials.mtl", ["my materials.mtl"]),
        ('"my materials.mtl"', ["my materials.mtl"]),
        ("other.mtl my materials.mtl", ["other.mtl", "my materials.mtl"]),
        ("M.MTL", ["m.mtl"]),
        ("C:\\art\\m.mtl", ["m.mtl"]),
        ("mats/M.mtl", ["Mats/m.mtl"]),
        ("gone.mtl m.mtl", ["m.mtl"]),
    ],
)
def test_names_of_material_files(tmp_path, line, files):
    for file in files:
        put(tmp_path / file, "newmtl m\nKd 0.6 0 0\n" if file == files[-1] else "newmtl x\n")
    if line.startswith("gone"):
        line = line.replace("gone.mtl ", "gone.mtl\nmtllib ")
    (part,) = load(put(tmp_path / "a.obj", f"mtllib {line}\n{OBJ}"))
    np.testing.assert_allclose(part.base_color_factor, [0.6, 0, 0, 1], atol=1e-6)


@pytest.mark.parametrize("keyword", ["map_Kd", "map_kd", "  map_Kd\t"])
@pytest.mark.parametrize("name", ["my tex.png", "MY TEX.PNG", '"my tex.png"', "2 2.png"])
def test_names_of_textures(tmp_path, name, keyword):
    put(tmp_path / name.strip('"').lower(), None)
    put(tmp_path / "m.mtl", f"newmtl m\n{keyword} {name}\n")
    (part,) = load(put(tmp_path / "a.obj", "mtllib m.mtl\n" + OBJ))
    assert part.texture[0, 0].tolist() == COLOR


@pytest.mark.parametrize(
    ("encoding", "mark"),
    [
        ("utf-8", codecs.BOM_UTF8),
        ("utf-16-le", codecs.BOM_UTF16_LE),
        ("utf-16-be", codecs.BOM_UTF16_BE),
        ("utf-16-be", b""),
        ("latin-1", b""),
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_encodings(tmp_path, encoding, mark, newline):
    """A byte order mark hid the first line, and Latin-1 ended the loading."""
    put(tmp_path / "mö.png", None)
    mtl, obj = "newmtl m\nmap_Kd mö.png\n", "mtllib m.mtl\n# ö\n" + OBJ
    put(tmp_path / "m.mtl", mark + mtl.replace("\n", newline).encode(encoding))
    path = put(tmp_path / "a.obj", mark + obj.replace("\n", newline).encode(encoding))
    assert load(path)[0].texture[0, 0].tolist() == COLOR


@pytest.mark.parametrize("encoding", ["shift_jis", "gbk"])
def test_names_in_other_encodings_and_letters(tmp_path, encoding):
    put(tmp_path / "机.png", None)
    put(tmp_path / "m.mtl", "newmtl m\nmap_Kd 机.png\n".encode(encoding))
    path = put(tmp_path / "a.obj", "mtllib m.mtl\n" + OBJ)
    assert load(path)[0].texture[0, 0].tolist() == COLOR
    put(tmp_path / unicodedata.normalize("NFD", "mö.png"), None)
    put(tmp_path / "m.mtl", "newmtl m\nmap_Kd mö.png\n")
    assert load(path)[0].texture[0, 0].tolist() == COLOR


def test_broken_utf_16_names_the_encoding(tmp_path):
    path = put(tmp_path / "a.obj", codecs.BOM_UTF16_BE + OBJ.encode("utf-16-be")[:-1])
    with pytest.raises(InputError, match="UTF-16-BE"):
        load(path)


def test_continued_lines(tmp_path):
    """Rhino breaks long lines. A comment may end in a path of Windows."""
    text = "v 0 0 0\n# C:\\models\\\nv 1 0 \\\n0\nv 1 1 0\nv 0 1 0\nf 1 2 \\  \n 3 \\\r\n4\n"
    (part,) = load(put(tmp_path / "a.obj", text))
    assert len(part.faces) == 2
    np.testing.assert_allclose(part.vertices.max(axis=0), [1, 1, 0])


@pytest.mark.parametrize(
    ("text", "name", "scale", "offset", "clamped"),
    [
        ("-s 2 3 t.png", "t.png", (2, 3), (0, 0), False),
        ("-s 2 t.png", "t.png", (2, 1), (0, 0), False),
        ("-s 2 3 1 -o 0.5 0.25 0 my t.png", "my t.png", (2, 3), (0.5, 0.25), False),
        ("-o 0.5 t.png", "t.png", (1, 1), (0.5, 0), False),
        ("-clamp on -t 0 0 -mm 0 1 -bm 1.0 t.png", "t.png", (1, 1), (0, 0), True),
        ("-clamp off -blendu on -blendv off t.png", "t.png", (1, 1), (0, 0), False),
        ("-cc on -imfchan l -texres 512 -boost 1 -type sphere t.png", "t.png", (1, 1), (0, 0), 0),
        ("-s 1 1 1 2.5", "2.5", (1, 1), (0, 0), False),
        ("t.png # wood", "t.png", (1, 1), (0, 0), False),
        ("-dash.png", "-dash.png", (1, 1), (0, 0), False),
    ],
)
def test_options_of_maps(text, name, scale, offset, clamped):
    """With fewer than three numbers, the name of the file was swallowed; others were ignored."""
    found = parse_map(text, Path())
    assert (found.name, found.scale, found.offset) == (name, scale, offset)
    assert found.clamped == clamped


def test_scale_offset_and_clamp_are_applied(tmp_path):
    put(tmp_path / "t.png", None)
    put(tmp_path / "m.mtl", "newmtl m\nmap_Kd -s 2 3 -o 0.5 0.25 -clamp on t.png\n")
    (part,) = load(put(tmp_path / "a.obj", "mtllib m.mtl\n" + OBJ))
    np.testing.assert_allclose(part.uvs, [[0.5, 0.25], [2.5, 0.25], [0.5, 3.25]])
    assert part.sampler == Sampler((True, True))


@pytest.mark.parametrize(
    "color",
    ["0 128 255", "0 0.50196 1", "0 32896 65535", "1 0 128 255", "0 128 255 255", "1 0 128 255 9"],
)
def test_vertex_colors_of_any_scale_and_with_weights(tmp_path, color):
    """0 to 255 was clipped at 1. Seven values are x y z w r g b where all w are 1."""
    text = f"v 0 0 0 {color}\nv 1 0 0 {color}\nv 0 1 0 {color}\nf 1 2 3\n"
    (part,) = load(put(tmp_path / "a.obj", text))
    np.testing.assert_allclose(part.vertex_rgba[:, :3], [[0, 128 / 255, 1]] * 3, atol=1e-4)
    np.testing.assert_allclose(part.vertices.max(axis=0), [1, 1, 0])


def test_weights_alone_and_some_colors_among_vertices(tmp_path):
    (part,) = load(put(tmp_path / "a.obj", "v 0 0 0 1\nv 2 0 0 0.5\nv 0 2 0 1 # w\nf 1 2 3\n"))
    assert part.vertex_rgba is None
    np.testing.assert_allclose(part.vertices, [[0, 0, 0], [2, 0, 0], [0, 2, 0]])
    (part,) = load(put(tmp_path / "a.obj", "v 0 0 0\nv 2 0 0 255 0 0\nv 0 2 0\nf 1 2 3\n"))
    np.testing.assert_allclose(part.vertex_rgba[:, :3], [[1, 1, 1], [1, 0, 0], [1, 1, 1]])


@pytest.mark.parametrize(
    ("mtl", "expected"),
    [
        ("Kd 0 0 0\nKe 0.5 0.25 0\n", [0.5, 0.25, 0]),
        ("Kd 0 0 0\nmap_Ke t.png\n", COLOR),
        ("map_Kd black.png\nKe 0 0 1\n", [0, 0, 1]),
        ("Kd 0.1 0 0\nKe 0 0 1\n", [0.1, 0, 0]),
        ("Kd 0.5\n", [0.5, 0.5, 0.5]),
    ],
)
def test_emission_of_black_materials(tmp_path, mtl, expected):
    put(tmp_path / "t.png", None)
    Image.new("RGB", (1, 1)).save(tmp_path / "black.png")
    put(tmp_path / "m.mtl", "newmtl m\n" + mtl)
    (part,) = load(put(tmp_path / "a.obj", "mtllib m.mtl\n" + OBJ))
    if expected == COLOR:
        assert part.texture[0, 0].tolist() == COLOR
    else:
        assert part.texture is None
        np.testing.assert_allclose(part.base_color_factor[:3], expected, atol=1e-6)


def test_material_file_is_missed_only_for_materials_that_are_used(tmp_path):
    put(tmp_path / "m.mtl", "newmtl m\nKd 0.6 0 0\n")
    (part,) = load(put(tmp_path / "a.obj", "mtllib gone.mtl\nmtllib m.mtl\n" + OBJ))
    np.testing.assert_allclose(part.base_color_factor[0], 0.6, atol=1e-6)
    unused = OBJ.replace("usemtl m", "usemtl")
    (part,) = load(put(tmp_path / "a.obj", "mtllib gone.mtl\n" + unused))
    np.testing.assert_allclose(part.base_color_factor, [0.8, 0.8, 0.8, 1])
    with pytest.raises(InputError, match=r"material file gone.mtl .* is missing"):
        load(put(tmp_path / "a.obj", "mtllib gone.mtl\nmtllib m.mtl\n" + OBJ + "usemtl x\nf 1 2 3"))
