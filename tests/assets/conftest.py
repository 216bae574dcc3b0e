"""glTF files are built by hand here from the standard, so that reader and oracle share no code."""

import io
import json
import struct

import numpy as np
import pytest
from PIL import Image

from hi3d.assets.load import load_object

TRIANGLE = np.array([[0, 0, 0], [2, 0, 0], [0, 4, 1]], np.float32)
KINDS = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}
TYPES = {"i1": 5120, "u1": 5121, "i2": 5122, "u2": 5123, "u4": 5125, "f4": 5126}


class Gltf:
    """A glTF file that grows: one buffer, one scene."""

    triangle = TRIANGLE
    square = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]], np.float32)

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

    @staticmethod
    def black(shape=(2, 2)):
        """Pixels of a clear, black image."""
        return np.zeros((*shape, 4), np.uint8)


@pytest.fixture
def gltf():
    return Gltf()
