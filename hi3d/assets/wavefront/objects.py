"""Objects from Wavefront OBJ with MTL, in the layout of Google Scanned Objects too."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hi3d.assets.parts import ObjectPart
from hi3d.assets.wavefront.looks import Look, looks_of_materials, scanned_texture
from hi3d.assets.wavefront.materials import find_materials
from hi3d.assets.wavefront.text import read_text, vertex_values
from hi3d.errors import InputError


def read_obj(path: Path, max_texture_side: int, root: Path | None = None) -> list[ObjectPart]:
    """Parts of an OBJ file, one for each material, with the file's axes.

    Kd and vertex colors are sRGB. `map_Kd` replaces Kd, vertex colors replace Kd without a
    texture; faces without texture coordinates take no texture. `d` and `map_d` give alpha; the
    alpha of `map_Kd` itself only counts where `map_d` names it. Black materials with emission take
    that. Textures are looked up beside the MTL file, then beside the OBJ. Where `mtllib`
    names no file, the MTL file of the OBJ's own name counts. A scanned object without a usable
    `map_Kd` takes `materials/textures/texture.png`.

    Args:
        path: of the file.
        max_texture_side: larger textures are reduced to it, in texels.
        root: of `hi3d.assets.textures.texture_root`.

    Raises:
        InputError: the MTL file or a texture is missing.
        ValueError: the file cannot be parsed.
    """
    text = read_text(path)
    text, libraries, names = _without_names(text)
    mesh = _parsed(text, len(names))
    by_name, missing = find_materials(path, libraries, root)
    found = [by_name.get(name) for name in names]
    used_names = [names[i] for i in np.unique(mesh.material_ids) if i >= 0 and found[i] is None]
    if missing and any(used_names) and scanned_texture(path) is None:
        raise InputError(
            f"the material file {missing[0]} of {path} is missing: put it beside, or delete the "
            "mtllib line"
        )
    known = np.array([index if material else -1 for index, material in enumerate(found)] + [-1])
    mesh.material_ids = known[mesh.material_ids]
    ids = np.unique(mesh.material_ids).tolist()
    used = {index: found[index] if index >= 0 else None for index in ids}
    with_uvs = set(mesh.material_ids[mesh.has_uvs].tolist())
    looks = looks_of_materials(path, used, with_uvs, max_texture_side, root)
    return [mesh.part(index, look) for index, look in looks.items()]


@dataclass
class _Mesh:
    """Triangles of an OBJ file."""

    vertices: np.ndarray  # [V, 3]
    colors: np.ndarray | None  # [V, 3], sRGB
    uvs: np.ndarray  # [T, 2], v up
    corners: np.ndarray  # [F, 3], into `vertices`
    uv_corners: np.ndarray  # [F, 3], into `uvs`, -1 without
    material_ids: np.ndarray  # [F], -1 without

    @property
    def has_uvs(self) -> np.ndarray:
        """Which triangles have texture coordinates. [F]"""
        return np.asarray((self.uv_corners >= 0).all(axis=1))

    def part(self, index: int, look: Look) -> ObjectPart:
        """The triangles of one material."""
        chosen = self.material_ids == index
        num_uvs = len(self.uvs) + 1  # corners without are -1
        uv_corners = self.uv_corners[chosen] if look.texture is not None else -1
        pairs = self.corners[chosen] * num_uvs + uv_corners + 1
        used, faces = np.unique(pairs, return_inverse=True)
        at, uv_at = used // num_uvs, used % num_uvs - 1
        part = ObjectPart(
            self.vertices[at],
            faces.reshape(-1, 3),
            np.append(look.rgb, look.alpha).astype(np.float32),
            alpha_mode=look.alpha_mode,
            sampler=look.sampler,
        )
        if look.texture is not None:
            with_origin = np.concatenate([self.uvs, np.zeros((1, 2))])
            uvs = np.nan_to_num(with_origin[uv_at]) * look.uv_scale + look.uv_offset
            return replace(part, uvs=uvs.astype(np.float32), texture=look.texture)
        if self.colors is None or not (index < 0 or (self.colors != 1).any()):
            return part
        rgba = np.ones((len(used), 4), np.float32)
        rgba[:, :3] = self.colors[at]
        factor = np.array([1, 1, 1, look.alpha], np.float32)
        return replace(part, vertex_rgba=rgba, base_color_factor=factor)


def _without_names(text: str) -> tuple[str, list[str], list[str]]:
    """The text with numbered materials `m0`, `m1`, ..., what `mtllib` says, and the names."""
    libraries = re.findall(r"(?mi)^[ \t]*mtllib[ \t]+([^\n]*\S)", text)
    text = re.sub(r"(?mi)^[ \t]*mtllib\b[^\n]*", "", text)
    numbers: dict[str, int] = {}

    def numbered(line: re.Match[str]) -> str:
        return f"usemtl m{numbers.setdefault(line[1].strip(), len(numbers))}"

    text = re.sub(r"(?mi)^[ \t]*usemtl\b([^\n]*)", numbered, text)
    return text, libraries, list(numbers)


def _check_polygons(text: str) -> None:
    """Refuse polygons of vertices that are not there: the parser would read beyond its memory."""
    polygons = re.findall(r"(?m)^[ \t]*f((?:[ \t]++[^\s#]++){4,})", text)
    corners = re.sub(r"/\S*", "", " ".join(polygons)).split()
    num_vertices = len(re.findall(r"(?m)^[ \t]*v[ \t]", text))
    largest = np.array(corners, np.int64).max(initial=0)
    if largest > num_vertices:
        raise ValueError(f"a face refers to vertex {largest}, but there are {num_vertices}")


def _parsed(text: str, num_materials: int) -> _Mesh:
    """The triangles of a text of `_without_names`."""
    import tinyobjloader

    _check_polygons(text)
    reader, config = tinyobjloader.ObjReader(), tinyobjloader.ObjReaderConfig()
    config.triangulate = True
    materials = "".join(f"newmtl m{index}\n" for index in range(num_materials))
    if not reader.ParseFromString(f"mtllib m\n{text}", materials, config):
        raise ValueError(reader.Error().strip() or "not an OBJ file")
    attributes = reader.GetAttrib()
    vertices, colors = np.array(attributes.vertices).reshape(-1, 3), None
    if (found := vertex_values(text)) is not None and len(found[0]) == len(vertices):
        vertices, colors = found
    uvs = np.array(attributes.texcoords).reshape(-1, 2)
    meshes = [shape.mesh for shape in reader.GetShapes()]
    uv_corners = _joined([mesh.texcoord_indices() for mesh in meshes]).reshape(-1, 3)
    return _Mesh(
        vertices,
        colors,
        uvs,
        _joined([mesh.vertex_indices() for mesh in meshes]).reshape(-1, 3),
        np.where(uv_corners < len(uvs), uv_corners, -1),
        _joined([mesh.material_ids for mesh in meshes]),
    )


def _joined(lists: list[list[int]]) -> np.ndarray:
    return np.concatenate([np.array(values, np.int64) for values in lists] or [np.zeros(0, int)])
