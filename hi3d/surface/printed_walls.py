"""Walls with print are put where the views agree on the print.

A fit whose colors may not vary much at first explains strong print by shape: a white wall with
print bends inwards by several voxels, although nothing but the print tells that it is not flat.
So planes are tried for each large side of the surface, as in plane sweeping (Collins 1996). Where
the views' colors agree on a plane clearly better than on the surface, the surface moves to it.
Textureless walls and hollows, on which no view disagrees, stay as they are.
"""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
import trimesh
from scipy.sparse import csr_matrix, diags
from scipy.sparse.csgraph import connected_components
from scipy.spatial import ConvexHull, QhullError
from torch import Tensor

from hi3d.cameras import Cameras
from hi3d.surface.flat_walls import neighbor_links, smoothed_normals
from hi3d.views import Views

MIN_AREA_SHARE = 0.04
"""Of the whole surface: smaller sides stay as they are."""
MAX_ANGLE_DEG = 35.0
"""Between a side's direction and the smoothed normals of its points."""
REACH = 0.09
"""How far a point of a side may lie from its plane, in units of the object's longest side."""
BETTER = 0.7
"""Disagreement on the plane, of that on the surface, below which the plane is believed."""
MIN_DISAGREEMENT = 2e-4
"""Mean variance of colors in [0, 1]; below it the views agree on the surface already."""
MIN_COSINE = 0.4
"""Between a plane's normal and the direction to a camera that counts."""
MIN_DEPTH = 0.012
"""Of a pit's points within the outline of a side: those at its rim belong to what is beside it."""
RIM = 0.03
"""Of a side, in which views mix it with what is behind; it says nothing about planes."""
FIRST_STEP, LAST_STEP = 0.016, 0.0005
"""Of the search for a plane; a tilt moves the rim of a side by about as much."""
MAX_SIDES, MIN_SAMPLES, MAX_SAMPLES = 12, 100, 1500
NORMAL_SMOOTHINGS, COST_SMOOTHINGS = 12, 30
"""Passes over the neighbors."""


def with_printed_walls(mesh: trimesh.Trimesh, views: Views) -> trimesh.Trimesh:
    """Move sides of a mesh onto planes on which the views agree better.

    Args:
        mesh: closed, of triangles that are small against its sides.
        views: V views over white with alpha.

    Returns:
        A new mesh of the same faces.
    """
    vertices = np.array(mesh.vertices)
    links = neighbor_links(mesh)
    mean = diags(1 / np.asarray(links.sum(1)).ravel().clip(1)) @ links
    normals = smoothed_normals(mesh, links, NORMAL_SMOOTHINGS)
    areas = np.bincount(
        mesh.faces.ravel(), np.repeat(mesh.area_faces / 3, 3), minlength=len(vertices)
    )
    colors = torch.cat([views.rgb, views.alpha], dim=1).float().cpu()
    cameras = views.cameras.to("cpu")
    for side in _sides(vertices, normals, areas, links):
        plane = _agreed_plane(vertices[side], normals[side], colors, cameras)
        if plane is None:
            continue
        wall = _with_pits(side, plane, vertices, links)
        if len(wall) == 0:
            continue
        points = vertices[wall]
        flat = points - np.outer(points @ plane[:3] - plane[3], plane[:3])
        before = _disagreement(points, normals[wall], colors, cameras)
        gain = before - _disagreement(flat, plane[None, :3], colors, cameras)
        chosen = _averaged(gain, mean[wall][:, wall]) >= -MIN_DISAGREEMENT
        vertices[wall[chosen]] = flat[chosen]
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


def _with_pits(
    side: np.ndarray, plane: np.ndarray, vertices: np.ndarray, links: csr_matrix
) -> np.ndarray:
    """Numbers of the vertices of a side near its plane, and of those of pits within its outline."""
    within = _depth(vertices, vertices[side], plane[:3]) > MIN_DEPTH
    within[side] = True
    chosen = np.flatnonzero(within & (np.abs(vertices @ plane[:3] - plane[3]) < REACH))
    part = connected_components(links[chosen][:, chosen], directed=False)[1]
    return chosen[np.isin(part, part[np.isin(chosen, side)])]


def _depth(points: np.ndarray, side: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """How far points [N, 3] lie within the convex outline of a side [M, 3], along its plane.

    -inf where the side has no area along the plane.
    """
    across = np.linalg.svd(normal[None])[2][1:]
    try:
        outline = ConvexHull(side @ across.T).equations
    except QhullError:
        return np.full(len(points), -np.inf)
    return np.asarray(-(points @ across.T @ outline[:, :2].T + outline[:, 2]).max(1))


def _agreed_plane(
    points: np.ndarray, normals: np.ndarray, colors: Tensor, cameras: Cameras
) -> np.ndarray | None:
    """Normal and offset [4] of the plane on which the views agree; None if the surface is better.

    Args:
        points: [N, 3] of a side.
        normals: [N, 3]
        colors: [V, 4, H, W]
        cameras: of the V views.
    """
    center, normal = points.mean(0), normals.mean(0)
    normal = normal / np.linalg.norm(normal)
    across = np.linalg.svd(normal[None])[2][1:]
    inner = np.flatnonzero(_depth(points, points, normal) > RIM)
    if len(inner) < MIN_SAMPLES:
        return None
    inner = inner[:: max(1, len(inner) // MAX_SAMPLES)]
    few = points[inner]
    radius = np.abs((few - center) @ across.T).max(0).clip(1e-3)

    def plane_of(moves: np.ndarray) -> np.ndarray:
        tilted = normal + (moves[1:] / radius) @ across
        tilted /= np.linalg.norm(tilted)
        return np.append(tilted, tilted @ (center + moves[0] * normal))

    def cost(moves: np.ndarray) -> float:
        plane = plane_of(moves)
        flat = few - np.outer(few @ plane[:3] - plane[3], plane[:3])
        return float(_disagreement(flat, plane[None, :3], colors, cameras).mean())

    surface = float(_disagreement(few, normals[inner], colors, cameras).mean())
    if surface < MIN_DISAGREEMENT:
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
    return plane_of(moves) if least < BETTER * surface else None


def _averaged(values: np.ndarray, mean: csr_matrix) -> np.ndarray:
    """Values of vertices [N] averaged over rings of neighbors."""
    for _ in range(COST_SMOOTHINGS):
        values = (values + mean @ values) / 2
    return values


def _disagreement(
    points: np.ndarray, normals: np.ndarray, colors: Tensor, cameras: Cameras
) -> np.ndarray:
    """Variance [N] of the colors and alpha that the views which points [N, 3] face see at them.

    Normals are [N, 3], or [1, 3] for all. Points that fewer than two views see have none.
    """
    target, facing = torch.from_numpy(points).float(), torch.from_numpy(normals).float()
    away = F.normalize(cameras.positions[:, None] - target, dim=2)
    cosines = (away * facing).sum(2)
    weights = torch.where(cosines > MIN_COSINE, cosines**2, 0)
    seen = torch.nonzero(weights.amax(1) > 0)[:, 0].tolist()
    if not seen:
        return np.zeros(len(points))
    weights = weights[seen][:, None] / weights.sum(0).clamp_min(1e-9)
    size = target.new_tensor([cameras.width, cameras.height])
    places = torch.stack([2 * cameras.project(target, view)[0] / size - 1 for view in seen])
    values = F.grid_sample(colors[seen], places[:, :, None], align_corners=False)[..., 0]
    average = (weights * values).sum(0)
    return np.asarray((weights * (values - average) ** 2).sum(0).mean(0))
