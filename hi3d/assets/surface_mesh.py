"""Object files as surface meshes, and surface meshes as objects."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from hi3d.assets.load import read_parts
from hi3d.assets.parts import ObjectPart, RenderObject, Sampler
from hi3d.color import linear_from_srgb, srgb_from_linear
from hi3d.errors import InputError
from hi3d.mesh import SurfaceMesh

MAX_TEXTURE_SIDE = 16384


def load_mesh(
    path: str | Path,
    up: Literal["y", "z"] | None = None,
    front: Literal["x", "z"] | None = None,
) -> SurfaceMesh:
    """Read an object file as one mesh, not moved.

    A single textured part keeps its `uvs` and `texture`; several parts keep vertex colors, read
    from their textures where the vertices are. Faces and the vertices they use keep their order.

    Args:
        path: a GLB, glTF, OBJ or PLY file.
        up: the file's upward axis, by default as in `hi3d.assets.load.load_object`.
        front: the axis of a Y-up file that faces azimuth 0, by default as there.

    Raises:
        InputError: the file is missing, of another type, broken, or holds no surface.
    """
    parts = [
        part for part in read_parts(path, up, MAX_TEXTURE_SIDE, front=front) if len(part.faces)
    ]
    if not parts:
        raise InputError(f"{path} holds no triangles: give another mesh")
    starts = np.cumsum([0, *(len(part.vertices) for part in parts)])[:-1]
    vertices = np.concatenate([part.vertices for part in parts]).astype(np.float32)
    if not np.isfinite(vertices).all():
        raise InputError(f"{path} has vertices that are no numbers: give another mesh")
    faces = np.concatenate([part.faces + start for part, start in zip(parts, starts, strict=True)])
    uvs = texture = None
    if len(parts) == 1 and parts[0].vertex_rgba is None:
        uvs, texture = _uvs_and_texture(_unclamped(parts[0]))
    return SurfaceMesh(
        torch.from_numpy(vertices),
        torch.from_numpy(faces.astype(np.int64)),
        torch.cat([_vertex_rgb(part) for part in parts]),
        uvs,
        texture,
    )


def _unclamped(part: ObjectPart) -> ObjectPart:
    """The part with a texture whose edge texels go on as far as clamped UVs reach beyond it."""
    if part.uvs is None or part.texture is None or not any(part.sampler.clamped):
        return part
    clamped = np.array(part.sampler.clamped)
    low = np.where(clamped, np.floor(part.uvs.min(axis=0)).clip(None, 0), 0)
    high = np.where(clamped, np.ceil(part.uvs.max(axis=0)).clip(1), 1)
    height, width = part.texture.shape[:2]
    if ((high - low) * [width, height]).max() > MAX_TEXTURE_SIDE:
        return part
    columns, rows = (np.array([-low, high - 1]).T * [[width], [height]]).astype(int)
    texture = np.pad(part.texture, (rows[::-1], columns, (0, 0)), mode="edge")  # row 0: the top
    uvs = ((part.uvs - low) / (high - low)).astype(np.float32)
    return replace(part, uvs=uvs, texture=texture, sampler=Sampler(nearest=part.sampler.nearest))


def _uvs_and_texture(part: ObjectPart) -> tuple[Tensor | None, Tensor | None]:
    """Of a part without vertex colors; its factor is multiplied into the texture."""
    if part.uvs is None or part.texture is None:
        return None, None
    rgb = part.texture[..., :3].astype(np.float32) / 255
    factor = part.base_color_factor[:3]
    if not np.allclose(factor, 1, atol=1e-6):
        rgb = srgb_from_linear(linear_from_srgb(rgb) * linear_from_srgb(factor))
    return torch.from_numpy(part.uvs), torch.from_numpy(rgb).permute(2, 0, 1).contiguous()


def _vertex_rgb(part: ObjectPart) -> Tensor:
    """The part's base color at its vertices, in sRGB. [V, 3]"""
    rgba = part.vertex_rgba
    uvs, texture = _uvs_and_texture(part)
    if uvs is None or texture is None:
        if rgba is None:
            rgb = np.broadcast_to(part.base_color_factor[:3], (len(part.vertices), 3))
            return torch.from_numpy(rgb.astype(np.float32))
        if np.allclose(part.base_color_factor[:3], 1, atol=1e-6):
            return torch.from_numpy(rgba[:, :3].astype(np.float32))
        return torch.from_numpy(srgb_from_linear(part.linear_vertex_rgba[:, :3]))
    clamped = torch.tensor(part.sampler.clamped)
    grid = torch.where(clamped, uvs.clamp(0, 1), uvs % 1)
    grid = grid * torch.tensor([2.0, -2.0]) + torch.tensor([-1.0, 1.0])
    sampled = grid_sample(
        texture[None],
        grid[None, None],
        "nearest" if part.sampler.nearest else "bilinear",
        padding_mode="border",
        align_corners=False,
    )[0, :, 0].T
    if rgba is None:
        return sampled
    linear = linear_from_srgb(sampled.numpy()) * linear_from_srgb(rgba[:, :3])
    return torch.from_numpy(srgb_from_linear(linear))


def surface_mesh_to_object(mesh: SurfaceMesh) -> RenderObject:
    """A reconstructed mesh as an object, not moved; with its texture, else its vertex colors."""
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
