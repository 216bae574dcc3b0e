"""OBJ files are written by hand here."""

import numpy as np
import pytest
from PIL import Image

from hi3d.assets.load import load_object
from hi3d.errors import InputError

UVS = "vt 0 0\nvt 1 0\nvt 0 1\n"
TRIANGLE = "v 0 0 0\nv 1 0 0\nv 0 1 0\n"


def load(folder, text, mtl=None):
    (folder / "a.obj").write_text(("mtllib a.mtl\n" if mtl is not None else "") + text)
    if mtl is not None:
        (folder / "a.mtl").write_text(mtl)
    return load_object(folder / "a.obj", normalise=False, up="z").parts


def test_polygons_and_relative_indices(tmp_path):
    # A concave arrow of area 1.25; a fan from its first corner would leave it at the notch.
    arrow = "v 2 0 0\nv 1 0.5 0\nv 1 2 0\nv 0 0 0\nf -4 -3 -2 -1\nv 9 9 9\n"
    (part,) = load(tmp_path, arrow)
    a, b, c = part.vertices[part.faces].transpose(1, 0, 2)
    areas = np.cross(b - a, c - a)[:, 2] / 2
    np.testing.assert_allclose(areas.sum(), 1.25)
    assert (areas > 0).all()
    assert part.vertices.max() == 2


def test_materials_split_parts_and_share_vertices(tmp_path):
    mtl = "newmtl red\nKd 0.6 0 0\nnewmtl blue\nKd 0 0 0.4\n"
    text = TRIANGLE + "v 1 1 0\nusemtl red\nf 1 2 3\nusemtl blue\nf 2 4 3\n"
    parts = load(tmp_path, text, mtl)
    colors = sorted(tuple(part.base_color_factor.round(3)) for part in parts)
    np.testing.assert_allclose(colors, [[0, 0, 0.4, 1], [0.6, 0, 0, 1]])
    assert [len(part.vertices) for part in parts] == [3, 3]


def test_faces_without_a_material_are_light_grey(tmp_path):
    (part,) = load(tmp_path, TRIANGLE + "f 1 2 3\n")
    np.testing.assert_allclose(part.base_color_factor, [0.8, 0.8, 0.8, 1])


def test_vertex_colors_are_srgb_and_replace_kd(tmp_path):
    text = "v 0 0 0 0.2 0 0\nv 1 0 0 0 0.4 0\nv 0 1 0 0 0 1\nusemtl m\nf 1 2 3\n"
    (part,) = load(tmp_path, text, "newmtl m\nKd 0.1 0.1 0.1\n")
    rgba = part.vertex_rgba[part.faces[0]]
    np.testing.assert_allclose(rgba, [[0.2, 0, 0, 1], [0, 0.4, 0, 1], [0, 0, 1, 1]], atol=1e-6)
    np.testing.assert_allclose(part.base_color_factor, 1)


@pytest.mark.parametrize("line", ["d 0.25", "Tr 0.75"])
def test_dissolve_is_alpha(tmp_path, line):
    mtl = f"newmtl glass\nKd 0 1 0\n{line}\n"
    (part,) = load(tmp_path, TRIANGLE + "usemtl glass\nf 1 2 3\n", mtl)
    assert part.alpha_mode == "BLEND"
    np.testing.assert_allclose(part.base_color_factor, [0, 1, 0, 0.25])


def test_alpha_comes_from_map_d_only(tmp_path):
    image = np.full((1, 4, 4), 200, np.uint8)
    image[0, :, 3] = [0, 255, 255, 0]
    Image.fromarray(image).save(tmp_path / "leaf.png")
    text = TRIANGLE + UVS + "usemtl m\nf 1/1 2/2 3/3\n"
    (part,) = load(tmp_path, text, "newmtl m\nmap_Kd leaf.png\n")
    assert part.alpha_mode == "OPAQUE"
    (part,) = load(tmp_path, text, "newmtl m\nmap_Kd leaf.png\nmap_d leaf.png\n")
    assert part.alpha_mode == "MASK"
    assert part.texture[0, :, 3].tolist() == [0, 255, 255, 0]


def test_faces_without_uvs_take_kd(tmp_path):
    mtl = "newmtl m\nKd 0.6 0 0\nmap_Kd gone.png\n"
    (part,) = load(tmp_path, TRIANGLE + "usemtl m\nf 1 2 3\n", mtl)
    assert part.texture is None
    np.testing.assert_allclose(part.base_color_factor, [0.6, 0, 0, 1], atol=1e-6)


def test_grey_map_d_of_another_size(tmp_path):
    Image.new("RGB", (2, 2), (9, 8, 7)).save(tmp_path / "kd.png")
    Image.new("L", (1, 1), 128).save(tmp_path / "d.png")
    mtl = "newmtl m\nmap_Kd kd.png\nmap_d d.png\n"
    (part,) = load(tmp_path, TRIANGLE + UVS + "usemtl m\nf 1/1 2/2 3/3\n", mtl)
    assert part.alpha_mode == "BLEND"  # nothing is opaque or clear
    assert part.texture[1, 1].tolist() == [9, 8, 7, 128]


def test_texture_options_and_foreign_paths(tmp_path):
    (tmp_path / "textures").mkdir()
    Image.new("RGB", (1, 1), (9, 8, 7)).save(tmp_path / "textures" / "Wood.png")
    mtl = "newmtl m\nmap_Kd -s 1 1 1 C:\\art\\wood.PNG\n"
    (part,) = load(tmp_path, TRIANGLE + UVS + "usemtl m\nf 1/1 2/2 3/3\n", mtl)
    assert part.texture[0, 0].tolist() == [9, 8, 7, 255]


@pytest.mark.parametrize(
    ("mtl", "message"),
    [("newmtl m\nmap_Kd gone.png\n", "texture gone.png .* is missing"), (None, "material file")],
)
def test_missing_files_are_errors(tmp_path, mtl, message):
    text = TRIANGLE + UVS + "usemtl m\nf 1/1 2/2 3/3\n"
    with pytest.raises(InputError, match=message) as caught:
        load(tmp_path, text if mtl else "mtllib gone.mtl\n" + text, mtl)
    assert "\n" not in str(caught.value)


def test_material_file_of_the_same_name_stands_in(tmp_path):
    (tmp_path / "a.mtl").write_text("newmtl red\nKd 0.6 0 0\n")
    (part,) = load(tmp_path, "mtllib gone.mtl\n" + TRIANGLE + "usemtl red\nf 1 2 3\n")
    np.testing.assert_allclose(part.base_color_factor, [0.6, 0, 0, 1], atol=1e-6)


def test_nan_vertices_drop_their_faces(tmp_path):
    (part,) = load(tmp_path, TRIANGLE + "v 0 nan 5\nv inf 0 0\nf 1 2 3\nf 1 2 4\nf 1 2 5\n")
    assert len(part.faces) == 1
    assert part.vertices[part.faces].max() == 1


@pytest.mark.parametrize("mtl", ["newmtl m\nKd 0.1 0.1 0.1\nmap_Kd texture.png\n", "", None])
def test_scanned_objects_find_their_texture_and_stand_z_up(tmp_path, mtl):
    meshes = tmp_path / "Bowl" / "meshes"
    textures = tmp_path / "Bowl" / "materials" / "textures"
    meshes.mkdir(parents=True)
    textures.mkdir(parents=True)
    Image.new("RGB", (2, 1), (9, 8, 7)).save(textures / "texture.png")
    text = "mtllib model.mtl\n" + TRIANGLE + "v 0 0 3\n" + UVS + "usemtl m\nf 1/1 2/2 4/3\n"
    (meshes / "model.obj").write_text(text)
    if mtl is not None:
        (meshes / "model.mtl").write_text(mtl)
    part = load_object(meshes / "model.obj", normalise=False).parts[0]
    assert part.texture[0, 0].tolist() == [9, 8, 7, 255]
    np.testing.assert_allclose(part.base_color_factor, 1)
    np.testing.assert_allclose(part.vertices.max(axis=0), [1, 0, 3])


def test_polygons_of_missing_vertices_are_one_clear_line(tmp_path):
    """The parser read beyond its memory, which ended the process."""
    with pytest.raises(InputError, match="refers to vertex 799999, but there are 3"):
        load(tmp_path, TRIANGLE + "f 1 2 3 799999\n")
