"""Objects from PLY."""

from pathlib import Path
from typing import Any

import numpy as np

from hi3d.assets.parts import LIGHT_GREY, ObjectPart
from hi3d.assets.textures import image_rgba


def read_ply(path: Path, max_texture_side: int) -> list[ObjectPart]:
    """Parts of a PLY file, with vertex or face colours in sRGB, or a texture that it names."""
    import trimesh

    mesh = trimesh.load(path, process=False)
    if not isinstance(mesh, trimesh.Trimesh):  # a cloud of points
        return []
    vertices = np.asarray(mesh.vertices, np.float64)
    faces = np.asarray(mesh.faces, np.int64)
    visual: Any = mesh.visual
    look: dict[str, Any] = {"base_color_factor": np.ones(4, np.float32)}
    image = getattr(visual.material, "image", None) if visual.kind == "texture" else None
    if image is not None and visual.uv is not None:
        look["texture"] = image_rgba(f"of {path}", image, max_texture_side)
        look["uvs"] = np.nan_to_num(np.asarray(visual.uv, np.float32))
    elif visual.kind == "vertex":
        look["vertex_rgba"] = _floats(visual.vertex_colors)
    elif visual.kind == "face":
        look["vertex_rgba"] = np.repeat(_floats(visual.face_colors), 3, axis=0)
        vertices = vertices[faces].reshape(-1, 3)
        faces = np.arange(len(vertices)).reshape(-1, 3)
    else:
        look["base_color_factor"] = LIGHT_GREY
    return [ObjectPart(vertices, faces, **look)]


def _floats(colors: np.ndarray) -> np.ndarray:
    """Integer or float RGB(A) colours as float32 RGBA in [0, 1]."""
    colors = np.asarray(colors)
    if colors.dtype.kind in "iu":
        colors = colors / np.iinfo(colors.dtype).max
    rgba = np.ones((*colors.shape[:-1], 4), np.float32)
    rgba[..., : colors.shape[-1]] = np.nan_to_num(colors).clip(0, 1)
    return rgba
