"""Marching cubes in blocks, so that memory grows with the surface and not with the volume."""

import numpy as np
import torch
import trimesh
from torch import Tensor

from hi3d.errors import InputError
from hi3d.surface.grid import GridField, surface_cells

BLOCK_CELLS = 64
MIN_LEVEL_DISTANCE = 0.02
"""In voxels: grid vertices nearer to the surface are moved this far from it, so that no triangle is
without area."""
MAX_LEVEL_DISTANCE = 8.0
"""In voxels: with larger values a vertex of the mesh could come too near to the end of its edge to
tell which edge it lies on."""
END_OF_EDGE = 1e-3
"""Coordinates this near to a whole number, in voxels, are that number."""


def marching_cubes(field: GridField, block_cells: int = BLOCK_CELLS) -> trimesh.Trimesh:
    """The zero level set as a closed mesh; what touches the cube's boundary is cut off there.

    Args:
        field: sdf negative inside.
        block_cells: cells a side that are held in memory at once.

    Returns:
        The mesh, outward-oriented; the same for every size of the blocks.

    Raises:
        InputError: the field has no surface.
    """
    from skimage.measure import marching_cubes as skimage_marching_cubes

    if not torch.isfinite(field.sdf).all():
        raise InputError("the field holds numbers that are not finite: fit it again")
    # Vertex -1 and vertex R lie outside the cube, where the field counts as outside.
    resolution = field.resolution
    firsts = np.stack(
        np.meshgrid(*[np.arange(-1, resolution, block_cells)] * 3, indexing="ij"), axis=-1
    )
    keys, positions, faces, count = [], [], [], 0
    may_cross = crossing_blocks(field, firsts.reshape(-1, 3), block_cells)
    for first in firsts.reshape(-1, 3)[may_cross]:
        sdf = block_sdf(field, first, block_cells)
        if not (sdf < 0).any() or not (sdf >= 0).any():
            continue
        block_positions, block_faces, _, _ = skimage_marching_cubes(sdf.numpy(), level=0.0)
        whole = block_positions.round()
        at_end = np.abs(block_positions - whole) < END_OF_EDGE
        block_positions = np.where(at_end, whole, block_positions).astype(np.float64)
        # Twice the coordinate of a grid edge's middle names the edge, the same in every block.
        names = np.where(at_end, 2 * whole, 2 * np.floor(block_positions) + 1)
        keys.append(names.astype(np.int64) + 2 * (first + 1))
        positions.append(block_positions + first)
        faces.append(block_faces.astype(np.int64) + count)
        count += len(block_positions)
    if not keys:
        raise InputError("the field has no inside: fit it to views that show an object")
    base = 2 * (resolution + 2)
    packed = np.concatenate(keys) @ np.array([base * base, base, 1])
    _, kept, welded = np.unique(packed, return_index=True, return_inverse=True)
    vertices = np.concatenate(positions)[kept] * field.voxel_size - field.half_extent
    mesh = trimesh.Trimesh(vertices, welded.ravel()[np.concatenate(faces)], process=False)
    if mesh.volume < 0:
        mesh.invert()
    return mesh


def crossing_blocks(field: GridField, firsts: np.ndarray, block_cells: int) -> np.ndarray:
    """Which blocks may hold surface: those with cells of the field that it crosses.

    Args:
        field: trilinear, so that a cell with corners of one sign holds no surface.
        firsts: [N, 3] first grid vertex of each block.
        block_cells: cells a side of a block.

    Returns:
        [N] bool. Blocks at the boundary of the cube always count.
    """
    crossed = surface_cells(field.sdf, 0).cpu().numpy()
    low, high = firsts - 1, firsts + block_cells + 1
    beyond = firsts + block_cells >= field.resolution
    at_boundary = np.any(firsts < 0, axis=1) | np.any(beyond, axis=1)
    result: np.ndarray = np.array(at_boundary)
    for i in np.flatnonzero(~at_boundary):
        (x0, y0, z0), (x1, y1, z1) = low[i].clip(min=0), high[i]
        result[i] = crossed[x0:x1, y0:y1, z0:z1].any()
    return result


def block_sdf(field: GridField, first: np.ndarray, block_cells: int) -> Tensor:
    """The SDF at the vertices of one block, kept away from the level and from large values.

    Args:
        field: gives the values.
        first: [3] index of the block's first vertex; may be -1.
        block_cells: cells a side; the last block is cut off one vertex outside the cube.

    Returns:
        [<= block_cells + 1] * 3 float32 on the CPU, in voxels.
    """
    resolution = field.resolution
    last = np.minimum(first + block_cells, resolution)  # inclusive
    inner_first, inner_last = np.maximum(first, 0), np.minimum(last, resolution - 1)
    (x0, y0, z0), (x1, y1, z1) = inner_first, inner_last + 1
    inner = field.sdf[x0:x1, y0:y1, z0:z1].detach().float().cpu() / field.voxel_size
    inner = torch.where(
        inner < 0, inner.clamp_max(-MIN_LEVEL_DISTANCE), inner.clamp_min(MIN_LEVEL_DISTANCE)
    ).clamp(-MAX_LEVEL_DISTANCE, MAX_LEVEL_DISTANCE)
    before, after = inner_first - first, last - inner_last
    padding = [int(n) for axis in (2, 1, 0) for n in (before[axis], after[axis])]
    return torch.nn.functional.pad(inner, padding, value=1.0).contiguous()
