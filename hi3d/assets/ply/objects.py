"""Objects from PLY."""

from pathlib import Path
from typing import Any

import numpy as np

from hi3d.assets.parts import LIGHT_GREY, ObjectPart
from hi3d.assets.ply.container import (
    PlyElement,
    PlyFile,
    read_ply_file,
    strip_triangles,
    triangulated,
)
from hi3d.assets.textures import decode_textures, needed_texture
from hi3d.assets.vertex_colors import unit_colors

COLOR_PREFIXES = ("", "diffuse_", "vertex_", "color_", "colour_", "vertex_color_", "col_")
COLOR_LISTS = (
    "color",
    "colors",
    "colour",
    "colours",
    "vertex_colors",
    "vertex_color",
    "rgb",
    "rgba",
)
UV_NAMES = (
    ("s", "t"), ("u", "v"), ("texture_u", "texture_v"), ("texture_s", "texture_t"),
    ("tex_u", "tex_v"), ("texcoord_u", "texcoord_v"), ("tu", "tv"), ("tx", "ty"),
)  # fmt: skip
POLYGON_LISTS = ("vertex_indices", "vertex_index", "vertex_indexes", "indices")
UV_LISTS = ("texcoord", "texcoords", "texture_coordinates")
NO_ELEMENT = PlyElement(0)


def read_ply(path: Path, max_texture_side: int, root: Path | None = None) -> list[ObjectPart]:
    """Parts of a PLY file, with the textures that it names, or colors in sRGB, or light gray.

    Textures (`comment TextureFile`) need texture coordinates at vertices or faces; `texnumber`
    tells several apart. Without them colors count, those of vertices before those of faces, by all
    names and scales in use. Triangle strips are read.

    Args:
        path: of the file.
        max_texture_side: larger textures are reduced to it, in texels.
        root: of `hi3d.assets.textures.texture_root`.

    Raises:
        InputError: a texture is missing or broken.
        ValueError: the file cannot be parsed.
    """
    ply = read_ply_file(path)
    vertex, face = ply.elements.get("vertex", NO_ELEMENT), ply.elements.get("face", NO_ELEMENT)
    if not all(axis in vertex.scalars for axis in "xyz"):
        raise ValueError("its vertices have no x, y and z")
    vertices = np.stack([vertex.scalars[axis].astype(np.float64) for axis in "xyz"], axis=1)
    polygons = next((face.lists[name] for name in POLYGON_LISTS if name in face.lists), None)
    strips = ply.elements.get("tristrips", NO_ELEMENT).lists
    if polygons is None:
        if not strips:
            return []
        faces = strip_triangles(next(iter(strips.values())))
        polygon = corner = None
    else:
        polygon, corner = triangulated(polygons)
        faces = polygons.values.astype(np.int64)[corner]
    inside = ((faces >= 0) & (faces < len(vertices))).all(axis=1)
    faces = faces[inside]
    if polygon is not None and corner is not None:
        polygon, corner = polygon[inside], corner[inside]
    uvs = _uvs(vertex, face, corner)
    names = _texture_names(ply)
    number = np.full(len(faces), -1)
    if uvs is not None and names:
        number = _texture_numbers(vertex, face, faces, polygon)
    used = [int(n) for n in np.unique(number) if 0 <= n < len(names)]
    files = {n: needed_texture([path.parent], names[n], path, root) for n in used}
    contents = {str(file): file.read_bytes() for file in files.values()}
    textures = decode_textures(contents, max_texture_side)
    parts = []
    for n, file in files.items():
        chosen, look = number == n, textures[str(file)]
        if uvs is not None and uvs.ndim == 3:
            parts.append(_expanded(vertices, faces[chosen], uvs=uvs[chosen], texture=look))
        else:
            parts.append(ObjectPart(vertices, faces[chosen], np.ones(4, np.float32), uvs, look))
    left = ~np.isin(number, used)
    if left.any():
        rest = None if polygon is None or corner is None else (polygon[left], corner[left])
        parts.append(_untextured(ply, vertices, faces[left], rest))
    return parts


def _untextured(
    ply: PlyFile,
    vertices: np.ndarray,
    faces: np.ndarray,
    of_polygons: tuple[np.ndarray, np.ndarray] | None,
) -> ObjectPart:
    """A part with the colors of vertices, of face corners, or of faces, or light gray.

    Args:
        of_polygons: the polygon [F] and the corners in its lists [F, 3] of each triangle.
    """
    white = np.ones(4, np.float32)
    colors = _colors(ply.elements["vertex"])
    face_rgba = None
    if of_polygons is not None:
        face_rgba = _face_colors(ply, *of_polygons)
    if colors is not None and (face_rgba is None or np.ptp(colors[faces], axis=(0, 1)).any()):
        return ObjectPart(vertices, faces, white, vertex_rgba=colors)
    if face_rgba is not None:
        return _expanded(vertices, faces, vertex_rgba=face_rgba)
    return ObjectPart(vertices, faces, LIGHT_GREY)


def _face_colors(ply: PlyFile, polygon: np.ndarray, corner: np.ndarray) -> np.ndarray | None:
    """Colors of face corners [F, 3, 4], from faces, their corners or their materials."""
    face = ply.elements["face"]
    colors = _colors(face)
    if colors is not None:
        return np.repeat(colors[polygon][:, None], 3, axis=1)
    materials, index = ply.elements.get("material", NO_ELEMENT), face.scalars.get("material_index")
    colors = _colors(materials)
    if colors is not None and index is not None and (index < len(colors)).all():
        return np.repeat(colors[index.astype(int)][polygon][:, None], 3, axis=1)
    polygons = next(face.lists[name] for name in POLYGON_LISTS if name in face.lists)
    for name in COLOR_LISTS:
        entry = face.lists.get(name)
        for width in (3, 4):
            if entry is not None and (entry.counts == width * polygons.counts).all():
                return unit_colors(entry.values.reshape(-1, width))[corner]
    return None


def _colors(element: PlyElement) -> np.ndarray | None:
    """Colors [N, 4] of an element, by any of the names in use."""
    scalars = element.scalars
    for prefix in COLOR_PREFIXES:
        for names in (("red", "green", "blue", "alpha"), ("r", "g", "b", "a")):
            found = [scalars[prefix + name] for name in names if prefix + name in scalars]
            if all(prefix + name in scalars for name in names[:3]):
                return unit_colors(np.stack(found, axis=1))
    for name in ("rgb", "rgba"):
        if name in scalars and scalars[name].dtype.itemsize == 4:
            packed = scalars[name].astype(scalars[name].dtype.newbyteorder("<"))
            return unit_colors(packed.view(np.uint8).reshape(-1, 4)[:, 2::-1])  # 0xAARRGGBB
    for name in COLOR_LISTS:
        entry = element.lists.get(name)
        for width in (3, 4):
            if entry is not None and element.count and (entry.counts == width).all():
                return unit_colors(entry.values.reshape(-1, width))
    return None


def _uvs(vertex: PlyElement, face: PlyElement, corner: np.ndarray | None) -> np.ndarray | None:
    """Texture coordinates, v up: of triangle corners [F, 3, 2], else of vertices [V, 2]."""
    for name in UV_LISTS:
        entry = face.lists.get(name)
        if entry is not None and corner is not None:
            polygons = next(face.lists[key] for key in POLYGON_LISTS if key in face.lists)
            if (entry.counts == 2 * polygons.counts).all():
                return entry.values.reshape(-1, 2)[corner].astype(np.float32)
    for u, v in UV_NAMES:
        if u in vertex.scalars and v in vertex.scalars:
            uvs = np.stack([vertex.scalars[u], vertex.scalars[v]], axis=1)
            return np.nan_to_num(uvs.astype(np.float32))
    return None


def _texture_names(ply: PlyFile) -> list[str]:
    """The textures that comments name, in order."""
    words = [comment.split(None, 1) for comment in ply.comments]
    return [w[1].strip().strip('"') for w in words if len(w) == 2 and w[0].lower() == "texturefile"]


def _texture_numbers(
    vertex: PlyElement, face: PlyElement, faces: np.ndarray, polygon: np.ndarray | None
) -> np.ndarray:
    """Which of the textures each triangle has. [F]"""
    if polygon is not None and "texnumber" in face.scalars:
        return face.scalars["texnumber"].astype(int)[polygon]
    if "texnumber" in vertex.scalars:
        return vertex.scalars["texnumber"].astype(int)[faces[:, 0]]
    return np.zeros(len(faces), int)


def _expanded(vertices: np.ndarray, faces: np.ndarray, **look: Any) -> ObjectPart:
    """A part whose triangles share no vertices, with looks of corners, [F, 3, ...].

    Args:
        look: fields of `ObjectPart`; `uvs` and `vertex_rgba` of corners.
    """
    for name in ("uvs", "vertex_rgba"):
        if name in look:
            look[name] = np.nan_to_num(look[name].reshape(-1, look[name].shape[-1]))
    corners = np.arange(faces.size).reshape(-1, 3)
    return ObjectPart(vertices[faces].reshape(-1, 3), corners, np.ones(4, np.float32), **look)
