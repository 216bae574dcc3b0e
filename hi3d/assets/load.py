"""Object files (GLB, glTF, OBJ or PLY) to what the renderers draw."""

import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from hi3d.assets.gltf import read_gltf
from hi3d.assets.parts import MAX_FACES, ObjectPart, RenderObject
from hi3d.assets.ply.objects import read_ply
from hi3d.assets.shells import with_seen_sides
from hi3d.assets.wavefront.looks import scanned_object_folder
from hi3d.assets.wavefront.objects import read_obj
from hi3d.errors import InputError
from hi3d.files import regular_file
from hi3d.mesh import FRONT_COMMENT, FRONT_EXTRAS

SUFFIXES = (".glb", ".gltf", ".obj", ".ply")
MIN_AREA = 1e-8  # of the whole normalized surface; below it the object is a line or a point


def load_object(
    path: str | Path,
    normalise: bool = True,
    up: Literal["y", "z"] | None = None,
    max_texture_side: int = 4096,
    root: Path | None = None,
    front: Literal["x", "z"] | None = None,
) -> RenderObject:
    """Read an object, with its scene graph applied, into the world (z up).

    Colors: in glTF, factors and vertex colors are linear and become sRGB; in OBJ and PLY they are
    sRGB already. Textures are sRGB everywhere. Emission, metalness and lights are left out: the
    renderings are unlit (see `read_gltf` and `read_obj` for the exceptions). Surfaces without a
    material are light gray. Triangles without an area and invisible parts (alpha 0) are dropped;
    which back sides are left out, `hi3d.assets.shells` decides.

    Args:
        path: a GLB, glTF, OBJ or PLY file.
        normalise: center the bounding box at the origin and make its longest side 1.
        up: the file's upward axis. By default "z" for PLY and Google Scanned Objects, and "y" for
            the others.
        max_texture_side: larger textures are reduced to it, in texels.
        root: folder of the collection that the file belongs to, which other files that it names
            may lie in; by default the folder above the file's.
        front: the axis of a Y-up file that faces azimuth 0. With "x", as Blender reads them,
            (x, y, z) becomes (x, -z, y); with "z" it becomes (z, x, y). By default what the file
            declares (those of this project do), else "x".

    Raises:
        InputError: the file is missing, of another type or broken, a texture it names is missing or
            broken, it holds no surface, or more than `MAX_FACES` triangles.
    """
    parts = read_parts(path, up, max_texture_side, root, front)
    shown = [part for part in map(_with_needed_alpha, parts) if part is not None]
    sound = [_without_broken_faces(part) for part in shown if len(part.faces)]
    parts = [part for part, _ in sound if len(part.faces)]
    if not parts:
        raise InputError(f"{path} holds no triangles with an area: give another object")
    whole = RenderObject(tuple(parts))
    normalised = whole.normalised()
    longest_side = np.ptp(whole.bounds, axis=0).max()
    if sum(area for _, area in sound) < MIN_AREA * longest_side**2:
        raise InputError(f"{path} holds no triangles with an area: give another object")
    if not normalise:
        parts = [replace(part, vertices=part.vertices.astype(np.float32)) for part in parts]
        return RenderObject(tuple(with_seen_sides(parts)))
    return RenderObject(tuple(with_seen_sides(normalised.parts)))


def read_parts(
    path: str | Path,
    up: Literal["y", "z"] | None = None,
    max_texture_side: int = 4096,
    root: Path | None = None,
    front: Literal["x", "z"] | None = None,
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
            parts = read_ply(path, max_texture_side, root)
        elif suffix == ".obj":
            parts = read_obj(path, max_texture_side, root)
        else:
            parts = read_gltf(path, max_texture_side, root)
        front = front or declared_front(path)
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
        parts = [replace(part, vertices=z_up(part.vertices, front)) for part in parts]
    return parts


def z_up(vertices: np.ndarray, front: Literal["x", "z"] | None) -> np.ndarray:
    """[V, 3] positions of a Y-up file in the world's axes; see `load_object`."""
    if front == "z":
        return vertices[:, [2, 0, 1]]
    turned = np.empty_like(vertices)
    turned[:, 0], turned[:, 1], turned[:, 2] = vertices[:, 0], -vertices[:, 2], vertices[:, 1]
    return turned


def declared_front(path: Path) -> Literal["z"] | None:
    """ "z" where a file says that it has the axes that `hi3d.mesh.save_mesh` writes."""
    with path.open("rb") as file:
        if path.suffix.lower() == ".obj":
            return "z" if file.readline(80).strip() == FRONT_COMMENT.encode() else None
        if path.suffix.lower() != ".glb":
            return None
        (length,) = struct.unpack("<12xI4x", file.read(20))
        extras = json.loads(file.read(length))["asset"].get("extras")
    declared = isinstance(extras, dict) and extras.get("front") == FRONT_EXTRAS["front"]
    return "z" if declared else None


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
    cutoff = part.alpha_cutoff if part.alpha_mode == "MASK" else 1.0
    if alpha * lowest >= cutoff:  # alpha 0 too with a cutoff of 0 (glTF 2.0, Section 3.9.4)
        return replace(part, alpha_mode="OPAQUE")
    return part if alpha * highest >= 1 / 255 else None


def _without_broken_faces(part: ObjectPart) -> tuple[ObjectPart, float]:
    """The part without triangles that have no area, non-finite corners or missing vertices.

    With the area of those that are left.
    """
    if part.faces.min() < 0 or part.faces.max() >= len(part.vertices):
        in_range = ((part.faces >= 0) & (part.faces < len(part.vertices))).all(axis=1)
        part = replace(part, faces=part.faces[in_range])
    with np.errstate(invalid="ignore", over="ignore"):
        areas = part.face_areas
    sound = np.isfinite(areas) & (areas > 0)
    kept = part if sound.all() else replace(part, faces=part.faces[sound])
    return kept, float(areas[sound].sum())
