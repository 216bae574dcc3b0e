"""Objects from Wavefront OBJ with MTL, in the layout of Google Scanned Objects too."""

import re
from pathlib import Path
from typing import Any

import numpy as np

from hi3d.assets.parts import LIGHT_GREY, ObjectPart
from hi3d.assets.textures import decode_textures, find_texture, with_alpha
from hi3d.errors import InputError

NO_MATERIALS = "Failed to load material file"  # a warning of the parser
SOFT_SHARE = 0.2
"""A texture blends where more of its texels are neither opaque nor clear; else it is a cut-out."""


def scanned_object_folder(path: Path) -> Path | None:
    """The object's folder if `path` is `<folder>/meshes/*.obj` beside `materials/textures`.

    So Google Scanned Objects are laid out; their objects stand z up.
    """
    if path.suffix.lower() != ".obj" or path.absolute().parent.name != "meshes":
        return None
    folder = path.absolute().parents[1]
    return folder if (folder / "materials" / "textures").is_dir() else None


def read_obj(path: Path, max_texture_side: int) -> list[ObjectPart]:
    """Parts of an OBJ file, one for each material, with the file's axes.

    Kd and vertex colours are sRGB. `map_Kd` replaces Kd, vertex colours replace Kd without a
    texture; faces without texture coordinates take no texture. `d` and `map_d` give alpha; the
    alpha of `map_Kd` itself only counts where `map_d` names it. Where `mtllib` names no file, the
    MTL file of the OBJ's own name counts. A scanned object without a usable `map_Kd` takes
    `materials/textures/texture.png`.

    Raises:
        InputError: the MTL file or a texture is missing.
        ValueError: the file cannot be parsed.
    """
    import tinyobjloader

    reader, config = tinyobjloader.ObjReader(), tinyobjloader.ObjReaderConfig()
    config.triangulate = True
    parsed = reader.ParseFromFile(str(path), config)
    namesake = path.with_suffix(".mtl")
    if parsed and NO_MATERIALS in reader.Warning() and namesake.is_file():
        texts = (file.read_text(errors="replace") for file in (path, namesake))
        reader = tinyobjloader.ObjReader()
        parsed = reader.ParseFromString(*texts, config)
    if not parsed:
        raise ValueError(reader.Error().strip() or "not an OBJ file")
    attributes = reader.GetAttrib()
    vertices = np.array(attributes.vertices).reshape(-1, 3)
    vertices[_non_finite_vertices(path)] = np.nan
    colors = np.array(attributes.colors, np.float32).reshape(-1, 3)
    uvs = np.array(attributes.texcoords).reshape(-1, 2)
    meshes = [shape.mesh for shape in reader.GetShapes()]
    corners = _joined([mesh.vertex_indices() for mesh in meshes]).reshape(-1, 3)
    uv_corners = _joined([mesh.texcoord_indices() for mesh in meshes]).reshape(-1, 3)
    material_ids = _joined([mesh.material_ids for mesh in meshes])
    has_uvs = (uv_corners >= 0).all(axis=1) & (uv_corners < len(uvs)).all(axis=1)
    looks = _looks(
        path, reader, np.unique(material_ids), set(material_ids[has_uvs]), max_texture_side
    )
    parts = []
    for index, look in looks.items():
        chosen = material_ids == index
        rows = [corners[chosen]]
        if "texture" in look:
            rows.append(np.where(uv_corners[chosen] < len(uvs), uv_corners[chosen], -1))
        used, faces = np.unique(
            np.stack(rows, -1).reshape(-1, len(rows)), axis=0, return_inverse=True
        )
        extra: dict[str, Any] = {}
        if "texture" in look:
            with_origin = np.concatenate([uvs, np.zeros((1, 2))])  # corners without UVs are -1
            extra["uvs"] = np.nan_to_num(with_origin[used[:, 1]]).astype(np.float32)
        elif len(colors) == len(vertices) and (
            (colors != 1).any() or (index < 0 and _has_vertex_colors(path))
        ):
            rgb = np.nan_to_num(colors[used[:, 0]]).clip(0, 1)
            extra["vertex_rgba"] = np.concatenate([rgb, np.ones((len(rgb), 1), np.float32)], axis=1)
            look = look | {"base_color_factor": np.append(np.ones(3), look["base_color_factor"][3])}
        parts.append(ObjectPart(vertices[used[:, 0]], faces.reshape(-1, 3), **look, **extra))
    return parts


def _looks(
    path: Path, reader: Any, indices: np.ndarray, with_uvs: set[int], max_texture_side: int
) -> dict[int, dict[str, Any]]:
    """Fields of `ObjectPart` for each material index; -1 is no material.

    Args:
        indices: of the materials that faces have.
        with_uvs: those of them whose faces have texture coordinates; others take no texture.
    """
    materials = reader.GetMaterials()
    used = {int(index): materials[index] for index in indices if index >= 0}
    scanned = scanned_object_folder(path)
    scanned_texture = None
    if scanned is not None:
        scanned_texture = find_texture(scanned / "materials" / "textures", "texture.png")
    if NO_MATERIALS in reader.Warning() and scanned_texture is None:
        raise InputError(
            f"the material file of {path} is missing: put it beside, or delete the mtllib line"
        )
    diffuse: dict[int, Path] = {}
    masks: dict[int, Path] = {}
    for index, material in ((i, m) for i, m in used.items() if i in with_uvs):
        for name, found in ((material.diffuse_texname, diffuse), (material.alpha_texname, masks)):
            texture = find_texture(path.parent, name.strip()) if name.strip() else None
            if texture is not None:
                found[index] = texture
            elif name.strip() and scanned_texture is None:
                raise InputError(f"texture {name} of {path} is missing: put it beside the file")
    if scanned_texture is not None and not diffuse:
        diffuse = {int(index): scanned_texture for index in indices if index in with_uvs}
    files = {str(file): file.read_bytes() for file in {*diffuse.values(), *masks.values()}}
    decoded = decode_textures(files, max_texture_side)
    all_clear = all(material.dissolve <= 0 for material in used.values())  # meant as opaque
    masked: dict[tuple[Path | None, Path | None], np.ndarray] = {}
    looks: dict[int, dict[str, Any]] = {}
    for index in map(int, indices):
        material = used.get(index)
        alpha = 1.0 if material is None or all_clear else min(max(material.dissolve, 0.0), 1.0)
        rgb = LIGHT_GREY[:3] if material is None else np.clip(material.diffuse, 0, 1)
        look: dict[str, Any] = {"alpha_mode": "BLEND" if alpha < 1 else "OPAQUE"}
        if index in diffuse or index in masks:
            rgb = np.ones(3) if index in diffuse else rgb
            files_of_look = diffuse.get(index), masks.get(index)
            if files_of_look not in masked:
                masked[files_of_look] = _texture(decoded, diffuse.get(index), masks.get(index))
            look["texture"] = masked[files_of_look]
            if index in masks and alpha == 1:
                soft = (look["texture"][..., 3] - np.uint8(16) < 224).mean()
                look["alpha_mode"] = "BLEND" if soft > SOFT_SHARE else "MASK"
        look["base_color_factor"] = np.append(rgb, alpha).astype(np.float32)
        looks[index] = look
    return looks


def _texture(decoded: dict[str, np.ndarray], diffuse: Path | None, mask: Path | None) -> np.ndarray:
    """RGB of `map_Kd` (white without) and alpha of `map_d` (opaque without). [H, W, 4] uint8"""
    if diffuse is None:
        white = np.full_like(decoded[str(mask)], 255)
        return with_alpha(white, decoded[str(mask)])
    if mask is None:
        return decoded[str(diffuse)]
    return with_alpha(decoded[str(diffuse)], decoded[str(mask)])


def _joined(lists: list[list[int]]) -> np.ndarray:
    return np.concatenate([np.array(values, np.int64) for values in lists] or [np.zeros(0, int)])


def _has_vertex_colors(path: Path) -> bool:
    """Whether the first vertex has a color, which the parser cannot tell from white."""
    first = re.search(rb"(?m)^[ \t]*v[ \t]+([^\r\n]+)", path.read_bytes())
    return first is not None and len(first[1].split()) >= 6


def _non_finite_vertices(path: Path) -> list[int]:
    """Which vertices have a NaN or infinite coordinate, which the parser reads as 0."""
    text = path.read_bytes()
    if not re.search(rb"(?im)^[ \t]*v[ \t][^\n]*(nan|inf)", text):
        return []
    lines = re.findall(rb"(?m)^[ \t]*v[ \t][^\n]*", text)
    return [i for i, line in enumerate(lines) if re.search(rb"(?i)nan|inf", line)]
