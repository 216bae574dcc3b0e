"""Texture atlases: cutting a surface into charts, and the surface points of their texels."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample, normalize

from hi3d.mesh import SurfaceMesh
from hi3d.surface.ray_casting import RayCaster

MAX_PIECE_FACES = 3000
MIN_SIZE = 0.1
"""xatlas leaves out triangles of tiny meshes: smaller ones are enlarged for it."""


@dataclass(frozen=True)
class Texels:
    """The T texels that lie on one of F faces, with the surface point at their center."""

    index: Tensor  # [T] int64
    """Row * resolution + column."""
    face: Tensor  # [T] int64
    """The face they lie on."""
    positions: Tensor  # [T, 3]
    """The surface points."""
    smooth_normals: Tensor  # [T, 3]
    """Unit normals, interpolated between those of the vertices."""
    face_normals: Tensor  # [F, 3]
    """Unit normals of the faces; 0 for faces without area."""
    face_offsets: Tensor  # [F]
    """Distance of the faces' planes from the origin along their normals."""


def unwrap(mesh: SurfaceMesh, resolution: int, padding: int) -> tuple[Tensor, Tensor, Tensor]:
    """Cut a mesh into charts and pack them into the unit square.

    xatlas takes much more than twice the time for a mesh twice as large, so it is given pieces.

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

    all_faces = mesh.faces.cpu().numpy()
    positions = mesh.vertices.detach().cpu().float().numpy()
    size = np.ptp(positions, axis=0).max()
    if 0 < size < MIN_SIZE:
        positions = positions / size
    atlas, pieces, piece_vertices = xatlas.Atlas(), [], []
    for piece in split_by_position(positions[all_faces].mean(1), MAX_PIECE_FACES):
        used, local_faces = np.unique(all_faces[piece], return_inverse=True)
        atlas.add_mesh(positions[used], local_faces.reshape(-1, 3).astype(np.uint32))
        pieces.append(piece)
        piece_vertices.append(used)
    packing = xatlas.PackOptions()
    packing.resolution = resolution
    packing.padding = padding
    atlas.generate(xatlas.ChartOptions(), packing)
    sources, all_uvs, count = [], [], 0
    faces = np.empty_like(all_faces, dtype=np.int64)
    for number, (piece, used) in enumerate(zip(pieces, piece_vertices, strict=True)):
        source, local_faces, uvs = atlas.get_mesh(number)
        faces[piece] = local_faces.astype(np.int64) + count
        sources.append(used[source])
        all_uvs.append(uvs)
        count += len(source)
    return (
        torch.from_numpy(np.concatenate(sources).astype(np.int64)),
        torch.from_numpy(faces),
        torch.from_numpy(np.concatenate(all_uvs)).clamp(0, 1),
    )


def split_by_position(points: np.ndarray, max_size: int) -> list[np.ndarray]:
    """Halve a set of points across its longest side, and the halves, until they are small.

    Args:
        points: [N, 3], N >= 1.
        max_size: of a part.

    Returns:
        Indices of the points of each part, in rising order; each point is in one part.
    """
    parts, waiting = [], [np.arange(len(points))]
    while waiting:
        part = waiting.pop()
        if len(part) <= max_size:
            parts.append(np.sort(part))
            continue
        axis = np.ptp(points[part], axis=0).argmax()
        order = part[np.argsort(points[part, axis], kind="stable")]
        waiting += [order[len(order) // 2 :], order[: len(order) // 2]]
    return parts


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


def face_areas(vertices: Tensor, faces: Tensor) -> Tensor:
    """Areas of triangles. [F]"""
    return _cross_products(vertices, faces).norm(dim=-1) / 2


def _cross_products(vertices: Tensor, faces: Tensor) -> Tensor:
    """Normals of the faces, of twice their area's length. [F, 3]"""
    a, b, c = vertices[faces].unbind(1)
    return torch.linalg.cross(b - a, c - a)


def surface_texels(
    vertices: Tensor, faces: Tensor, uvs: Tensor, vertex_normals: Tensor, resolution: int
) -> Texels:
    """Find the surface point of every texel, by rays straight down on the flat atlas.

    Args:
        vertices: [N, 3]
        faces: [F, 3]
        uvs: [N, 2] in [0, 1], v up.
        vertex_normals: [N, 3]
        resolution: height and width of the texture.

    Returns:
        The texels whose center lies on a face, and one for each face that covers no center, if the
        texel in its middle is free.
    """
    flat = torch.stack([uvs[:, 0], 1 - uvs[:, 1], torch.zeros(len(uvs))], dim=-1) * resolution
    plane = RayCaster(flat, faces)
    # The rays go row by row, a million at a time, so that large atlases fit into memory.
    columns = torch.arange(resolution) + 0.5
    hits = []
    for rows in torch.arange(resolution).split(max(1, 2**20 // resolution)):
        y, x = torch.meshgrid(rows + 0.5, columns, indexing="ij")
        centres = torch.stack([x, y, torch.ones_like(x)], dim=-1).reshape(-1, 3)
        face, barycentric = plane.hits(centres, torch.tensor([0.0, 0.0, -1.0]).expand_as(centres))
        found = (face >= 0).nonzero()[:, 0]
        hits.append((found + int(rows[0]) * resolution, face[found], barycentric[found]))
    index, face, barycentric = (torch.cat(parts) for parts in zip(*hits, strict=True))
    index, face, barycentric = _with_small_faces(
        index, face, barycentric, flat[faces][..., :2].mean(1), resolution
    )
    normals = _cross_products(vertices, faces)
    # Corner by corner: [T, 3, 3] would be the largest tensor of the whole baking.
    position, normal = torch.zeros(len(index), 3), torch.zeros(len(index), 3)
    for corner in range(3):
        vertex, weight = faces[face, corner], barycentric[:, corner, None]
        position += vertices[vertex] * weight
        normal += vertex_normals[vertex] * weight
    face_normals = normalize(normals, dim=-1)
    offsets = (face_normals * vertices[faces[:, 0]]).sum(-1)
    return Texels(index, face, position, normalize(normal, dim=-1), face_normals, offsets)


def _with_small_faces(
    index: Tensor, face: Tensor, barycentric: Tensor, middles: Tensor, resolution: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Add a texel for each face that covers no texel's center, in order of `index`.

    Args:
        index: [T] row * resolution + column
        face: [T]
        barycentric: [T, 3]
        middles: [F, 2] column and row of the faces' middles.
        resolution: height and width of the texture.

    Returns:
        `index`, `face` and `barycentric` with the new texels.
    """
    missed = torch.ones(len(middles), dtype=torch.bool)
    missed[face] = False
    missed_faces = missed.nonzero()[:, 0]
    column, row = middles[missed_faces].long().clamp(0, resolution - 1).unbind(-1)
    taken = torch.zeros(resolution * resolution, dtype=torch.bool)
    taken[index] = True
    # One face for each free texel: of several, the last.
    owner = torch.full((resolution * resolution,), -1)
    owner[row * resolution + column] = missed_faces
    new = ((owner >= 0) & ~taken).nonzero()[:, 0]
    order = torch.cat([index, new]).argsort()
    return (
        torch.cat([index, new])[order],
        torch.cat([face, owner[new]])[order],
        torch.cat([barycentric, torch.full((len(new), 3), 1 / 3)])[order],
    )


def nearest_texels(index: Tensor, resolution: int) -> Tensor:
    """For each pixel of the texture the texel it shows: its own, or between charts the nearest.

    Args:
        index: [T] row * resolution + column of the texels
        resolution: height and width R of the texture.

    Returns:
        [R, R] int32 in [0, T)
    """
    from scipy.ndimage import distance_transform_edt

    texel = np.full((resolution, resolution), -1, dtype=np.int32)
    texel.reshape(-1)[index.numpy()] = np.arange(len(index), dtype=np.int32)
    row, column = distance_transform_edt(texel < 0, return_distances=False, return_indices=True)
    return torch.from_numpy(texel[row, column])
