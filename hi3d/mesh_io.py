"""Meshes on disk: GLB, OBJ and PLY; and whether a mesh is closed.

In memory z is up. GLB and OBJ files are Y-up, so (x, y, z) is stored as (x, z, -y); PLY files keep
z up.
"""

import io
import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hi3d.errors import InputError
from hi3d.files import atomic_path
from hi3d.mesh import SurfaceMesh
from hi3d.texture.atlas import sample_texture

SUFFIXES = (".glb", ".obj", ".ply")

FLOAT, UNSIGNED_INT = 5126, 5125  # glTF 2.0, Section 3.6.2.2: accessor data types
ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER = 34962, 34963  # glTF 2.0, Section 3.6.2.4
LINEAR, LINEAR_MIPMAP_LINEAR, CLAMP_TO_EDGE = 9729, 9987, 33071  # glTF 2.0, Section 3.8.4


def save_mesh(mesh: SurfaceMesh, path: str | Path) -> None:
    """Write a mesh, atomically, in the format its suffix names.

    Args:
        mesh: with a texture or, without one, with vertex colours.
        path: `.glb` (Y-up; one unlit material with a base-colour PNG, or linear vertex colours),
            `.obj` (Y-up; a texture goes to `.mtl` and `.png` files beside it) or `.ply` (z up;
            8-bit vertex colours, no texture).

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
        content = _glb(mesh)
    elif suffix == ".ply":
        content = _ply(mesh)
    else:
        content = _obj(mesh, path.stem)
        if mesh.texture is not None:
            _write(path.with_suffix(".png"), _png(mesh.texture))
            _write(path.with_suffix(".mtl"), _mtl(path.stem))
    _write(path, content)


def load_mesh(path: str | Path, up: Literal["y", "z"] | None = None) -> SurfaceMesh:
    """Read a mesh of any origin; the parts of a scene become one mesh.

    A single textured part keeps its `uvs` and `texture`; several parts keep vertex colours, read
    from their textures where the vertices are. Vertices and faces keep their order.

    Args:
        path: a GLB, OBJ or PLY file.
        up: the file's upward axis. By default "z" for PLY and "y" for the others.

    Raises:
        InputError: the file is missing, of another type, broken, or holds no surface.
    """
    import trimesh

    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{path} is not a mesh file: give one of {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise InputError(f"no mesh file at {path}: check the path")
    try:
        if suffix == ".glb" and not path.read_bytes().startswith(b"glTF"):
            raise ValueError("not a GLB file")
        scene = trimesh.load_scene(path, process=False)
        placed = [scene.graph[node] for node in scene.graph.nodes_geometry]
        parts = [(scene.geometry[name], transform) for transform, name in placed]
        meshes = [
            _from_trimesh(part, transform, linear=suffix == ".glb")
            for part, transform in parts
            if isinstance(part, trimesh.Trimesh) and len(part.faces)
        ]
    except Exception as error:
        cause = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"cannot read mesh {path} ({cause}): replace the file") from error
    if not meshes:
        raise InputError(f"{path} holds no triangles: give another mesh")
    mesh = meshes[0] if len(meshes) == 1 else _joined(meshes)
    vertices = mesh.vertices
    if not vertices.isfinite().all():
        raise InputError(f"{path} has vertices that are no numbers: give another mesh")
    if (up or ("z" if suffix == ".ply" else "y")) == "y":
        x, y, z = vertices.unbind(-1)
        vertices = torch.stack([x, -z, y], dim=-1)
    return replace(mesh, vertices=vertices)


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


def linear_from_srgb(srgb: Tensor) -> Tensor:
    """Decode sRGB in [0, 1] to linear light (IEC 61966-2-1)."""
    return torch.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def srgb_from_linear(linear: Tensor) -> Tensor:
    """Encode linear light in [0, 1] as sRGB: the inverse of `linear_from_srgb`."""
    curve = 1.055 * linear.clamp_min(0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(linear <= 0.0031308, 12.92 * linear, curve)


def _write(path: Path, content: bytes) -> None:
    with atomic_path(path) as partial:
        partial.write_bytes(content)


def _y_up(vertices: Tensor) -> np.ndarray:
    """Z-up positions in the Y-up axes of glTF and OBJ. [V, 3] float32"""
    x, y, z = vertices.float().unbind(-1)
    return torch.stack([x, z, -y], dim=-1).numpy()


def _png(texture: Tensor) -> bytes:
    """[3, H, W] in [0, 1] as an 8-bit PNG file."""
    pixels = (texture.float().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0)
    stream = io.BytesIO()
    Image.fromarray(pixels.contiguous().numpy()).save(stream, format="PNG")
    return stream.getvalue()


def _glb(mesh: SurfaceMesh) -> bytes:
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

    positions = _y_up(mesh.vertices)
    bounds = {"min": positions.min(0).tolist(), "max": positions.max(0).tolist()}
    attributes = {"POSITION": add_accessor(positions, "VEC3", FLOAT, ARRAY_BUFFER, **bounds)}
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
        linear = linear_from_srgb(mesh.vertex_rgb.float().clamp(0, 1)).numpy()
        attributes["COLOR_0"] = add_accessor(linear, "VEC3", FLOAT, ARRAY_BUFFER)
    indices = mesh.faces.reshape(-1).numpy().astype("<u4")
    primitive = {
        "attributes": attributes,
        "indices": add_accessor(indices, "SCALAR", UNSIGNED_INT, ELEMENT_ARRAY_BUFFER),
        "material": 0,
    }
    material = {
        "pbrMetallicRoughness": look,
        "doubleSided": False,
        "extensions": {"KHR_materials_unlit": {}},  # the views' light is in the colours already
    }
    content = {
        "asset": {"version": "2.0", "generator": "hi3d"},
        "extensionsUsed": ["KHR_materials_unlit"],
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
    """Wavefront text; without a texture the vertex colours follow the positions (x y z r g b)."""
    lines = []
    vertices, faces = _y_up(mesh.vertices), (mesh.faces + 1).tolist()
    if mesh.uvs is None:
        rows = np.concatenate([vertices, mesh.vertex_rgb.numpy()], axis=1).tolist()
        lines += ["v " + " ".join(f"{value:.9g}" for value in row) for row in rows]
        lines += [f"f {a} {b} {c}" for a, b, c in faces]
    else:
        lines += [f"mtllib {stem}.mtl"]
        lines += [f"v {x:.9g} {y:.9g} {z:.9g}" for x, y, z in vertices.tolist()]
        lines += [f"vt {u:.9g} {v:.9g}" for u, v in mesh.uvs.tolist()]
        lines += ["usemtl surface"]
        lines += [f"f {a}/{a} {b}/{b} {c}/{c}" for a, b, c in faces]
    return ("\n".join(lines) + "\n").encode()


def _mtl(stem: str) -> bytes:
    return f"newmtl surface\nKd 1 1 1\nKs 0 0 0\nillum 0\nmap_Kd {stem}.png\n".encode()


def _ply(mesh: SurfaceMesh) -> bytes:
    """Binary little-endian PLY with 8-bit colours."""
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


def _from_trimesh(part: Any, transform: np.ndarray, linear: bool) -> SurfaceMesh:
    """One trimesh geometry, placed in the scene, in its file's axes.

    Args:
        part: `trimesh.Trimesh`.
        transform: [4, 4] from the part to the scene.
        linear: whether vertex colours and factors are linear, as in glTF, rather than sRGB.
    """
    placed = np.asarray(part.vertices) @ transform[:3, :3].T + transform[:3, 3]
    vertices = torch.from_numpy(placed.astype(np.float32))
    faces = torch.from_numpy(np.array(part.faces, np.int64))
    if np.linalg.det(transform[:3, :3]) < 0:
        faces = faces.flip(-1)
    material = getattr(part.visual, "material", None)
    image = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
    uvs = getattr(part.visual, "uv", None)
    if image is not None and uvs is not None:
        texture = torch.from_numpy(np.array(image.convert("RGB"), np.float32) / 255)
        texture = texture.permute(2, 0, 1).contiguous()
        uvs = torch.from_numpy(np.array(uvs, np.float32))
        return SurfaceMesh(vertices, faces, sample_texture(texture, uvs % 1), uvs, texture)
    return SurfaceMesh(vertices, faces, _untextured_rgb(part.visual, len(vertices), linear))


def _untextured_rgb(visual: Any, num_vertices: int, linear: bool) -> Tensor:
    """Vertex colour times the material's factor, in sRGB; grey where the file has neither."""
    if visual.kind == "texture":
        factors = [visual.vertex_attributes.get("color"), visual.material.main_color]
        if getattr(visual.material, "baseColorFactor", True) is None:
            factors.pop()  # trimesh's grey in place of glTF's white
    else:
        factors = [visual.vertex_colors] if visual.defined else []
    if not factors:
        return torch.full((num_vertices, 3), 0.5)
    rgb = torch.ones(num_vertices, 3)
    for factor in factors:
        if factor is not None:
            factor = np.asarray(factor)
            largest = np.iinfo(factor.dtype).max if factor.dtype.kind == "u" else 1
            rgb = rgb * torch.from_numpy((factor / largest).astype(np.float32))[..., :3]
    return srgb_from_linear(rgb) if linear else rgb


def _joined(meshes: list[SurfaceMesh]) -> SurfaceMesh:
    """The parts of a scene as one mesh with vertex colours."""
    starts = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes)])
    return SurfaceMesh(
        torch.cat([mesh.vertices for mesh in meshes]),
        torch.cat([mesh.faces + int(start) for mesh, start in zip(meshes, starts, strict=False)]),
        torch.cat([mesh.vertex_rgb for mesh in meshes]),
    )
