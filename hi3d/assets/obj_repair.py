"""OBJ and MTL files made to look as Sweet Home 3D shows them."""

import re
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path, PurePosixPath

import numpy as np

from hi3d.assets.wavefront.materials import parse_map


def rotated_obj(content: bytes, rotation: Sequence[float]) -> bytes:
    """An OBJ file with its vertices and normals multiplied by a 3x3 matrix, given row by row."""
    matrix = np.array(rotation, np.float64).reshape(3, 3)

    def rotated(line: re.Match[bytes]) -> bytes:
        x, y, z = matrix @ np.array(line[2].split()[:3], np.float64)
        rest = b"".join(b" " + word for word in line[2].split()[3:])
        return line[1] + f" {x:.6g} {y:.6g} {z:.6g}".encode() + rest

    return re.sub(rb"(?m)^[ \t]*(vn?)[ \t]+([^\r\n]+)", rotated, content)


def repaired_mtl(mtl: bytes, files: dict[str, bytes]) -> tuple[bytes, list[str]]:
    """An MTL file whose textures are all there and whose textures' alpha is used.

    Maps that name no file in the catalog are dropped, so that Kd shows; textures with alpha are
    named by `map_d` too, where no other is.

    Args:
        mtl: content of the file.
        files: contents by name of all files of the object.

    Returns:
        The new content, and the names of the maps that were dropped.
    """
    by_name = {PurePosixPath(name).name.lower(): content for name, content in files.items()}
    missing = []
    blocks = re.split(rb"(?m)^(?=[ \t]*newmtl\b)", mtl)
    for index, block in enumerate(blocks):
        for line in re.findall(rb"(?im)^[ \t]*map_(?:Kd|d)[ \t]+[^\r\n]+", block):
            named = parse_map(line.split(None, 1)[1].decode("utf-8", "replace").strip(), Path())
            name = "" if named is None else named.name.replace("\\", "/")
            content = by_name.get(PurePosixPath(name).name.lower())
            if content is None:
                missing.append(name)
                block = block.replace(line, b"")
            elif not re.search(rb"(?im)^[ \t]*map_d\b", block) and _has_alpha(content):
                block = block.rstrip() + b"\nmap_d " + line.split(None, 1)[1] + b"\n\n"
        blocks[index] = block
    return b"".join(blocks), missing


def _has_alpha(content: bytes) -> bool:
    """Whether an image file has texels that are not opaque."""
    from PIL import Image

    try:
        image = Image.open(BytesIO(content))
        if "A" not in image.getbands() and "transparency" not in image.info:
            return False
        return bool((np.asarray(image.convert("RGBA"))[..., 3] < 255).any())
    except OSError:  # no image: loading the object will say so
        return False
