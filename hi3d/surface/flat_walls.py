"""Walls that are flat but for the fit's noise become flat.

A grid of voxels cannot hold print finer than they are, so a fit engraves it: shallow pits with the
outlines of letters. A large region whose points lie within a voxel of one plane, and which is not
bent as a whole, is taken for a wall, and its vertices are moved onto the plane.
"""

from collections.abc import Iterator

import numpy as np
import trimesh
from scipy.sparse import csr_matrix, diags
from scipy.sparse.csgraph import connected_components

MIN_AREA_SHARE = 0.04
"""Of the whole surface: smaller walls stay as they are."""
DISTANCE = 0.007
"""From a wall's plane that its points may have, in units of the object's longest side: just below a
voxel of the finest default grid."""
MAX_ANGLE_DEG = 20.0
"""Between a wall's normal and those of its points, smoothed over pits."""
MAX_BEND = 0.003
"""A region that is bent by more is a part of something round. The distance above lets the round
reach four times as much before it leaves the plane."""
NORMAL_SMOOTHINGS = 6
"""Passes over the neighbors."""
OFFSET_BIN = 0.01
"""In the search for planes; directions are those of an icosahedron cut twice, 9 degrees apart."""
MAX_TRIES, REFITS = 40, 4


def with_flat_walls(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """Move the vertices of walls onto their planes, by less than `DISTANCE`.

    Args:
        mesh: closed, of triangles that are small against its walls.

    Returns:
        A new mesh of the same faces.
    """
    vertices = np.array(mesh.vertices)
    links = neighbor_links(mesh)
    normals = smoothed_normals(mesh, links, NORMAL_SMOOTHINGS)
    areas = np.bincount(
        mesh.faces.ravel(), np.repeat(mesh.area_faces / 3, 3), minlength=len(vertices)
    )
    for wall, normal, offset in _walls(vertices, normals, areas, links):
        vertices[wall] -= np.outer(vertices[wall] @ normal - offset, normal)
    return trimesh.Trimesh(vertices, mesh.faces, process=False)


def _walls(
    vertices: np.ndarray, normals: np.ndarray, areas: np.ndarray, links: csr_matrix
) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
    """Vertices [N], normal [3] and offset of each wall, the largest first; none twice.

    Args:
        vertices: [V, 3]
        normals: [V, 3], unit.
        areas: [V] share of the surface.
        links: [V, V], not 0 between neighbors.
    """
    directions = np.asarray(trimesh.creation.icosphere(2).vertices)
    direction = (normals @ directions.T).argmax(1)
    offset = np.round((vertices * directions[direction]).sum(1) / OFFSET_BIN).astype(int)
    offset -= offset.min()
    cell = direction * (offset.max() + 1) + offset
    free = np.ones(len(vertices), dtype=bool)
    least = MIN_AREA_SHARE * areas.sum()
    for _ in range(MAX_TRIES):
        filled = np.bincount(cell[free], areas[free])
        if len(filled) == 0 or filled.max() < least / 4:  # a plane may lie in several cells
            return
        start = free & (cell == filled.argmax())
        region, normal, plane_offset = _grown_wall(start, free, vertices, normals, areas, links)
        free &= ~start & ~region
        if areas[region].sum() < least:
            continue
        if _bend(vertices[region], normal) <= MAX_BEND:
            yield np.flatnonzero(region), normal, plane_offset


def _grown_wall(
    start: np.ndarray,
    free: np.ndarray,
    vertices: np.ndarray,
    normals: np.ndarray,
    areas: np.ndarray,
    links: csr_matrix,
) -> tuple[np.ndarray, np.ndarray, float]:
    """The largest connected region around the plane of some vertices. [V] bool, normal, offset"""
    region = start
    normal, offset = _plane(vertices[region], normals[region], areas[region])
    for _ in range(REFITS):
        near = free & (np.abs(vertices @ normal - offset) < DISTANCE)
        near &= normals @ normal > np.cos(np.deg2rad(MAX_ANGLE_DEG))
        chosen = np.flatnonzero(near)
        if len(chosen) == 0:
            return near, normal, offset
        part = connected_components(links[chosen][:, chosen], directed=False)[1]
        region = np.zeros_like(free)
        region[chosen[part == np.bincount(part, areas[chosen]).argmax()]] = True
        normal, offset = _plane(vertices[region], normals[region], areas[region])
    return region, normal, offset


def _plane(
    points: np.ndarray, normals: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, float]:
    """Normal [3] and offset of the plane of least squares, turned as the points' normals are."""
    center = np.average(points, axis=0, weights=weights)
    apart = points - center
    _, axes = np.linalg.eigh(apart.T @ (weights[:, None] * apart))
    mean = normals.mean(0)
    normal = axes[:, 0] if len(points) > 3 else mean / np.linalg.norm(mean).clip(1e-9)
    normal = normal * (1 if mean @ normal >= 0 else -1)
    return normal, float(center @ normal)


def _bend(points: np.ndarray, normal: np.ndarray) -> float:
    """How far the quadric through points [N, 3] of one region departs from a plane, in all."""
    axes = np.linalg.svd(normal[None])[2][1:]
    apart = points - points.mean(0)
    (x, y), height = (apart @ axes.T).T, apart @ normal
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=1)
    quadric = terms[:, 3:] @ np.linalg.lstsq(terms, height, rcond=None)[0][3:]
    flat = quadric - terms[:, :3] @ np.linalg.lstsq(terms[:, :3], quadric, rcond=None)[0]
    return float(np.ptp(np.percentile(flat, [2, 98])))


def neighbor_links(mesh: trimesh.Trimesh) -> csr_matrix:
    """Which of the V vertices of a mesh share an edge: [V, V], 1 between neighbors."""
    edges, count = mesh.edges_unique, len(mesh.vertices)
    links = csr_matrix((np.ones(len(edges)), edges.T), shape=(count, count))
    return (links + links.T).tocsr()


def smoothed_normals(mesh: trimesh.Trimesh, links: csr_matrix, passes: int) -> np.ndarray:
    """Unit normals of a mesh's vertices, averaged over rings of neighbors.

    Args:
        mesh: V vertices.
        links: [V, V], 1 between neighbors.
        passes: how often each normal becomes the mean of itself and its neighbors' mean.

    Returns:
        [V, 3]
    """
    normals = np.array(mesh.vertex_normals)
    mean = diags(1 / np.asarray(links.sum(1)).ravel().clip(1)) @ links
    for _ in range(passes):
        normals = (normals + mean @ normals) / 2
    result: np.ndarray = normals / np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-9)
    return result
