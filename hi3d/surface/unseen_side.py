"""The side of the object that an orbit never sees: the underside, for cameras above the horizon.

Images say nothing about it, so a fit leaves what silhouettes allow: a cone below the object, as
steep as the lowest rays. What is put there instead depends on how the visible surface ends. Where
it still faces a camera up to its end, an edge hides what follows: the underside is a membrane that
spans the rim, exact for whatever stands on a flat base, leg by leg. Where it ends because it turns
away from all cameras, it is taken to go on turning as it does, until it is level.
"""

import numpy as np
import trimesh
from scipy.sparse import csr_matrix, diags
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import spsolve
from scipy.spatial import cKDTree

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
CURVATURE_BAND = 0.06
"""From there outwards over which the curvature is measured, in world units."""
EDGE_COSINES = 0.3, 0.5
"""Between a normal and the direction to the camera it faces most: below the first the surface has
turned away from all cameras, above the second it ends at an edge."""
CLOSING = 0.3, 0.6
"""Of the curvature that would be level in the middle of the patch: below the first, going on
turning as it does would leave a tip, so it is not what the surface does. Above the second it is."""
ROUNDNESS = 0.9
"""Of the arc's depth that is taken: real fruit is flatter below than a ball."""
MIN_UNSEEN_SHARE = 1e-3
"""Less than this share of the vertices is not worth a change."""


def flatten_unseen_side(mesh: trimesh.Trimesh, positions: np.ndarray) -> trimesh.Trimesh:
    """Move the unseen vertices on the side away from the cameras to where the object may end.

    Only heights change. The unseen vertices that face down (up, for cameras below the horizon), and
    narrow gaps between them, move to a membrane, the harmonic interpolation of the heights around
    them, or below it by as much as `arc_depth` has. A vertex never moves outwards, and never
    through the far side of a thin wall (a dish). The faces stay as they are, so a closed mesh stays
    closed.

    Args:
        mesh: closed, outward-oriented.
        positions: [V, 3] camera centers.

    Returns:
        A new mesh.
    """
    outward = -1.0 if positions[:, 2].mean() >= 0 else 1.0
    down = (outward * np.asarray(mesh.vertex_normals)[:, 2]).clip(0, 1)
    cosines, seen = facing_cosines(mesh, positions), seen_vertices(mesh, positions)
    edge_length = float(np.median(mesh.edges_unique_length))
    gap = min(GAP_EDGES, max(1, round(GAP / edge_length)))
    hidden = closed_gaps(mesh, (down > 0) & ~seen, gap)
    if not MIN_UNSEEN_SHARE < hidden.mean() < 1:
        return mesh
    around = grown(mesh, hidden, RIM_EDGES)
    band = max(2, round(CURVATURE_BAND / edge_length))
    at_rim = np.stack([down, cosines, rim_curvature(mesh, around, np.arcsin(down), band)], axis=1)
    membrane = harmonic(mesh, mesh.vertices[:, 2], free=hidden)
    depth = arc_depth(mesh, hidden, *harmonic(mesh, at_rim, free=around).T)
    inwards = outward * (mesh.vertices[:, 2] - membrane) - depth
    moved = np.flatnonzero(hidden & (inwards > 0))
    room = thickness(mesh, moved, inward=-outward, through=hidden) - MIN_THICKNESS
    vertices = np.array(mesh.vertices)
    vertices[moved, 2] -= outward * np.minimum(inwards[moved], room.clip(min=0))
    return trimesh.Trimesh(vertices, mesh.faces, process=False)


def rim_curvature(
    mesh: trimesh.Trimesh, around: np.ndarray, angles: np.ndarray, num_edges: int
) -> np.ndarray:
    """How fast the surface turns downwards towards a patch.

    Args:
        mesh: its edges say who is whose neighbor.
        around: [N] bool, the patch.
        angles: [N] of the surface below upright, in radians.
        num_edges: from the vertices next to the patch to those that they are compared with.

    Returns:
        [N] radians in a world unit, at least 0; 0 but for vertices next to the patch.
    """
    curvature = np.zeros(len(angles))
    near = np.flatnonzero(touching(mesh, around) & ~around)
    inner = grown(mesh, around, num_edges)
    far = np.flatnonzero(touching(mesh, inner) & ~inner)
    if len(near) > 0 and len(far) > 0:
        distance, partner = cKDTree(mesh.vertices[far]).query(mesh.vertices[near])
        turn = (angles[near] - angles[far[partner]]).clip(min=0)
        curvature[near] = turn / distance.clip(min=1e-6)
    return curvature


def arc_depth(
    mesh: trimesh.Trimesh,
    hidden: np.ndarray,
    down: np.ndarray,
    cosines: np.ndarray,
    curvature: np.ndarray,
) -> np.ndarray:
    """How far the surface goes on below its rim.

    From a rim where the unit normal's downward part is n and the curvature k, a circle of radius
    1 / k, or a smaller one that is level in the middle of the patch, goes on; behind its lowest
    point the surface stays level. This is exact for a ball, but for `ROUNDNESS`.

    Args:
        mesh: its edges say which vertices form a patch.
        hidden: [N] bool, vertices of the patches.
        down: [N] the part n at the rim around.
        cosines: [N] of the angle between the rim's normals and the camera they face most.
        curvature: [N] the rim's, in radians in a world unit.

    Returns:
        [N] depths in world units, at least 0; 0 outside of the patches.
    """
    depth = np.zeros(len(hidden))
    across = np.sqrt(1 - down.clip(0, 1 - 1e-6) ** 2)
    turned_away = 1 - smooth_step(cosines, *EDGE_COSINES)
    edges, count = mesh.edges_unique, len(hidden)
    inner = edges[hidden[edges].all(axis=1)]
    graph = csr_matrix((np.ones(len(inner)), inner.T), shape=(count, count))
    _, patches = connected_components(graph, directed=False)
    crossing = edges[hidden[edges[:, 0]] != hidden[edges[:, 1]]]
    # Each such edge as (vertex of the patch, vertex of its rim).
    crossing = np.where(hidden[crossing[:, :1]], crossing, crossing[:, ::-1])
    for patch in np.unique(patches[crossing[:, 0]]):
        part = np.flatnonzero(hidden & (patches == patch))
        rim = crossing[patches[crossing[:, 0]] == patch, 1]
        distance, _ = cKDTree(mesh.vertices[rim, :2]).query(mesh.vertices[part, :2])
        ball = distance.max() / across[part]
        closing = smooth_step(curvature[part] * ball, *CLOSING)
        radius = np.minimum(1 / curvature[part].clip(min=1e-6), ball)
        left = (radius * across[part] - distance).clip(min=0)
        arc = np.sqrt(radius**2 - left**2) - radius * down[part]
        depth[part] = ROUNDNESS * turned_away[part] * closing * arc.clip(min=0)
    return depth


def smooth_step(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 up to low, 1 from high on, and a cubic between them."""
    x = ((values - low) / (high - low)).clip(0, 1)
    return x * x * (3 - 2 * x)


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
        positions: [V, 3] camera centers.

    Returns:
        [number of vertices] bool.
    """
    seen = np.zeros(len(mesh.vertices), dtype=bool)
    normals = np.asarray(mesh.vertex_normals)
    for position in positions:
        candidates = np.flatnonzero(~seen & (cosines_to(mesh, position) > FACING))
        if len(candidates) == 0:
            continue
        starts = mesh.vertices[candidates] + RAY_OFFSET * normals[candidates]
        seen[candidates] = ~mesh.ray.intersects_any(starts, position - starts)
    return seen


def facing_cosines(mesh: trimesh.Trimesh, positions: np.ndarray) -> np.ndarray:
    """How much each vertex faces the camera that it faces most, whether that sees it or not.

    Args:
        mesh: outward-oriented.
        positions: [V, 3] camera centers.

    Returns:
        [number of vertices] cosines.
    """
    best = np.full(len(mesh.vertices), -1.0)
    for position in positions:
        np.maximum(best, cosines_to(mesh, position), out=best)
    return best


def cosines_to(mesh: trimesh.Trimesh, position: np.ndarray) -> np.ndarray:
    """Of the angle at each vertex between its normal and the direction to a point. [N]"""
    directions = position - mesh.vertices
    lengths = np.linalg.norm(directions, axis=1)
    return (directions * np.asarray(mesh.vertex_normals)).sum(1) / lengths


def closed_gaps(mesh: trimesh.Trimesh, chosen: np.ndarray, num_edges: int) -> np.ndarray:
    """The chosen vertices with their narrow gaps: grown and shrunk by so many edges.

    Args:
        mesh: its edges say who is whose neighbor.
        chosen: [N] bool.
        num_edges: half the width of the widest gap that is closed.

    Returns:
        [N] bool; the chosen ones stay chosen.
    """
    return ~grown(mesh, ~grown(mesh, chosen, num_edges), num_edges)


def grown(mesh: trimesh.Trimesh, chosen: np.ndarray, num_edges: int) -> np.ndarray:
    """The chosen vertices and those within so many edges of them. [N] bool -> [N] bool"""
    for _ in range(num_edges):
        chosen = chosen | touching(mesh, chosen)
    return chosen


def touching(mesh: trimesh.Trimesh, chosen: np.ndarray) -> np.ndarray:
    """Which vertices share an edge with a chosen one. [N] bool -> [N] bool"""
    edges = mesh.edges_unique
    result = np.zeros_like(chosen)
    result[edges[chosen[edges[:, 0]], 1]] = True
    result[edges[chosen[edges[:, 1]], 0]] = True
    return result


def harmonic(mesh: trimesh.Trimesh, values: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Values of which the free ones are the mean of their neighbors'.

    Args:
        mesh: its edges say who is whose neighbor.
        values: [N] one value a vertex, or [N, K] several.
        free: [N] bool; a connected patch of free vertices without a fixed neighbor keeps its mean.

    Returns:
        The values, the fixed ones as they were.
    """
    values = np.array(values, dtype=np.float64)
    edges = mesh.edges_unique
    count = len(values)
    both = np.concatenate([edges, edges[:, ::-1]])
    adjacency = csr_matrix((np.ones(len(both)), (both[:, 0], both[:, 1])), shape=(count, count))
    rows = adjacency[np.flatnonzero(free)]
    # The tiny pull to the present values keeps patches without fixed neighbors solvable.
    pull = 1e-9
    degree = np.asarray(rows.sum(1)).ravel()
    system = diags(degree + pull) - rows[:, np.flatnonzero(free)]
    known = rows[:, np.flatnonzero(~free)] @ values[~free] + pull * values[free]
    values[free] = spsolve(system.tocsc(), known)
    return values
