"""Object files (GLB, glTF, OBJ or PLY) to what the renderers draw."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from hi3d.assets.gltf import read_gltf
from hi3d.assets.obj_file import read_obj, scanned_object_folder
from hi3d.assets.parts import MAX_FACES, ObjectPart, RenderObject
from hi3d.assets.ply_file import read_ply
from hi3d.errors import InputError
from hi3d.files import regular_file

SUFFIXES = (".glb", ".gltf", ".obj", ".ply")
MIN_AREA = 1e-8  # of the whole normalised surface; below it the object is a line or a point


def load_object(
    path: str | Path,
    normalise: bool = True,
    up: Literal["y", "z"] | None = None,
    max_texture_side: int = 4096,
) -> RenderObject:
    """Read an object, with its scene graph applied, into the world (z up).

    Colours: in glTF, factors and vertex colours are linear and become sRGB; in OBJ and PLY they are
    sRGB already. Textures are sRGB everywhere. Emission, metalness and lights are left out: the
    renderings are unlit (see `read_gltf` and `read_obj` for the exceptions). Surfaces without a
    material are light grey. Triangles without an area and invisible parts (alpha 0) are dropped.

    Args:
        path: a GLB, glTF, OBJ or PLY file.
        normalise: centre the bounding box at the origin and make its longest side 1.
        up: the file's upward axis. With "y", (x, y, z) becomes (x, -z, y). By default "z" for PLY
            and Google Scanned Objects, and "y" for the others.
        max_texture_side: larger textures are reduced to it, in texels.

    Raises:
        InputError: the file is missing, of another type or broken, a texture it names is missing or
            broken, it holds no surface, or more than `MAX_FACES` triangles.
    """
    parts = read_parts(path, up, max_texture_side)
    parts = [part for part in map(_without_broken_faces, parts) if len(part.faces)]
    parts = [part for part in map(_with_needed_alpha, parts) if part is not None]
    if not parts:
        raise InputError(f"{path} holds no triangles with an area: give another object")
    normalised = RenderObject(tuple(parts)).normalised()
    if sum(_face_areas(part).sum() for part in normalised.parts) < MIN_AREA:
        raise InputError(f"{path} holds no triangles with an area: give another object")
    if normalise:
        return normalised
    return RenderObject(
        tuple(replace(part, vertices=part.vertices.astype(np.float32)) for part in parts)
    )


def read_parts(
    path: str | Path, up: Literal["y", "z"] | None = None, max_texture_side: int = 4096
) -> list[ObjectPart]:
    """All parts of an object file as they are stored, turned z up; see `load_object`.

    Vertices are float32 or float64. Broken triangles and invisible parts are kept.

    Raises:
        InputError: the file is missing, of another type or broken, a texture it names is missing or
            broken, or it holds more than `MAX_FACES` triangles.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{path} is not an object file: give one of {', '.join(SUFFIXES)}")
    if not regular_file(path).is_file():
        raise InputError(f"no object file at {path}: check the path")
    try:
        if suffix == ".ply":
            parts = read_ply(path, max_texture_side)
        elif suffix == ".obj":
            parts = read_obj(path, max_texture_side)
        else:
            parts = read_gltf(path, max_texture_side)
    except InputError:
        raise
    except Exception as error:
        cause = next(iter(str(error).splitlines()), "")
        if not isinstance(error, ValueError) or not cause:
            cause = f"{type(error).__name__} {cause}".strip()
        raise InputError(f"cannot read object {path} ({cause}): replace the file") from error
    if sum(len(part.faces) for part in parts) > MAX_FACES:
        raise InputError(f"{path} has over {MAX_FACES} triangles: simplify it")
    if up is None:
        up = "z" if suffix == ".ply" or scanned_object_folder(path) else "y"
    if up == "y":
        parts = [replace(p, vertices=p.vertices[:, [0, 2, 1]] * [1, -1, 1]) for p in parts]
    return parts


def _with_needed_alpha(part: ObjectPart) -> ObjectPart | None:
    """The part, OPAQUE if its BLEND or MASK changes nothing; None if all of it is invisible."""
    if part.alpha_mode == "OPAQUE":
        return part
    alpha = part.base_color_factor[3]
    lowest = highest = 1.0
    if part.vertex_rgba is not None:
        lowest, highest = part.vertex_rgba[:, 3].min(), part.vertex_rgba[:, 3].max()
    if part.texture is not None:
        lowest = lowest * part.texture[..., 3].min() / 255
        highest = highest * part.texture[..., 3].max() / 255
    if alpha * highest < 1 / 255:
        return None
    return replace(part, alpha_mode="OPAQUE") if alpha * lowest >= 1 else part


def _face_areas(part: ObjectPart) -> np.ndarray:
    """Areas of a part's triangles. [F]"""
    a, b, c = part.vertices[part.faces].astype(np.float64).transpose(1, 0, 2)
    return np.linalg.norm(np.cross(b - a, c - a), axis=-1) / 2


def _without_broken_faces(part: ObjectPart) -> ObjectPart:
    """The part without triangles that have no area, non-finite corners or missing vertices."""
    in_range = ((part.faces >= 0) & (part.faces < len(part.vertices))).all(axis=1)
    part = replace(part, faces=part.faces[in_range])
    with np.errstate(invalid="ignore", over="ignore"):
        areas = _face_areas(part)
    return replace(part, faces=part.faces[np.isfinite(areas) & (areas > 0)])
