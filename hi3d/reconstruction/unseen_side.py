"""The side of the object that an orbit never sees: the underside, for cameras above the horizon.

Images say nothing about it, so a fit leaves what silhouettes allow: a cone below the object, as
steep as the cameras' elevation. A membrane that spans the visible rim of each downward-facing patch
is exact for anything that stands on a flat base, leg by leg, but cuts a round bottom off. So the
patch is put between the two, by how far the visible surface around it already faces down.
"""

import numpy as np
import trimesh
from scipy.sparse import csr_matrix, diags
from scipy.sparse.linalg import spsolve

FACING = 0.1
"""Least cosine between a vertex normal and the direction to a camera that sees the vertex: along
the hull's cone the rays only graze the surface."""
GAP_EDGES, GAP = 3, 0.05
"""Spots and strips inside the unseen patch, up to twice as wide, that are seen or face up are noise
of the cone's normals: a single one would hold the membrane down. So many edges or so far in world
units, whichever is less, and at least one edge."""
RAY_OFFSET = 5e-3
"""Rays start this far from the surface, so that they do not hit the triangles they start on."""
MIN_THICKNESS = 0.02
"""Walls are left at least this thick, in units of the object's longest side."""
RIM_EDGES = 4
"""So many edges from the unseen patch its surroundings show how they face; nearer, the normals are
mixed with those of the patch."""
MIN_UNSEEN_SHARE = 1e-3
"""Less than this share of the vertices is not worth a change."""


def flatten_unseen_side(mesh: trimesh.Trimesh, positions: np.ndarray) -> trimesh.Trimesh:
    """Move the unseen vertices on the side away from the cameras towards a membrane.

    Only heights change. The unseen vertices that face down (up, for cameras below the horizon), and
    narrow gaps between them, move from the height z towards m, the harmonic interpolation of the
    heights around them: `z' = m + n / (1 + n) (z - m)`, with n the downward part of the unit
    normals around, which is interpolated likewise. With upright walls around the patch, n = 0 and
    the patch becomes flat; below the tangent cone of a ball the formula gives the ball's lowest
    point. A vertex never moves outwards, and never through the far side of a thin wall (a dish).
    The faces stay as they are, so a closed mesh stays closed.

    Args:
        mesh: closed, outward-oriented.
        positions: [V, 3] camera centres.

    Returns:
        A new mesh.
    """
    outward = -1.0 if positions[:, 2].mean() >= 0 else 1.0
    normals = np.asarray(mesh.vertex_normals)
    facing_away = outward * normals[:, 2] > 0
    edge_length = float(np.median(mesh.edges_unique_length))
    gap = min(GAP_EDGES, max(1, round(GAP / edge_length)))
    hidden = closed_gaps(mesh, facing_away & ~seen_vertices(mesh, positions), gap)
    if not MIN_UNSEEN_SHARE < hidden.mean() < 1:
        return mesh
    around = hidden
    for _ in range(RIM_EDGES):
        around = around | touching(mesh, around)
    n = harmonic(mesh, (outward * normals[:, 2]).clip(min=0), free=around)
    flattening = 1 - n / (1 + n)
    membrane = harmonic(mesh, mesh.vertices[:, 2], free=hidden)
    inwards = -outward * flattening * (membrane - mesh.vertices[:, 2])
    moved = np.flatnonzero(hidden & (inwards > 0))
    room = thickness(mesh, moved, inward=-outward, through=hidden) - MIN_THICKNESS
    vertices = np.array(mesh.vertices)
    vertices[moved, 2] -= outward * np.minimum(inwards[moved], room.clip(min=0))
    return trimesh.Trimesh(vertices, mesh.faces, process=False)


def thickness(
    mesh: trimesh.Trimesh, vertices: np.ndarray, inward: float, through: np.ndarray
) -> np.ndarray:
    """Vertical distance from vertices through the solid to the next surface.

    Args:
        mesh: closed.
        vertices: [N] indices.
        inward: 1 to look up, -1 to look down.
        through: [number of vertices] bool; faces of such vertices alone do not count: a noisy patch
            has folds.

    Returns:
        [N]; infinite where nothing is met.
    """
    distance = np.full(len(vertices), np.inf)
    direction = np.array([0.0, 0.0, inward])
    starts = mesh.vertices[vertices] + RAY_OFFSET * direction
    directions = np.broadcast_to(direction, starts.shape)
    hits, rays, faces = mesh.ray.intersects_location(starts, directions, multiple_hits=True)
    counts = ~through[mesh.faces[faces]].all(axis=1)
    heights = np.abs(hits[:, 2] - mesh.vertices[vertices[rays], 2])
    np.minimum.at(distance, rays[counts], heights[counts])
    return distance


def seen_vertices(mesh: trimesh.Trimesh, positions: np.ndarray) -> np.ndarray:
    """Which vertices some camera sees, not grazing and not through the surface.

    Args:
        mesh: closed, outward-oriented.
        positions: [V, 3] camera centres.

    Returns:
        [number of vertices] bool.
    """
    seen = np.zeros(len(mesh.vertices), dtype=bool)
    normals = np.asarray(mesh.vertex_normals)
    for position in positions:
        directions = position - mesh.vertices
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        candidates = np.flatnonzero(~seen & ((directions * normals).sum(1) > FACING))
        if len(candidates) == 0:
            continue
        starts = mesh.vertices[candidates] + RAY_OFFSET * normals[candidates]
        seen[candidates] = ~mesh.ray.intersects_any(starts, directions[candidates])
    return seen


def closed_gaps(mesh: trimesh.Trimesh, chosen: np.ndarray, num_edges: int) -> np.ndarray:
    """The chosen vertices with their narrow gaps: grown and shrunk by so many edges.

    Args:
        mesh: its edges say who is whose neighbour.
        chosen: [N] bool.
        num_edges: half the width of the widest gap that is closed.

    Returns:
        [N] bool; the chosen ones stay chosen.
    """
    grown = chosen
    for _ in range(num_edges):
        grown = grown | touching(mesh, grown)
    left = ~grown
    for _ in range(num_edges):
        left = left | touching(mesh, left)
    return ~left


def touching(mesh: trimesh.Trimesh, chosen: np.ndarray) -> np.ndarray:
    """Which vertices share an edge with a chosen one. [N] bool -> [N] bool"""
    edges = mesh.edges_unique
    result = np.zeros_like(chosen)
    result[edges[chosen[edges[:, 0]], 1]] = True
    result[edges[chosen[edges[:, 1]], 0]] = True
    return result


def harmonic(mesh: trimesh.Trimesh, values: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Values of which the free ones are the mean of their neighbours'.

    Args:
        mesh: its edges say who is whose neighbour.
        values: [N] one value a vertex.
        free: [N] bool; a connected patch of free vertices without a fixed neighbour keeps its mean.

    Returns:
        [N] values, the fixed ones as they were.
    """
    values = np.array(values, dtype=np.float64)
    edges = mesh.edges_unique
    count = len(values)
    both = np.concatenate([edges, edges[:, ::-1]])
    adjacency = csr_matrix((np.ones(len(both)), (both[:, 0], both[:, 1])), shape=(count, count))
    rows = adjacency[np.flatnonzero(free)]
    # The tiny pull to the present values keeps patches without fixed neighbours solvable.
    pull = 1e-9
    degree = np.asarray(rows.sum(1)).ravel()
    system = diags(degree + pull) - rows[:, np.flatnonzero(free)]
    known = rows[:, np.flatnonzero(~free)] @ values[~free] + pull * values[free]
    values[free] = spsolve(system.tocsc(), known)
    return values
