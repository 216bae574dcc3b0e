"""Colors of what no view sees, carried along the surface.

In space the nearest seen point may lie on the other side of a thin object. So the unseen part of
the surface is cut into small triangles, on which the screened Poisson equation is solved: next to
its rim a patch has the colors of the rim, and away from it one color, which is typical of the rim.
"""

import numpy as np
import torch
from scipy.sparse import csr_matrix, diags
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu
from scipy.spatial import cKDTree
from torch import Tensor

from hi3d.surface.ray_casting import RayCaster
from hi3d.surface.topology import merged
from hi3d.texture.atlas import Texels
from hi3d.texture.refinement import refined

SOUND_TRUST = 0.1
"""Texels seen with less may show another surface: they hold the unseen ones less."""
RIM_EDGES = 4
"""Faces so many edges around the unseen ones take part."""
SCREENING_LENGTH = 0.08
"""World units over which the rim's colors fade into the typical one. Without it a base of many
colors at its rim is a pinwheel."""
DATA_STRENGTH = 20.0
"""How much a vertex among sound texels is held, against 1 for the smoothness of an edge."""
MIN_EDGE, MAX_VERTICES = 0.01, 40_000
"""The small triangles' edges are as long, in world units, or what so many vertices allow."""
RAY_OFFSET = 1e-4
MAX_VOTES = 500
"""So many points of a rim, about, vote for its typical color ..."""
MEAN_SHIFTS, COLOR_RADIUS = 5, 0.2
"""... which is the mean of those so near to it."""
MIN_COTANGENT = 1e-3
MIN_WEIGHT = 1e-6
"""Of the texels around a point that say anything of it: less is rounding of a ray on an edge."""


def fill_unseen(
    rgb: Tensor, best_trust: Tensor, texels: Texels, vertices: Tensor, faces: Tensor
) -> None:
    """Color unseen texels in place.

    Args:
        rgb: [T, 3]
        best_trust: [T] in [0, 1], 0 for unseen texels; one at least is seen.
        texels: the surface points.
        vertices: [V, 3], of which those at the same position count as one.
        faces: [F, 3], which the texels number.
    """
    unseen = (best_trust == 0).nonzero()[:, 0]
    if len(unseen) == 0:
        return
    positions, corners = merged(vertices.numpy(), faces.numpy())
    near = faces_around(corners, np.unique(texels.face[unseen].numpy()), RIM_EDGES)
    area = _areas(positions[corners[near]]).sum()
    edge = max(MIN_EDGE, float(np.sqrt(2 * area / MAX_VERTICES)))
    points, triangles = refined(positions, corners[near], edge)
    taking_part = torch.from_numpy(near)[texels.face].nonzero()[:, 0]
    corner, weight = _locate(texels, taking_part, points, triangles)
    seen = best_trust[taking_part] > 0
    trust = (best_trust[taking_part] / SOUND_TRUST).clamp(max=1).square().numpy()
    colors, strength = _data(
        corner[seen], weight[seen], trust[seen], rgb[taking_part[seen]].numpy(), len(points)
    )
    overall = typical(rgb[best_trust > 0].numpy(), best_trust[best_trust > 0].numpy())
    solved = diffused(points, triangles, colors, strength, overall)
    filled = (solved[corner[~seen]] * weight[~seen][..., None]).sum(1)
    rgb[taking_part[~seen]] = torch.from_numpy(filled).to(rgb).clamp(0, 1)


def faces_around(faces: np.ndarray, chosen: np.ndarray, num_edges: int) -> np.ndarray:
    """Which faces are chosen or lie within so many edges of those.

    Args:
        faces: [F, 3]
        chosen: indices of faces.
        num_edges: 0 or more.

    Returns:
        [F] bool.
    """
    near = np.zeros(len(faces), dtype=bool)
    near[chosen] = True
    for _ in range(num_edges):
        touched = np.zeros(faces.max() + 1, dtype=bool)
        touched[faces[near]] = True
        near = touched[faces].any(axis=1)
    return near


def _locate(
    texels: Texels, chosen: Tensor, points: np.ndarray, triangles: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The corners [N, 3] of the small triangle of each chosen texel, and their weights [N, 3]."""
    caster = RayCaster(torch.from_numpy(points), torch.from_numpy(triangles))
    normals = texels.face_normals[texels.face[chosen]]
    starts = texels.positions[chosen] + RAY_OFFSET * normals
    face, barycentric = caster.hits(starts, -normals)
    corner, weight = triangles[face.numpy()], barycentric.numpy().astype(np.float64)
    missed = (face < 0).nonzero()[:, 0].numpy()
    if len(missed) > 0:  # on an edge
        nearest = cKDTree(points).query(texels.positions[chosen[missed]].numpy())[1]
        corner[missed], weight[missed] = nearest[:, None], 1 / 3
    return corner, weight


def _data(
    corner: np.ndarray, weight: np.ndarray, trust: np.ndarray, rgb: np.ndarray, num_points: int
) -> tuple[np.ndarray, np.ndarray]:
    """Mean color of the seen texels around each point [P, 3], and how far it holds the point [P].

    Args:
        corner: [N, 3] corners of the N texels' triangles.
        weight: [N, 3] of these corners.
        trust: [N] in [0, 1]
        rgb: [N, 3]
        num_points: P
    """

    def around(values: np.ndarray) -> np.ndarray:
        return np.bincount(corner.ravel(), (weight * values[:, None]).ravel(), num_points)

    trusted, near = around(trust), around(np.ones_like(trust))
    colors = np.stack([around(trust * channel) for channel in rgb.T], axis=1)
    told = (near > MIN_WEIGHT) & (trusted > 0)
    colors[told] /= trusted[told, None]
    return colors, np.where(told, DATA_STRENGTH * trusted / near.clip(MIN_WEIGHT), 0)


def diffused(
    points: np.ndarray,
    triangles: np.ndarray,
    colors: np.ndarray,
    strength: np.ndarray,
    overall: np.ndarray,
) -> np.ndarray:
    """Colors that are smooth along a surface, near the given ones where these hold.

    Args:
        points: [P, 3]
        triangles: [N, 3]
        colors: [P, 3]
        strength: [P] how far the given colors hold, 0 for none.
        overall: [3] color of patches that touch no given one.

    Returns:
        [P, 3]
    """
    stiffness, areas = _stiffness(points, triangles)
    targets = _typical_around(stiffness, colors, strength, overall)
    pull = np.where(strength == 0, areas / SCREENING_LENGTH**2, 0) + 1e-12
    system = stiffness + diags(strength + pull)
    known = strength[:, None] * colors + pull[:, None] * targets
    solution: np.ndarray = splu(system.tocsc()).solve(known)
    return solution


def _typical_around(
    stiffness: csr_matrix, colors: np.ndarray, strength: np.ndarray, overall: np.ndarray
) -> np.ndarray:
    """The typical color of each point's patch: of what holds weakly in it, and well around it.

    Args:
        stiffness: [P, P], not 0 between neighbors.
        colors: [P, 3]
        strength: [P]
        overall: [3] of patches without either.

    Returns:
        [P, 3]
    """
    loose = strength < DATA_STRENGTH / 2
    inner = diags(loose.astype(float)) @ stiffness @ diags(loose.astype(float))
    patch = connected_components(inner, directed=False)[1]
    rows, columns = stiffness.nonzero()
    rim = loose[rows] & ~loose[columns]
    weak = np.flatnonzero(loose & (strength > 0))
    number = np.concatenate([patch[rows[rim]], patch[weak]])
    voter = np.concatenate([columns[rim], weak])
    order = np.argsort(number, kind="stable")
    numbers, starts = np.unique(number[order], return_index=True)
    found = np.tile(overall, (patch.max() + 1, 1))
    for one, voters in zip(numbers, np.split(voter[order], starts[1:]), strict=True):
        found[one] = typical(colors[voters], strength[voters])
    targets: np.ndarray = found[patch]
    return targets


def typical(colors: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The mean of the colors around the one that is nearest to all others.

    Args:
        colors: [N, 3]
        weights: [N] of their votes.

    Returns:
        [3]
    """
    step = max(1, len(colors) // MAX_VOTES)
    colors, weights = colors[::step].astype(np.float64), weights[::step].astype(np.float64)
    distances = np.linalg.norm(colors[:, None] - colors[None], axis=-1) @ weights
    center: np.ndarray = colors[distances.argmin()]
    for _ in range(MEAN_SHIFTS):
        near = weights * np.exp(-(((colors - center) / COLOR_RADIUS) ** 2).sum(1) / 2)
        center = near @ colors / near.sum()
    return center


def _areas(corners: np.ndarray) -> np.ndarray:
    """Areas of triangles [N, 3, 3]. [N]"""
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return np.asarray(np.linalg.norm(normals, axis=-1) / 2)


def _stiffness(points: np.ndarray, triangles: np.ndarray) -> tuple[csr_matrix, np.ndarray]:
    """The cotangent Laplacian [P, P], positive semidefinite, and each point's share of area [P]."""
    corners = points[triangles].astype(np.float64)
    areas = _areas(corners)
    ends, values = [], []
    for k in range(3):
        one, other = (
            corners[:, (k + 1) % 3] - corners[:, k],
            corners[:, (k + 2) % 3] - corners[:, k],
        )
        cotangent = (one * other).sum(1) / (2 * areas).clip(1e-12)
        ends.append(np.stack([triangles[:, (k + 1) % 3], triangles[:, (k + 2) % 3]]))
        values.append(cotangent.clip(MIN_COTANGENT, 1 / MIN_COTANGENT) / 2)
    (first, second), value = np.concatenate(ends, axis=1), np.concatenate(values)
    count = len(points)
    links = csr_matrix((value, (first, second)), shape=(count, count))
    links = links + links.T
    share = np.bincount(triangles.ravel(), np.repeat(areas / 3, 3), count)
    return (diags(np.asarray(links.sum(1)).ravel()) - links).tocsr(), share
