"""Draco-compressed primitives of glTF, and the types of their attributes."""

import builtins

import numpy as np
import pytest

from hi3d.assets.gltf_file import GltfFile
from hi3d.errors import InputError


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


def draco_primitive(gltf, decoded_type, component_type, width=4):
    """A square whose attribute COLOR_0 is Draco's, normalised, with a ramp over the whole range.

    Args:
        decoded_type: of the values before the file's own type is put in their place.
        component_type: of the accessor.
    """
    draco = pytest.importorskip("DracoPy")
    unsigned = np.dtype(decoded_type.replace("i", "u"))
    limits = np.iinfo(decoded_type)
    ramp = np.linspace(limits.min, limits.max, 4 * width).round().astype(decoded_type)
    values = ramp.reshape(4, width)
    encoded = draco.encode(
        points=gltf.square.astype(np.float64),
        faces=np.array([[0, 1, 2], [1, 3, 2]], np.uint32),
        preserve_order=True,
        quantization_bits=14,
        generic_attributes={7: values.view(unsigned)},
    )
    if decoded_type.startswith("i"):  # the encoder knows unsigned ones only: 2 and 4, not 1 and 3
        kind = {1: 2, 2: 4}[unsigned.itemsize]
        header = bytes([4, kind, width])  # a generic attribute, its type and its width
        assert encoded.count(header) == 1
        encoded = encoded.replace(header, bytes([4, kind - 1, width]))
    attributes = draco.decode(encoded).attributes
    position = next(entry["unique_id"] for entry in attributes if entry["attribute_type"] == 0)
    gltf.mesh(gltf.square)
    placeholders = [
        {"componentType": 5126, "count": 4, "type": "VEC3"},
        {"componentType": component_type, "count": 4, "type": f"VEC{width}", "normalized": True},
        {"componentType": 5125, "count": 6, "type": "SCALAR"},
    ]
    first = len(gltf.content["accessors"])
    gltf.content["accessors"] += placeholders
    primitive = gltf.content["meshes"][0]["primitives"][0]
    extension = {"bufferView": gltf.view(encoded)}
    extension["attributes"] = {"POSITION": position, "COLOR_0": 7}
    primitive["attributes"] = {"POSITION": first, "COLOR_0": first + 1}
    primitive |= {"indices": first + 2, "extensions": {"KHR_draco_mesh_compression": extension}}
    return primitive, values


@pytest.mark.parametrize(
    ("kind", "component_type"), [("u1", 5121), ("u2", 5123), ("i1", 5120), ("i2", 5122)]
)
def test_normalised_integers_of_draco(gltf, tmp_path, kind, component_type):
    """16-bit colors came out black: Draco's library widens them, and signed ones are floats."""
    primitive, values = draco_primitive(gltf, kind, component_type)
    path = gltf.save(tmp_path / "a.glb")
    attributes, _ = GltfFile(path).draco(primitive)
    expected = np.maximum(values / np.iinfo(kind).max, -1)
    np.testing.assert_allclose(attributes["COLOR_0"], expected, atol=1e-6)
    assert attributes["COLOR_0"].min() == (-1 if kind.startswith("i") else 0)
    rgba = gltf.load(tmp_path)[0].vertex_rgba
    np.testing.assert_allclose(rgba[:, 3], expected[:, 3].clip(0), atol=1e-6)


def test_quantised_positions_and_uvs_of_draco(gltf, tmp_path):
    primitive, values = draco_primitive(gltf, "i2", 5122, width=3)
    primitive["extensions"]["KHR_draco_mesh_compression"]["attributes"] = {"POSITION": 7}
    primitive["attributes"] = {"POSITION": primitive["attributes"]["COLOR_0"]}
    part = gltf.load(tmp_path)[0]
    expected = np.maximum(values / 32767, -1)
    np.testing.assert_allclose(part.vertices, expected, atol=1e-6)


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
