"""Space that a surface shuts in, found by flooding a grid from outside.

The walls of a hollow box with its lid closed are a thin shell to the winding number, and a shell
compared with a solid has no volume in common worth the name. Images show the solid.
"""

import itertools

import numpy as np
import torch
from torch import Tensor

from hi3d.mesh import SurfaceMesh
from hi3d.surface.ray_casting import RayCaster

MAX_CELL = 0.02
"""Coarser grids are subdivided for the flood, or wide openings would count as closed."""
SPACING = 0.8
"""Edge of the lattice on the triangles, in cells. Every point of the surface then lies within half
a cell of a lattice point, so that no path between neighboring cell centers crosses the surface
through unmarked cells."""
POINTS_AT_ONCE = 2_000_000


def enclosed_cells(mesh: SurfaceMesh, resolution: int, half_extent: float) -> Tensor:
    """Which cell centers cannot be reached from outside without crossing the surface.

    Openings narrower than a cell count as closed. A cell that the surface passes through is
    enclosed if its center has a free line to an enclosed cell beside it; solid walls are left to
    the winding number.

    Args:
        mesh: any triangles, closed or not.
        resolution: R cells along each side.
        half_extent: the grid spans [-half_extent, half_extent]^3.

    Returns:
        [R, R, R] bool, indexed x, y, z, on the CPU.
    """
    from scipy.ndimage import label

    factor = 1  # odd, so that the coarse centers are centers of fine cells
    while 2 * half_extent / (resolution * factor) > MAX_CELL:
        factor += 2
    cell = 2 * half_extent / (resolution * factor)
    surface = np.pad(_surface_cells(mesh, resolution * factor, half_extent), 1)
    regions, _ = label(~surface)
    enclosed = ~surface & (regions != regions[0, 0, 0])
    if not enclosed.any():
        return torch.zeros((resolution,) * 3, dtype=torch.bool)
    middle = slice(1 + factor // 2, -1, factor)
    result = enclosed[middle, middle, middle].copy()
    caster = RayCaster(mesh.vertices, mesh.faces)
    undecided = np.argwhere(surface[middle, middle, middle])
    for offset in itertools.product((0, -1, 1), repeat=3):
        own = undecided * factor + 1 + factor // 2
        beside = enclosed[tuple((own + offset).T)]
        starts = torch.from_numpy((own[beside] - 0.5) * cell - half_extent).float()
        steps = torch.tensor(offset).float().mul(cell).expand_as(starts)
        free = np.zeros(len(undecided), dtype=bool)
        free[beside] = (caster.distances(starts, steps) > 1).numpy()
        result[tuple(undecided[free].T)] = True
        undecided = undecided[~free]
    return torch.from_numpy(result)


def _surface_cells(mesh: SurfaceMesh, resolution: int, half_extent: float) -> np.ndarray:
    """Cells that the surface passes through, but for some it only grazes. [R, R, R] bool"""
    cell = 2 * half_extent / resolution
    marked = np.zeros((resolution,) * 3, dtype=bool)
    corners = mesh.vertices.detach().cpu().double().numpy()[mesh.faces.cpu().numpy()]
    longest = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=-1).max(axis=1)
    divisions = np.ceil(longest / (SPACING * cell)).clip(1).astype(int)
    for count in np.unique(divisions):
        i, j = np.meshgrid(np.arange(count + 1), np.arange(count + 1), indexing="ij")
        i, j = i[i + j <= count], j[i + j <= count]
        weights = np.stack([i, j, count - i - j], axis=-1) / count
        triangles = corners[divisions == count]
        step = max(1, POINTS_AT_ONCE // len(weights))
        for start in range(0, len(triangles), step):
            points = (weights @ triangles[start : start + step]).reshape(-1, 3)
            index = np.floor((points + half_extent) / cell).astype(int)
            index = index[((index >= 0) & (index < resolution)).all(axis=1)]
            marked[tuple(index.T)] = True
    return marked
