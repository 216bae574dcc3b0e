"""Which triangles are seen from their front alone.

Files say of a material whether it has one side, but many objects that say so are wound the wrong
way, and leaving out all back sides would leave holes in them. So back sides are drawn, except where
something else stands for them:

- Coincident shells: a triangle that lies on others wound the other way (the outside and the inside
  of a wall as the same triangles, each with its own material) shows on its front only. The pair
  covers both sides, so nothing is lost whichever way the object is wound.
- Inverted hulls, which draw outlines: a piece of one color, of a single-sided material, whose
  fronts look right onto the fronts of other pieces, on all sides of those, and whose backs look
  outside. A piece that is merely wound the wrong way looks onto its own other side, or onto
  nothing, or covers one side alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from hi3d.assets.parts import ObjectPart

COINCIDENT = 5e-4
"""Largest distance of coincident triangles, as a share of the object's longest side."""
OPPOSITE_COSINE = -0.9
"""Of the normals of triangles that are wound against each other."""
NEAR_CORNERS = np.array([[1 / 3] * 3, [0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]])
"""Barycentric coordinates of the points where a triangle is looked at."""
DIRECTIONS = np.array(
    [[0.54, 0.62, 0.57], [-0.61, 0.55, 0.57], [0.58, -0.52, 0.63], [0.57, 0.63, -0.53]]
)
"""Of planes that few normals lie in."""
LEAST_SHARE = 1e-3
"""Of an object's area: less of it that coincides are folds of no importance."""
HULL_GAP = 0.1
"""Largest distance of a hull from what it outlines, as a share of the object's longest side."""
HULL_SHARE = 0.7
"""Least share of a hull's area that looks onto fronts of other pieces."""
OUTSIDE_SHARE = 0.25
"""Least share of a hull's area whose back has nothing before it."""
OUTLINED_SHARE = 0.5
"""Least share of the open area of the outlined pieces that looks onto the hull."""
FLAT = 8 / 255
"""Largest standard deviation of the color of a hull."""
START = 1e-5
"""Distance of the start of a ray from its triangle, as a share of the longest side."""
WELD = 1e-6
"""Corners this close, as a share of the longest side, connect triangles to a piece."""
FEW_TRIANGLES = 10_000
"""So many triangles are searched in no time."""
MAX_TRIANGLES = 3_000_000
"""Larger objects keep all their back sides: their triangles are smaller than pixels."""


def with_seen_sides(parts: Sequence[ObjectPart]) -> list[ObjectPart]:
    """Parts whose `single_sided` holds for what is to be drawn, split where it holds for some.

    Args:
        parts: with `single_sided` as the file says.
    """
    if sum(len(part.faces) for part in parts) > MAX_TRIANGLES:
        return [replace(part, single_sided=False) for part in parts]
    soup = _Soup.of(parts)
    hidden = _coincident(soup) if _may_coincide(soup) else np.zeros(len(soup.corners), bool)
    if soup.areas[hidden].sum() < LEAST_SHARE * soup.areas.sum():
        hidden[:] = False
    if any(part.single_sided and part.alpha_mode != "BLEND" for part in parts):
        hidden |= _hulls(soup, parts)
    result = []
    for index, part in enumerate(parts):
        marked = hidden[soup.part == index]
        for single_sided in (False, True):
            chosen = marked == single_sided
            if chosen.any():
                faces = part.faces if chosen.all() else part.faces[chosen]
                result.append(replace(part, faces=faces, single_sided=single_sided))
    return result


@dataclass(frozen=True)
class _Soup:
    """All triangles of an object, scaled to a longest side of 1."""

    corners: np.ndarray  # [F, 3, 3]
    normals: np.ndarray  # [F, 3], unit
    areas: np.ndarray  # [F]
    part: np.ndarray  # [F]
    vertex: np.ndarray  # [F, 3], the same where corners are welded

    @staticmethod
    def of(parts: Sequence[ObjectPart]) -> "_Soup":
        corners = np.concatenate([p.vertices[p.faces] for p in parts]).astype(np.float64)
        low, high = corners.min(axis=(0, 1)), corners.max(axis=(0, 1))
        corners = (corners - (low + high) / 2) / (high - low).max()
        a, b, c = corners.transpose(1, 0, 2)
        normals = np.cross(b - a, c - a)
        length = np.linalg.norm(normals, axis=1)
        part = np.repeat(np.arange(len(parts)), [len(p.faces) for p in parts])
        normals /= np.maximum(length, 1e-300)[:, None]
        x, y, z = np.rint(corners.reshape(-1, 3).T / WELD).astype(np.int64)
        _, vertex = np.unique((x << 42) + (y << 21) + z, return_inverse=True)
        return _Soup(corners, normals, length / 2, part, vertex.reshape(-1, 3))


def _may_coincide(soup: _Soup) -> bool:
    """Whether there are corners where triangles have opposite normals; True for small objects.

    Opposite normals lie on two sides of every plane. Few other vertices have normals on both sides
    of all of some planes: this spares most large objects the search.
    """
    if len(soup.areas) <= FEW_TRIANGLES:
        return True
    both = np.ones(soup.vertex.max() + 1, bool)
    for direction in DIRECTIONS:
        positive = soup.normals @ direction > 0
        for side in (positive, ~positive):
            met = np.zeros(len(both), bool)
            met[soup.vertex[side]] = True
            both &= met
    area = soup.areas[both[soup.vertex].any(axis=1)].sum()
    return bool(area > LEAST_SHARE * soup.areas.sum())


def _coincident(soup: _Soup) -> np.ndarray:
    """Which triangles lie, as far as can be told from four points, on opposite ones. [F]"""
    # Opposite normals differ in the sign of their product with any fixed direction, so a ray from
    # one triangle finds the other in the scene of the other sign without meeting its own.
    positive = soup.normals @ DIRECTIONS[0] > 0
    found = np.zeros(len(soup.corners), bool)
    for chosen, others in ((positive, ~positive), (~positive, positive)):
        rows, targets = np.flatnonzero(chosen), np.flatnonzero(others)
        if not len(rows) or not len(targets):
            continue
        scene = _scene(soup.corners[targets])
        for weights in NEAR_CORNERS:
            points = np.einsum("k,fkc->fc", weights, soup.corners[rows])
            normals = soup.normals[rows]
            hit, distance = _first(scene, points + COINCIDENT * normals, -normals)
            near = (hit >= 0) & (distance <= 2 * COINCIDENT)
            cosine = (soup.normals[targets[hit]] * normals).sum(axis=1)
            rows = rows[near & (cosine < OPPOSITE_COSINE)]
        found[rows] = True
    return found


def _hulls(soup: _Soup, parts: Sequence[ObjectPart]) -> np.ndarray:
    """Which triangles belong to the outline hull of other pieces. [F]"""
    piece, num_pieces = _pieces(soup.vertex)
    if num_pieces == 1:
        return np.zeros(len(piece), bool)
    claimed = np.array([part.single_sided and part.alpha_mode != "BLEND" for part in parts])
    claimed_piece = np.ones(num_pieces, bool)
    np.logical_and.at(claimed_piece, piece, claimed[soup.part])
    scene = _scene(soup.corners)

    def first(rows: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
        """The triangle before the front (side 1) or back (-1) of `rows`, or -1; its distance."""
        normals = side * soup.normals[rows]
        return _first(scene, soup.corners[rows].mean(axis=1) + START * normals, normals)

    def looks_onto(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The triangle close before the front of each of `rows`, or -1; whether it is a front."""
        normals = soup.normals[rows]
        hit, distance = first(rows, 1)
        hit = np.where(distance <= HULL_GAP, hit, -1)
        return hit, (hit >= 0) & ((soup.normals[hit] * normals).sum(axis=1) < 0)

    rows = np.flatnonzero(claimed_piece[piece])
    hit, is_front = looks_onto(rows)
    onto_others = is_front & (piece[hit] != piece[rows])
    share = _share(onto_others, soup.areas[rows], piece[rows], num_pieces)
    outside = _share(first(rows, -1)[0] < 0, soup.areas[rows], piece[rows], num_pieces)
    candidate = claimed_piece & (share >= HULL_SHARE) & (outside >= OUTSIDE_SHARE)
    for index in np.flatnonzero(candidate):
        candidate[index] = _is_flat(soup, parts, np.flatnonzero(piece == index))
    seen = hit[onto_others & candidate[piece[rows]]]
    outlined = np.isin(piece, np.unique(piece[seen])) & ~candidate[piece]
    rows = np.flatnonzero(outlined)
    if not len(rows):
        return np.zeros(len(piece), bool)
    hit, is_front = looks_onto(rows)
    onto_hull = is_front & candidate[piece[hit]]
    open_area = soup.areas[rows][(hit < 0) | onto_hull].sum()
    if soup.areas[rows][onto_hull].sum() < OUTLINED_SHARE * open_area:
        return np.zeros(len(piece), bool)
    return candidate[piece]


def _pieces(vertex: np.ndarray) -> tuple[np.ndarray, int]:
    """The connected piece of each triangle, and how many there are."""
    a, b, c = vertex.T
    edges = coo_array(
        (np.ones(2 * len(a), bool), (np.r_[a, b], np.r_[b, c])), [vertex.max() + 1] * 2
    )
    num_pieces, piece = connected_components(edges, directed=False)
    return piece[a], num_pieces


def _share(chosen: np.ndarray, areas: np.ndarray, piece: np.ndarray, count: int) -> np.ndarray:
    """Of each piece's area, the share of the chosen triangles. [count]"""
    total = np.bincount(piece, areas, count)
    return np.bincount(piece, areas * chosen, count) / np.maximum(total, 1e-300)


def _is_flat(soup: _Soup, parts: Sequence[ObjectPart], rows: np.ndarray) -> bool:
    """Whether triangles have one color."""
    colors = []
    starts = np.searchsorted(soup.part, np.arange(len(parts)))
    for index in np.unique(soup.part[rows]):
        part = parts[index]
        faces = part.faces[rows[soup.part[rows] == index] - starts[index]]
        rgb = np.tile(part.base_color_factor[:3], (len(NEAR_CORNERS), len(faces), 1))
        if part.vertex_rgba is not None:
            rgb = rgb * _within(part.vertex_rgba[:, :3], faces)
        if part.texture is not None and part.uvs is not None:
            height, width = part.texture.shape[:2]
            u, v = np.moveaxis(_within(part.uvs, faces), -1, 0)
            column = part.sampler.indices(np.floor(u * width).astype(int), width, 0)
            row = part.sampler.indices(np.floor((1 - v) * height).astype(int), height, 1)
            rgb = rgb * part.texture[row, column, :3] / 255
        colors.append(rgb.reshape(-1, 3))
    return bool(np.concatenate(colors).std(axis=0).max() < FLAT)


def _within(values: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Values of vertices [V, C] at four points of each triangle. [4, F, C]"""
    return np.einsum("pk,fkc->pfc", NEAR_CORNERS, values[faces])


def _scene(corners: np.ndarray) -> Any:
    from embreex.mesh_construction import TriangleMesh
    from embreex.rtcore_scene import EmbreeScene

    scene = EmbreeScene()
    TriangleMesh(scene, corners.astype(np.float32))
    return scene


def _first(
    scene: Any, origins: np.ndarray, directions: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The first triangle that each ray hits, -1 without, and its distance."""
    result = scene.run(
        origins.astype(np.float32), directions.astype(np.float32), query="INTERSECT", output=True
    )
    return result["primID"], result["tfar"]
