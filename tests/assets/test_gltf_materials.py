"""Textures, colours and transparency of glTF; the files are built by `Gltf` of conftest.py."""

import io

import numpy as np
import pytest
from PIL import Image

from hi3d.assets.load import load_object
from hi3d.assets.parts import Sampler
from hi3d.color import linear_from_srgb
from hi3d.errors import InputError


def test_separate_buffer_and_image_files(gltf, tmp_path):
    gltf.textured(gltf.black(), [[0, 0]] * 3)
    Image.new("RGB", (4, 2), (9, 8, 7)).save(tmp_path / "my wood.png")
    gltf.content["images"] = [{"uri": "my%20wood.png"}]
    part = load_object(gltf.save(tmp_path / "a.gltf")).parts[0]
    assert part.texture.shape == (2, 4, 4)
    assert part.texture[0, 0].tolist() == [9, 8, 7, 255]


@pytest.mark.parametrize("where", ["beside", "textures", "../textures"])
def test_textures_are_found_in_the_usual_folders(gltf, tmp_path, where):
    gltf.textured(gltf.black(), [[0, 0]] * 3)
    gltf.content["images"] = [{"uri": "C:\\art\\Wood.PNG"}]
    folder = tmp_path / "object" / "source"
    place = folder if where == "beside" else folder / where
    folder.mkdir(parents=True)
    place.mkdir(exist_ok=True)
    Image.new("RGB", (1, 1), (9, 8, 7)).save(place / "wood.png")
    part = load_object(gltf.save(folder / "a.gltf")).parts[0]
    assert part.texture[0, 0].tolist() == [9, 8, 7, 255]


def test_missing_texture_is_an_error(gltf, tmp_path):
    gltf.textured(gltf.black(), [[0, 0]] * 3)
    gltf.content["images"] = [{"uri": "gone.png"}]
    with pytest.raises(InputError, match=r"texture gone.png .* is missing: put it beside"):
        gltf.load(tmp_path)


def test_texture_transform_moves_uvs(gltf, tmp_path):
    transform = {"offset": [0.25, 0.5], "rotation": np.pi / 2, "scale": [2, 3]}
    info = {"extensions": {"KHR_texture_transform": transform}}
    gltf.textured(gltf.black(), [[1, 0], [0, 1], [0, 0]], info)
    uvs = gltf.load(tmp_path)[0].uvs
    # u' = cos * 2u + sin * 3v + 0.25 = 3v + 0.25, v' = -sin * 2u + cos * 3v + 0.5 = 0.5 - 2u,
    # then v up: 1 - v' = 0.5 + 2u.
    np.testing.assert_allclose(uvs, [[0.25, 2.5], [3.25, 0.5], [0.25, 0.5]], atol=1e-6)


@pytest.mark.parametrize("by_transform", [False, True])
def test_texture_uses_the_uv_set_it_names(gltf, tmp_path, by_transform):
    info = {"texCoord": 1}
    if by_transform:
        info = {"texCoord": 0, "extensions": {"KHR_texture_transform": {"texCoord": 1}}}
    primitive = gltf.textured(gltf.black(), [[0.9, 0.9]] * 3, info)
    second = np.array([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]], np.float32)
    primitive["attributes"]["TEXCOORD_1"] = gltf.accessor(second)
    np.testing.assert_allclose(gltf.load(tmp_path)[0].uvs, second * [1, -1] + [0, 1], atol=1e-6)


def test_mirrored_repeat_becomes_plain_repeat(gltf, tmp_path):
    image = gltf.black((1, 2))
    image[0, :, 0] = 10, 20
    gltf.textured(image, [[0, 0], [2, 0], [0, 1]], texture={"source": 0, "sampler": 0})
    gltf.content["samplers"] = [{"wrapS": 33648}]
    part = gltf.load(tmp_path)[0]
    assert part.texture[0, :, 0].tolist() == [10, 20, 20, 10]
    np.testing.assert_allclose(part.uvs, [[0, 1], [1, 1], [0, 0]])
    assert part.sampler == Sampler()


@pytest.mark.parametrize(
    ("sampler", "beyond", "expected"),
    [
        ({}, 1, Sampler()),
        ({"wrapS": 33071}, 2, Sampler((True, False))),
        ({"wrapT": 33071}, 2, Sampler((False, True))),
        ({"wrapS": 33071, "wrapT": 33071, "magFilter": 9728}, 1, Sampler((True, True), True)),
        ({"magFilter": 9729, "minFilter": 9728}, 1, Sampler()),
        ({"wrapS": 33648, "wrapT": 33648}, 1, Sampler((True, True))),  # mirrors nothing
        ({"wrapS": 33648, "wrapT": 33071}, 2, Sampler((False, True))),  # mirrored by its texels
    ],
)
def test_samplers(gltf, tmp_path, sampler, beyond, expected):
    """Clamped textures repeated, and pixel art was blurred."""
    uvs = [[0, 0], [beyond, 0], [0, beyond]]
    gltf.textured(gltf.black(), uvs, texture={"source": 0, "sampler": 0})
    gltf.content["samplers"] = [sampler]
    assert gltf.load(tmp_path)[0].sampler == expected


def test_webp_textures(gltf, tmp_path):
    texture = {"source": 0, "extensions": {"EXT_texture_webp": {"source": 1}}}
    gltf.textured(gltf.black(), [[0, 0]] * 3, texture=texture)
    webp = io.BytesIO()
    Image.new("RGB", (3, 1), (50, 100, 150)).save(webp, "WEBP", lossless=True)
    gltf.content["images"].append({"bufferView": gltf.view(webp.getvalue())})
    texture = gltf.load(tmp_path)[0].texture
    assert texture.tolist() == [[[50, 100, 150, 255]] * 3]


def test_ktx2_textures_are_refused(gltf, tmp_path):
    texture = {"extensions": {"KHR_texture_basisu": {"source": 0}}}
    gltf.textured(gltf.black(), [[0, 0]] * 3, texture=texture)
    with pytest.raises(InputError, match="KHR_texture_basisu"):
        gltf.load(tmp_path)


def test_specular_glossiness_gives_its_diffuse_color(gltf, tmp_path):
    gltf.mesh(material=0)
    diffuse = {"diffuseFactor": [0.5, 1, 0, 1], "specularFactor": [1, 1, 1]}
    extensions = {"KHR_materials_pbrSpecularGlossiness": diffuse}
    gltf.content["materials"] = [{"extensions": extensions}]
    factor = gltf.load(tmp_path)[0].base_color_factor
    np.testing.assert_allclose(factor, [0.735357, 1, 0, 1], atol=1e-6)


def test_unlit_material_gives_its_base_color(gltf, tmp_path):
    gltf.mesh(material=0)
    gltf.content["extensionsRequired"] = ["KHR_materials_unlit"]
    surface = {"baseColorFactor": [0.5, 1, 0, 1]}
    gltf.content["materials"] = [
        {"pbrMetallicRoughness": surface, "extensions": {"KHR_materials_unlit": {}}}
    ]
    factor = gltf.load(tmp_path)[0].base_color_factor
    np.testing.assert_allclose(factor, [0.735357, 1, 0, 1], atol=1e-6)


@pytest.mark.parametrize("base", [0.0, 1.0])
def test_emission_is_the_color_only_where_the_base_is_black(gltf, tmp_path, base):
    gltf.textured(gltf.black(), [[0, 0]] * 3)
    surface = {"baseColorFactor": [base, base, base, 1]}
    emission = {"emissiveFactor": [1, 0.5, 0], "emissiveTexture": {"index": 0}}
    gltf.content["materials"] = [{"pbrMetallicRoughness": surface, **emission}]
    part = gltf.load(tmp_path)[0]
    assert (part.texture is None) == (base == 1)
    expected = [1, 0.735357, 0, 1] if base == 0 else [1, 1, 1, 1]
    np.testing.assert_allclose(part.base_color_factor, expected, atol=1e-6)


@pytest.mark.parametrize("in_extension", [False, True])
def test_a_black_texture_gives_way_to_emission(gltf, tmp_path, in_extension):
    gltf.textured(gltf.black(), [[0, 0]] * 3, emissiveFactor=[0.1, 0.2, 0.4])
    if in_extension:
        strength = {"KHR_materials_emissive_strength": {"emissiveStrength": 3}}
        gltf.content["materials"][0]["extensions"] = strength
    (part,) = gltf.load(tmp_path)
    assert part.texture is None
    linear = np.array([0.1, 0.2, 0.4]) * (3 if in_extension else 1)
    np.testing.assert_allclose(
        linear_from_srgb(part.base_color_factor[:3]), linear.clip(0, 1), atol=1e-6
    )


def test_emission_has_its_own_texture_and_no_vertex_colors(gltf, tmp_path):
    primitive = gltf.textured(gltf.black(), [[0, 0]] * 3, emissiveFactor=[1, 1, 1])
    png = io.BytesIO()
    Image.new("RGB", (1, 1), (9, 8, 7)).save(png, "PNG")
    gltf.content["images"].append({"bufferView": gltf.view(png.getvalue())})
    gltf.content["textures"].append({"source": 1})
    gltf.content["materials"][0]["emissiveTexture"] = {"index": 1}
    primitive["attributes"]["COLOR_0"] = gltf.accessor(np.zeros((3, 3), np.float32))
    (part,) = gltf.load(tmp_path)
    assert part.texture[0, 0].tolist() == [9, 8, 7, 255]
    np.testing.assert_allclose(part.vertex_rgba, 1)
    # 9 of 255 is 9 / 255 / 12.92 in linear light; times 12.92 it is 53 of 255 in sRGB.
    gltf.content["materials"][0] |= {"emissiveFactor": [1, 0, 0.5]}
    strength = {"KHR_materials_emissive_strength": {"emissiveStrength": 12.92}}
    gltf.content["materials"][0]["extensions"] = strength
    (part,) = gltf.load(tmp_path)
    assert part.texture[0, 0].tolist() == [53, 50, 46, 255]
    np.testing.assert_allclose(part.base_color_factor[:3], [1, 0, 0.735357], atol=1e-6)


def test_emission_does_not_replace_a_dark_texture(gltf, tmp_path):
    image = gltf.black()
    image[0, 0, :3] = 20
    gltf.textured(image, [[0, 0]] * 3, emissiveFactor=[1, 0, 0])
    assert gltf.load(tmp_path)[0].texture[0, 0, 0] == 20


@pytest.mark.parametrize(
    ("cutoff", "alpha", "mode"),
    [(0.0, 0.0, "OPAQUE"), (0.5, 0.5, "OPAQUE"), (0.5, 0.25, "MASK"), (1.5, 1.0, "MASK")],
)
def test_points_with_the_cutoffs_own_alpha_are_there(gltf, tmp_path, cutoff, alpha, mode):
    """alphaCutoff 0 cut out what has alpha 0."""
    gltf.mesh(material=0)
    surface = {"baseColorFactor": [1, 1, 1, alpha]}
    material = {"pbrMetallicRoughness": surface, "alphaMode": "MASK", "alphaCutoff": cutoff}
    gltf.content["materials"] = [material]
    assert gltf.load(tmp_path)[0].alpha_mode == mode


@pytest.mark.parametrize("uri", ["../maps/t.png", "../../maps/t.png"])
def test_textures_lie_in_the_folder_of_the_collection(gltf, tmp_path, uri):
    folder = tmp_path / "a" / "b" / "c"
    folder.mkdir(parents=True)
    place = (folder / uri).resolve()
    place.parent.mkdir()
    Image.new("RGB", (1, 1), (9, 8, 7)).save(place)
    gltf.textured(gltf.black(), [[0, 0]] * 3)
    gltf.content["images"] = [{"uri": uri}]
    path = gltf.save(folder / "a.gltf")
    parts = load_object(path, root=tmp_path).parts
    assert parts[0].texture[0, 0].tolist() == [9, 8, 7, 255]
    if uri.startswith("../.."):  # without the collection, the folder above is all that is known
        with pytest.raises(InputError, match=r"leaves its folder .*b: move it there"):
            load_object(path)
    else:
        assert load_object(path).parts[0].texture is not None


def test_integer_vertex_colors_are_linear_fractions(gltf, tmp_path):
    colors = np.array([[65535, 0, 0], [32768, 0, 0], [0, 0, 0]], np.uint16)
    gltf.mesh(attributes={"COLOR_0": gltf.accessor(colors, normalized=True)})
    red = gltf.load(tmp_path)[0].vertex_rgba[:, 0]
    np.testing.assert_allclose(red, [1, 0.735364, 0], atol=1e-5)  # of linear 32768 / 65535


@pytest.mark.parametrize(
    ("mode", "alpha", "expected"),
    [("BLEND", 0.5, "BLEND"), ("BLEND", 1.0, "OPAQUE"), ("OPAQUE", 0.5, "OPAQUE")],
)
def test_blending_only_where_something_is_clear(gltf, tmp_path, mode, alpha, expected):
    gltf.mesh(material=0)
    surface = {"baseColorFactor": [1, 1, 1, alpha]}
    gltf.content["materials"] = [{"pbrMetallicRoughness": surface, "alphaMode": mode}]
    assert gltf.load(tmp_path)[0].alpha_mode == expected


def test_invisible_parts_do_not_count(gltf, tmp_path):
    gltf.mesh()
    gltf.mesh(gltf.triangle * 100, material=0)
    gltf.content["scenes"][0]["nodes"] = [0, 1]
    clear = {"pbrMetallicRoughness": {"baseColorFactor": [1, 1, 1, 0]}, "alphaMode": "BLEND"}
    gltf.content["materials"] = [clear]
    (part,) = gltf.load(tmp_path)
    np.testing.assert_allclose(part.vertices, gltf.triangle)
