"""Texture atlases: cutting a surface into charts, and the surface points of their texels."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample, normalize

from hi3d.reconstruction.ray_casting import RayCaster
from hi3d.surface_mesh import SurfaceMesh


@dataclass(frozen=True)
class Texels:
    """The T texels that lie on a face, with the surface point at their centre."""

    index: Tensor  # [T] row * resolution + column
    positions: Tensor  # [T, 3]
    face_normals: Tensor  # [T, 3]
    smooth_normals: Tensor  # [T, 3]


def unwrap(mesh: SurfaceMesh, resolution: int, padding: int) -> tuple[Tensor, Tensor, Tensor]:
    """Cut a mesh into charts and pack them into the unit square.

    Args:
        mesh: F triangles.
        resolution: of the texture the charts are packed for, in texels.
        padding: texels between charts.

    Returns:
        source: [N] index of the vertex each new vertex is a copy of
        faces: [F, 3] indices of new vertices, in the order of `mesh.faces`
        uvs: [N, 2] in [0, 1], v up
    """
    import xatlas

    atlas = xatlas.Atlas()
    atlas.add_mesh(
        mesh.vertices.detach().cpu().float().numpy(), mesh.faces.cpu().numpy().astype(np.uint32)
    )
    packing = xatlas.PackOptions()
    packing.resolution = resolution
    packing.padding = padding
    atlas.generate(xatlas.ChartOptions(), packing)
    source, faces, uvs = atlas.get_mesh(0)
    return (
        torch.from_numpy(source.astype(np.int64)),
        torch.from_numpy(faces.astype(np.int64)),
        torch.from_numpy(uvs.copy()).clamp(0, 1),
    )


def sample_texture(texture: Tensor, uvs: Tensor) -> Tensor:
    """Read a texture with bilinear interpolation.

    Args:
        texture: [3, H, W], row 0 at v = 1.
        uvs: [N, 2] in [0, 1], v up.

    Returns:
        [N, 3]
    """
    grid = torch.stack([2 * uvs[:, 0] - 1, 1 - 2 * uvs[:, 1]], dim=-1)
    return sample_image(texture, grid)


def sample_image(image: Tensor, grid: Tensor) -> Tensor:
    """[C, H, W] read at grid [N, 2], where -1 and 1 are the image's borders. Returns [N, C]."""
    sampled = grid_sample(
        image[None], grid[None, None], mode="bilinear", padding_mode="border", align_corners=False
    )
    return sampled[0, :, 0].T


def area_weighted_normals(mesh: SurfaceMesh) -> Tensor:
    """Mean of the adjacent faces' normals, weighted by area. [V, 3]"""
    normals = _cross_products(mesh.vertices, mesh.faces).repeat_interleave(3, dim=0)
    total = torch.zeros_like(mesh.vertices).index_add_(0, mesh.faces.reshape(-1), normals)
    return normalize(total, dim=-1)


def _cross_products(vertices: Tensor, faces: Tensor) -> Tensor:
    """Normals of the faces, of twice their area's length. [F, 3]"""
    a, b, c = vertices[faces].unbind(1)
    return torch.linalg.cross(b - a, c - a)


def surface_texels(
    vertices: Tensor, faces: Tensor, uvs: Tensor, vertex_normals: Tensor, resolution: int
) -> Texels:
    """Rasterise the atlas by rays straight down on it, one through every texel's centre."""
    x, y = uvs[:, 0] * resolution, (1 - uvs[:, 1]) * resolution
    plane = RayCaster(torch.stack([x, y, torch.zeros_like(x)], dim=-1), faces)
    row, column = torch.meshgrid(torch.arange(resolution), torch.arange(resolution), indexing="ij")
    centres = torch.stack([column + 0.5, row + 0.5, torch.ones(row.shape)], dim=-1).reshape(-1, 3)
    face, barycentric = plane.hits(centres, torch.tensor([0.0, 0.0, -1.0]).expand_as(centres))
    # A face that covers no texel's centre still needs a texel of its own colour.
    missed = torch.ones(len(faces), dtype=torch.bool)
    missed[face[face >= 0]] = False
    missed_faces = missed.nonzero()[:, 0]
    middle = torch.stack([x, y], dim=-1)[faces[missed_faces]].mean(dim=1)
    cell = middle.long().clamp(0, resolution - 1)
    cell_index = cell[:, 1] * resolution + cell[:, 0]
    free = face[cell_index] < 0
    face[cell_index[free]] = missed_faces[free]
    barycentric[cell_index[free]] = 1 / 3
    index = (face >= 0).nonzero()[:, 0]
    corners, weights = faces[face[index]], barycentric[index, :, None]
    return Texels(
        index,
        (vertices[corners] * weights).sum(1),
        normalize(_cross_products(vertices, faces), dim=-1)[face[index]],
        normalize((vertex_normals[corners] * weights).sum(1), dim=-1),
    )
