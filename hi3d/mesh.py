"""The triangle mesh that reconstruction makes, and its files: GLB, OBJ and PLY.

In memory z is up and the camera of view 0 stands at +x. GLB and OBJ files have the axes of glTF
2.0, Section 3.4: up is +Y and the front, which view 0 (the photo) shows, +Z. So (x, y, z) is stored
as (y, z, x), and the file says so for its readers. PLY files keep the axes of memory.
`hi3d.assets.surface_mesh.load_mesh` reads them.
"""

import io
import json
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from hi3d.color import linear_from_srgb
from hi3d.errors import InputError
from hi3d.files import atomic_path

SUFFIXES = (".glb", ".obj", ".ply")
FRONT_EXTRAS = {"front": "+Z"}
"""In `asset.extras` of a GLB: the side that view 0 shows."""
FRONT_COMMENT = "# front +Z, up +Y"
"""The same in the first line of an OBJ."""

FLOAT, UNSIGNED_INT = 5126, 5125  # glTF 2.0, Section 3.6.2.2: accessor data types
ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER = 34962, 34963  # glTF 2.0, Section 3.6.2.4
LINEAR, LINEAR_MIPMAP_LINEAR, CLAMP_TO_EDGE = 9729, 9987, 33071  # glTF 2.0, Section 3.8.4


@dataclass(frozen=True)
class SurfaceMesh:
    """A triangle mesh in world coordinates (z up, longest side about 1)."""

    vertices: Tensor  # [V, 3] float32
    """Positions."""
    faces: Tensor  # [F, 3] int64
    """Vertex indices, counter-clockwise seen from outside."""
    vertex_rgb: Tensor  # [V, 3]
    """Unlit color in [0, 1], sRGB."""
    uvs: Tensor | None = None  # [V, 2]
    """Texture coordinates in [0, 1], origin at the bottom left (v up)."""
    texture: Tensor | None = None  # [3, H, W]
    """Unlit base color in [0, 1], sRGB, row 0 at the top (v = 1)."""

    def __post_init__(self) -> None:
        num_vertices = self.vertices.shape[0]
        if self.vertices.shape != (num_vertices, 3):
            raise ValueError(f"vertices must be [V, 3], got {tuple(self.vertices.shape)}")
        if self.faces.ndim != 2 or self.faces.shape[1] != 3:
            raise ValueError(f"faces must be [F, 3], got {tuple(self.faces.shape)}")
        if self.vertex_rgb.shape != (num_vertices, 3):
            raise ValueError(f"vertex_rgb must be [V, 3], got {tuple(self.vertex_rgb.shape)}")
        if (self.uvs is None) != (self.texture is None):
            raise ValueError("uvs and texture go together: give both or neither")
        if self.uvs is not None and self.uvs.shape != (num_vertices, 2):
            raise ValueError(f"uvs must be [V, 2], got {tuple(self.uvs.shape)}")
        if self.texture is not None and (self.texture.ndim != 3 or self.texture.shape[0] != 3):
            raise ValueError(f"texture must be [3, H, W], got {tuple(self.texture.shape)}")

    def to(self, device: torch.device | str) -> "SurfaceMesh":
        """The same mesh on `device`."""
        moved = {name: value.to(device) for name, value in vars(self).items() if value is not None}
        return replace(self, **moved)


def save_mesh(mesh: SurfaceMesh, path: str | Path, lit: bool = False) -> None:
    """Write a mesh, atomically, in the format its suffix names; GLB and OBJ have smooth normals.

    Args:
        mesh: with a texture or, without one, with vertex colors.
        path: `.glb` (one material with a base-colour PNG, or linear vertex colors), `.obj`
            (a texture goes to `.mtl` and `.png` files beside it) or `.ply` (8-bit vertex colors,
            no texture).
        lit: light the material of GLB and OBJ where it is shown (matte, no metal). The views' light
            is in the colors already, so by default it is not.

    Raises:
        InputError: another suffix, a mesh without faces, or a folder that cannot be written to.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"cannot write a mesh to {path}: end the name in {', '.join(SUFFIXES)}")
    if len(mesh.faces) == 0:
        raise InputError(f"the mesh for {path} has no faces: lower the surface threshold or refit")
    mesh = mesh.to("cpu")
    if suffix == ".glb":
        content = _glb(mesh, lit)
    elif suffix == ".ply":
        content = _ply(mesh)
    else:
        content = _obj(mesh, path.stem)
        if mesh.texture is not None:
            _write(path.with_suffix(".png"), _png(mesh.texture))
            _write(path.with_suffix(".mtl"), _mtl(path.stem, lit))
    _write(path, content)


def is_closed(mesh: SurfaceMesh) -> bool:
    """Whether every edge has exactly two faces, once vertices at the same position are one.

    Texture seams double vertices without opening the surface, hence the merging. Faces with two
    corners at one position are left out.
    """
    vertex = torch.unique(mesh.vertices, dim=0, return_inverse=True)[1]
    faces = vertex[mesh.faces]
    a, b, c = faces.unbind(-1)
    faces = faces[(a != b) & (b != c) & (c != a)]
    if len(faces) == 0:
        return False
    edges = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).sort(dim=-1).values
    return bool((torch.unique(edges, dim=0, return_counts=True)[1] == 2).all())


def vertex_normals(mesh: SurfaceMesh) -> Tensor:
    """Unit normals: the mean of the adjacent faces', weighted by the faces' angles at the vertex.

    Vertices at the same position are one, so that texture seams do not show. After Thurmer and
    Wuthrich, "Computing Vertex Normals from Polygonal Facets", 1998.

    Returns:
        [V, 3]; up where the faces around have no area.
    """
    vertices = mesh.vertices.double()
    position = torch.unique(mesh.vertices, dim=0, return_inverse=True)[1]
    corners = vertices[mesh.faces]
    forward = normalize(corners.roll(-1, 1) - corners, dim=-1)
    backward = normalize(corners.roll(1, 1) - corners, dim=-1)
    angles = (forward * backward).sum(-1).clamp(-1, 1).acos()  # [F, 3]
    normals = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    weighted = angles[..., None] * normalize(normals, dim=-1, eps=1e-30)[:, None]
    total = torch.zeros_like(vertices)
    total.index_add_(0, position[mesh.faces.reshape(-1)], weighted.reshape(-1, 3))
    total = total[position]
    flat = total.norm(dim=-1, keepdim=True) < 1e-6
    up = torch.tensor([0.0, 0.0, 1.0]).to(total)
    return normalize(torch.where(flat, up, total), dim=-1).to(mesh.vertices)


def _write(path: Path, content: bytes) -> None:
    with atomic_path(path) as partial:
        partial.write_bytes(content)


def _file_axes(vectors: Tensor) -> np.ndarray:
    """Positions or normals in the axes of GLB and OBJ files: front +Z, up +Y. [V, 3] float32"""
    return vectors.float()[:, [1, 2, 0]].numpy()


def _png(texture: Tensor) -> bytes:
    """[3, H, W] in [0, 1] as an 8-bit PNG file."""
    pixels = (texture.float().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0)
    stream = io.BytesIO()
    Image.fromarray(pixels.contiguous().numpy()).save(stream, format="PNG")
    return stream.getvalue()


def _glb(mesh: SurfaceMesh, lit: bool) -> bytes:
    """A binary glTF 2.0 file: header, JSON chunk, binary chunk."""
    binary = bytearray()
    views: list[dict] = []
    accessors: list[dict] = []

    def add_view(data: bytes, **target: int) -> int:
        views.append({"buffer": 0, "byteOffset": len(binary), "byteLength": len(data), **target})
        binary.extend(data + b"\0" * (-len(data) % 4))
        return len(views) - 1

    def add_accessor(array: np.ndarray, kind: str, component: int, target: int, **extra) -> int:
        view = add_view(array.tobytes(), target=target)
        description = {"bufferView": view, "componentType": component, "count": len(array)}
        accessors.append({**description, "type": kind, **extra})
        return len(accessors) - 1

    positions = _file_axes(mesh.vertices)
    bounds = {"min": positions.min(0).tolist(), "max": positions.max(0).tolist()}
    attributes = {"POSITION": add_accessor(positions, "VEC3", FLOAT, ARRAY_BUFFER, **bounds)}
    normals = _file_axes(vertex_normals(mesh))
    attributes["NORMAL"] = add_accessor(normals, "VEC3", FLOAT, ARRAY_BUFFER)
    look: dict[str, Any] = {"metallicFactor": 0.0, "roughnessFactor": 1.0}
    textures: dict[str, Any] = {}
    if mesh.texture is not None and mesh.uvs is not None:
        uvs = torch.stack([mesh.uvs[:, 0], 1 - mesh.uvs[:, 1]], dim=-1).float().numpy()
        attributes["TEXCOORD_0"] = add_accessor(uvs, "VEC2", FLOAT, ARRAY_BUFFER)
        image = {"bufferView": add_view(_png(mesh.texture)), "mimeType": "image/png"}
        sampler = {"magFilter": LINEAR, "minFilter": LINEAR_MIPMAP_LINEAR}
        sampler |= {"wrapS": CLAMP_TO_EDGE, "wrapT": CLAMP_TO_EDGE}
        textures = {
            "images": [image],
            "samplers": [sampler],
            "textures": [{"source": 0, "sampler": 0}],
        }
        look["baseColorTexture"] = {"index": 0}
    else:
        linear = linear_from_srgb(mesh.vertex_rgb.float().clamp(0, 1).numpy())
        attributes["COLOR_0"] = add_accessor(linear, "VEC3", FLOAT, ARRAY_BUFFER)
    indices = mesh.faces.reshape(-1).numpy().astype("<u4")
    primitive = {
        "attributes": attributes,
        "indices": add_accessor(indices, "SCALAR", UNSIGNED_INT, ELEMENT_ARRAY_BUFFER),
        "material": 0,
    }
    material: dict[str, Any] = {"pbrMetallicRoughness": look, "doubleSided": False}
    extensions: dict[str, Any] = {}
    if not lit:
        material["extensions"] = {"KHR_materials_unlit": {}}
        extensions = {"extensionsUsed": ["KHR_materials_unlit"]}
    content = {
        "asset": {"version": "2.0", "generator": "hi3d", "extras": FRONT_EXTRAS},
        **extensions,
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [primitive]}],
        "materials": [material],
        **textures,
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": len(binary)}],
    }
    text = json.dumps(content, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text
    chunks += struct.pack("<I4s", len(binary), b"BIN\0") + bytes(binary)
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def _obj(mesh: SurfaceMesh, stem: str) -> bytes:
    """Wavefront text; without a texture the vertex colors follow the positions (x y z r g b)."""
    lines = [FRONT_COMMENT]
    vertices, faces = _file_axes(mesh.vertices), (mesh.faces + 1).tolist()
    normals = _file_axes(vertex_normals(mesh)).tolist()
    normal_lines = [f"vn {x:.6g} {y:.6g} {z:.6g}" for x, y, z in normals]
    if mesh.uvs is None:
        rows = np.concatenate([vertices, mesh.vertex_rgb.numpy()], axis=1).tolist()
        lines += ["v " + " ".join(f"{value:.9g}" for value in row) for row in rows]
        lines += normal_lines
        lines += [f"f {a}//{a} {b}//{b} {c}//{c}" for a, b, c in faces]
    else:
        lines += [f"mtllib {stem}.mtl"]
        lines += [f"v {x:.9g} {y:.9g} {z:.9g}" for x, y, z in vertices.tolist()]
        lines += [f"vt {u:.9g} {v:.9g}" for u, v in mesh.uvs.tolist()]
        lines += normal_lines
        lines += ["usemtl surface"]
        lines += [f"f {a}/{a}/{a} {b}/{b}/{b} {c}/{c}/{c}" for a, b, c in faces]
    return ("\n".join(lines) + "\n").encode()


def _mtl(stem: str, lit: bool) -> bytes:
    illumination = 1 if lit else 0  # diffuse light, or the color alone
    lines = ["newmtl surface", "Kd 1 1 1", "Ks 0 0 0", f"illum {illumination}"]
    return "\n".join([*lines, f"map_Kd {stem}.png", ""]).encode()


def _ply(mesh: SurfaceMesh) -> bytes:
    """Binary little-endian PLY with 8-bit colors."""
    vertices = np.empty(len(mesh.vertices), [("xyz", "<f4", 3), ("rgb", "u1", 3)])
    vertices["xyz"] = mesh.vertices.float().numpy()
    vertices["rgb"] = (mesh.vertex_rgb.float().clamp(0, 1) * 255).round().numpy()
    faces = np.empty(len(mesh.faces), [("count", "u1"), ("corners", "<i4", 3)])
    faces["count"], faces["corners"] = 3, mesh.faces.numpy()
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(vertices)}"]
    header += [f"property float {axis}" for axis in "xyz"]
    header += [f"property uchar {channel}" for channel in ("red", "green", "blue")]
    header += [f"element face {len(faces)}", "property list uchar int vertex_indices"]
    text = "\n".join([*header, "end_header", ""]).encode()
    return text + vertices.tobytes() + faces.tobytes()
