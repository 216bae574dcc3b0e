"""Objects as they are rendered: parts with unlit base colours, from GLB, glTF, OBJ or PLY."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hi3d.errors import InputError
from hi3d.mesh import SurfaceMesh

AlphaMode = Literal["OPAQUE", "MASK", "BLEND"]
SUFFIXES = (".glb", ".gltf", ".obj", ".ply")
LIGHT_GREY = np.array([0.8, 0.8, 0.8, 1.0], np.float32)  # sRGB, of parts without a material
MAX_FACES = 20_000_000
"""Larger objects are refused: they would take tens of gigabytes."""
MIN_AREA = 1e-8  # of the whole normalised surface; below it the object is a line or a point


@dataclass(frozen=True)
class ObjectPart:
    """Triangles of one material.

    The base colour at a point is `base_color_factor * vertex_rgba * texture`, multiplied in linear
    light (glTF 2.0, Section 3.9.2); every factor is stored in sRGB.
    """

    vertices: np.ndarray  # [V, 3] float32
    """World positions, z up."""
    faces: np.ndarray  # [F, 3] int64
    """Vertex indices, counter-clockwise seen from outside."""
    base_color_factor: np.ndarray  # [4] float32
    """RGBA in [0, 1]; RGB in sRGB, alpha linear."""
    uvs: np.ndarray | None = None  # [V, 2] float32
    """Texture coordinates, v up; beyond [0, 1] the texture repeats."""
    texture: np.ndarray | None = None  # [H, W, 4] uint8
    """RGBA with RGB in sRGB, row 0 at the top (v = 1). Parts may share one array."""
    vertex_rgba: np.ndarray | None = None  # [V, 4] float32
    """Vertex colours in [0, 1]; RGB in sRGB, alpha linear."""
    alpha_mode: AlphaMode = "OPAQUE"
    """OPAQUE ignores alpha, MASK cuts at `alpha_cutoff`, BLEND mixes with what lies behind."""
    alpha_cutoff: float = 0.5
    """With MASK, points with a smaller alpha do not exist."""

    def __post_init__(self) -> None:
        num_vertices = len(self.vertices)
        if self.vertices.shape != (num_vertices, 3):
            raise ValueError(f"vertices must be [V, 3], got {self.vertices.shape}")
        if self.faces.ndim != 2 or self.faces.shape[1] != 3:
            raise ValueError(f"faces must be [F, 3], got {self.faces.shape}")
        if self.base_color_factor.shape != (4,):
            raise ValueError(f"base_color_factor must be [4], got {self.base_color_factor.shape}")
        if (self.uvs is None) != (self.texture is None):
            raise ValueError("uvs and texture go together: give both or neither")
        if self.uvs is not None and self.uvs.shape != (num_vertices, 2):
            raise ValueError(f"uvs must be [V, 2], got {self.uvs.shape}")
        if self.texture is not None and (
            self.texture.dtype != np.uint8 or self.texture.ndim != 3 or self.texture.shape[2] != 4
        ):
            raise ValueError(f"texture must be [H, W, 4] uint8, got {self.texture.shape}")
        if self.vertex_rgba is not None and self.vertex_rgba.shape != (num_vertices, 4):
            raise ValueError(f"vertex_rgba must be [V, 4], got {self.vertex_rgba.shape}")

    @property
    def linear_vertex_rgba(self) -> np.ndarray:
        """`base_color_factor * vertex_rgba` in linear light. [V, 4] float32"""
        factor = linear_from_srgb(self.base_color_factor)
        if self.vertex_rgba is None:
            return np.broadcast_to(factor, (len(self.vertices), 4))
        return factor * linear_from_srgb(self.vertex_rgba)


@dataclass(frozen=True)
class RenderObject:
    """What the renderers draw: one or more parts in one coordinate system."""

    parts: tuple[ObjectPart, ...]
    """At least one."""

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError("an object needs at least one part")

    @property
    def points(self) -> np.ndarray:
        """The vertices that triangles use. [N, 3]"""
        return np.concatenate([part.vertices[np.unique(part.faces)] for part in self.parts])

    @property
    def bounds(self) -> np.ndarray:
        """Smallest and largest corner of the box around the used vertices. [2, 3]"""
        points = self.points
        return np.stack([points.min(axis=0), points.max(axis=0)])

    def normalised(self) -> "RenderObject":
        """The same object with its bounding box centred at the origin and longest side 1."""
        low, high = self.bounds.astype(np.float64)
        centre, longest_side = (low + high) / 2, (high - low).max()
        if longest_side <= 0:
            raise ValueError("an object without extent cannot be normalised")
        return RenderObject(
            tuple(
                replace(part, vertices=((part.vertices - centre) / longest_side).astype(np.float32))
                for part in self.parts
            )
        )


def srgb_from_linear(rgba: np.ndarray) -> np.ndarray:
    """Encode linear light as sRGB (IEC 61966-2-1).

    Args:
        rgba: [..., 3 or 4] in [0, 1]; a fourth channel is alpha and stays.
    """
    encoded = np.array(rgba, np.float32)
    light = encoded[..., :3].clip(0, 1)
    curve = 1.055 * np.maximum(light, 0.0031308) ** (1 / 2.4) - 0.055
    encoded[..., :3] = np.where(light <= 0.0031308, 12.92 * light, curve)
    return encoded


def linear_from_srgb(rgba: np.ndarray) -> np.ndarray:
    """Decode sRGB to linear light (IEC 61966-2-1): the inverse of `srgb_from_linear`."""
    light = np.array(rgba, np.float32)
    encoded = light[..., :3].clip(0, 1)
    curve = ((np.maximum(encoded, 0.04045) + 0.055) / 1.055) ** 2.4
    light[..., :3] = np.where(encoded <= 0.04045, encoded / 12.92, curve)
    return light


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
    from hi3d.assets.gltf import read_gltf
    from hi3d.assets.obj_file import read_obj, scanned_object_folder

    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{path} is not an object file: give one of {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise InputError(f"no object file at {path}: check the path")
    try:
        if suffix == ".ply":
            parts = _read_ply(path, max_texture_side)
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


def surface_mesh_to_object(mesh: SurfaceMesh) -> RenderObject:
    """A reconstructed mesh as an object, not moved; with its texture, else its vertex colours."""
    vertices = mesh.vertices.detach().cpu().float().numpy()
    faces = mesh.faces.detach().cpu().long().numpy()
    white = np.ones(4, np.float32)
    if mesh.texture is not None and mesh.uvs is not None:
        rgb = mesh.texture.detach().cpu().float().clamp(0, 1).permute(1, 2, 0).numpy()
        texture = np.full((*rgb.shape[:2], 4), 255, np.uint8)
        texture[..., :3] = (rgb * 255).round()
        uvs = mesh.uvs.detach().cpu().float().numpy()
        return RenderObject((ObjectPart(vertices, faces, white, uvs, texture),))
    vertex_rgba = np.ones((len(vertices), 4), np.float32)
    vertex_rgba[:, :3] = mesh.vertex_rgb.detach().cpu().float().clamp(0, 1).numpy()
    return RenderObject((ObjectPart(vertices, faces, white, vertex_rgba=vertex_rgba),))


def _read_ply(path: Path, max_texture_side: int) -> list[ObjectPart]:
    """Parts of a PLY file, with vertex or face colours in sRGB, or a texture that it names."""
    import trimesh

    from hi3d.assets.textures import image_rgba

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
