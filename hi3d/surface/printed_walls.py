"""Walls with print are put where the views agree on the print.

A fit whose colors may not vary much at first explains strong print by shape: a white wall with
print bends inwards by several voxels and gets pits of any depth, although nothing but the print
tells that it is not flat. So planes are tried for each large side of the surface, as in plane
sweeping (Collins 1996). Where the views' colors agree on a plane clearly better than on the
surface, the surface moves to it. Textureless walls and hollows, on which no view disagrees, stay.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import trimesh
from scipy.sparse import csr_matrix, diags
from scipy.sparse.csgraph import connected_components
from scipy.spatial import ConvexHull, QhullError

from hi3d.surface.color_agreement import ColorAgreement
from hi3d.surface.flat_walls import neighbor_links, smoothed_normals

MIN_AREA_SHARE = 0.04
"""Of the whole surface: smaller sides stay as they are."""
MAX_ANGLE_DEG = 35.0
"""Between a side's direction and the smoothed normals of its points."""
REACH = 0.03
"""From its plane that a wall's vertices may have, in units of the object's longest side."""
BETTER = 0.7
"""Disagreement on the plane, of that on the surface, below which the plane is believed."""
MIN_DISAGREEMENT = 2e-4
"""Mean variance of colors in [0, 1]; below it the views agree on the surface already."""
NEAR = 0.012
"""Of a side's points that are not pitted."""
AS_GOOD = 1.25
"""Disagreement on the plane, of that on the surface, where the two lie together."""
MIN_NEAR = 0.3
"""Of a side's points that are to lie so near its plane."""
MIN_SOLID = 0.95
"""Of a side's points on its plane that are to lie within the views' visual hull."""
RIM = 0.03
"""Of a side, in which views mix it with what is behind; it says nothing about planes."""
FIRST_STEP, LAST_STEP = 0.016, 0.0005
"""Of the search for a plane; a tilt moves the rim of a side by about as much."""
MAX_SIDES, MIN_SAMPLES, MAX_SAMPLES = 12, 100, 1500
NORMAL_SMOOTHINGS, COST_SMOOTHINGS = 12, 30
"""Passes over the neighbors."""


@dataclass(frozen=True)
class PrintedWall:
    """A plane on which the views agree, and how far the wall reaches along it."""

    normal: np.ndarray  # [3]
    """Unit, outwards."""
    offset: float
    """Of the plane's points along the normal."""
    across: np.ndarray  # [2, 3]
    """Two directions within the plane."""
    outline: np.ndarray  # [E, 3]
    """Of the wall, convex: coordinates along `across` times the first two plus the third are below
    0 within."""

    def heights(self, points: np.ndarray) -> np.ndarray:
        """Distance [N] of points [N, 3] before the plane, below 0 behind it."""
        return np.asarray(points @ self.normal - self.offset)

    def contained(self, points: np.ndarray) -> np.ndarray:
        """Numbers of those of points [N, 3] that lie within the outline."""
        places, kept = points @ self.across.T, np.arange(len(points))
        for edge in self.outline:
            kept = kept[places[kept] @ edge[:2] + edge[2] < 0]
        return kept

    def depths(self, points: np.ndarray) -> np.ndarray:
        """How far [N] points [N, 3] lie within the outline, below 0 outside."""
        places = points @ self.across.T
        depths = np.full(len(points), np.inf)
        for edge in self.outline:
            depths = np.minimum(depths, -(places @ edge[:2] + edge[2]))
        return depths


def find_printed_walls(mesh: trimesh.Trimesh, agreement: ColorAgreement) -> list[PrintedWall]:
    """Planes of large sides on which the views agree clearly better than on the surface.

    Args:
        mesh: closed, of triangles that are small against its sides.
        agreement: of the views, with that mesh.
    """
    vertices = np.array(mesh.vertices)
    links = neighbor_links(mesh)
    normals = smoothed_normals(mesh, links, NORMAL_SMOOTHINGS)
    areas = np.bincount(
        mesh.faces.ravel(), np.repeat(mesh.area_faces / 3, 3), minlength=len(vertices)
    )
    walls = []
    for side in _sides(vertices, normals, areas, links):
        points = vertices[side]
        plane = _agreed_plane(points, normals[side], mesh.vertex_normals[side], agreement)
        if plane is not None:
            near = points[np.abs(points @ plane[:3] - plane[3]) < NEAR]
            walls.extend(_wall(plane, near))
    return walls


def moved_to_walls(
    mesh: trimesh.Trimesh, walls: list[PrintedWall], agreement: ColorAgreement
) -> trimesh.Trimesh:
    """Move vertices near walls onto their planes where the views agree there as well.

    Args:
        mesh: closed.
        walls: found on it.
        agreement: of the views, with that mesh.

    Returns:
        A new mesh of the same faces.
    """
    vertices, normals = np.array(mesh.vertices), mesh.vertex_normals
    links = neighbor_links(mesh)
    smooth = smoothed_normals(mesh, links, NORMAL_SMOOTHINGS)
    mean = diags(1 / np.asarray(links.sum(1)).ravel().clip(1)) @ links
    for wall in walls:
        heights = wall.heights(vertices)
        facing = smooth @ wall.normal > np.cos(np.deg2rad(MAX_ANGLE_DEG))
        chosen = np.flatnonzero(facing & (np.abs(heights) < REACH))
        chosen = chosen[wall.depths(vertices[chosen]) > -NEAR]
        flat = vertices[chosen] - np.outer(heights[chosen], wall.normal)
        gain = agreement.on_surface(vertices[chosen], normals[chosen]).variance
        gain = gain - agreement.on_plane(flat, wall.normal).variance
        better = _averaged(gain, mean[chosen][:, chosen]) >= -MIN_DISAGREEMENT
        vertices[chosen[better]] = flat[better]
    return trimesh.Trimesh(vertices, mesh.faces, process=False)


def _sides(
    vertices: np.ndarray, normals: np.ndarray, areas: np.ndarray, links: csr_matrix
) -> Iterator[np.ndarray]:
    """Numbers [N] of the vertices of each large connected side that faces one way."""
    directions = np.asarray(trimesh.creation.icosphere(2).vertices)
    facing = normals @ directions.T > np.cos(np.deg2rad(MAX_ANGLE_DEG))
    free = np.ones(len(vertices), dtype=bool)
    for _ in range(MAX_SIDES):
        best = (np.where(free, areas, 0) @ facing).argmax()
        chosen = np.flatnonzero(facing[:, best] & free)
        if areas[chosen].sum() < MIN_AREA_SHARE * areas.sum():
            return
        part = connected_components(links[chosen][:, chosen], directed=False)[1]
        side = chosen[part == np.bincount(part, areas[chosen]).argmax()]
        free[side] = False
        if areas[side].sum() >= MIN_AREA_SHARE * areas.sum():
            yield side


def _wall(plane: np.ndarray, points: np.ndarray) -> list[PrintedWall]:
    """The wall of a plane [4] with the outline of points [N, 3]; none where they have no area."""
    across = np.linalg.svd(plane[None, :3])[2][1:]
    try:
        outline = ConvexHull(points @ across.T).equations
    except (QhullError, ValueError):
        return []
    return [PrintedWall(plane[:3], float(plane[3]), across, outline)]


def _agreed_plane(
    points: np.ndarray, facing: np.ndarray, normals: np.ndarray, agreement: ColorAgreement
) -> np.ndarray | None:
    """Normal and offset [4] of the plane on which the views agree; None if the surface is better.

    Args:
        points: [N, 3] of a side.
        facing: [N, 3] their normals, smoothed.
        normals: [N, 3] as they are.
        agreement: of the views.
    """
    center, normal = points.mean(0), facing.mean(0)
    normal = normal / np.linalg.norm(normal)
    across = np.linalg.svd(normal[None])[2][1:]
    whole = _wall(np.append(normal, normal @ center), points)
    if not whole:
        return None
    inner = np.flatnonzero(whole[0].depths(points) > RIM)
    if len(inner) < MIN_SAMPLES:
        return None
    inner = inner[:: max(1, len(inner) // MAX_SAMPLES)]
    few = points[inner]
    radius = np.abs((few - center) @ across.T).max(0).clip(1e-3)

    def plane_of(moves: np.ndarray) -> np.ndarray:
        tilted = normal + (moves[1:] / radius) @ across
        tilted /= np.linalg.norm(tilted)
        return np.append(tilted, tilted @ (center + moves[0] * normal))

    def on_plane(moves: np.ndarray) -> np.ndarray:
        plane = plane_of(moves)
        flat = few - np.outer(few @ plane[:3] - plane[3], plane[:3])
        return agreement.on_plane(flat, plane[:3]).variance

    def cost(moves: np.ndarray) -> float:
        return float(on_plane(moves).mean())

    surface = agreement.on_surface(few, normals[inner]).variance
    if surface.mean() < MIN_DISAGREEMENT:
        return None
    moves = min((np.array([shift, 0, 0]) for shift in np.linspace(-0.048, 0.048, 13)), key=cost)
    least, step = cost(moves), FIRST_STEP
    while step > LAST_STEP:
        tried = [moves + sign * step * axis for axis in np.eye(3) for sign in (-1, 1)]
        costs = [cost(trial) for trial in tried]
        if min(costs) < least:
            least, moves = min(costs), tried[int(np.argmin(costs))]
        else:
            step /= 2
    plane = plane_of(moves)
    heights = few @ plane[:3] - plane[3]
    near = np.abs(heights) < NEAR
    if least > BETTER * surface.mean() or near.mean() < MIN_NEAR:
        return None
    solid = agreement.in_hull(few - np.outer(heights, plane[:3])).mean() > MIN_SOLID
    explained = on_plane(moves)[near].mean() <= AS_GOOD * surface[near].mean()
    return plane if solid and explained else None


def _averaged(values: np.ndarray, mean: csr_matrix) -> np.ndarray:
    """Values of vertices [N] averaged over rings of neighbors."""
    for _ in range(COST_SMOOTHINGS):
        values = (values + mean @ values) / 2
    return values
