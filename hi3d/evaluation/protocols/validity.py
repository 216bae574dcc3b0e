"""Whether a mesh can be printed and edited: a row of counts, without a truth."""

import numpy as np
import trimesh

from hi3d.mesh import SurfaceMesh
from hi3d.surface.topology import merged, topology

MIN_PIECE = 0.005
"""Pieces of less than this share of the largest one's area are debris."""
EPS = 1e-9


def mesh_validity(mesh: SurfaceMesh) -> dict[str, float]:
    """Scores of a mesh by itself; vertices at one place count as one.

    Args:
        mesh: any triangles with finite vertices.

    Returns:
        `watertight`, `manifold`, `oriented` and `has_uvs` are 1 or 0; `debris_pieces` and
        `self_intersecting_faces` are counts.
    """
    vertices, faces = merged(mesh.vertices.detach().cpu().numpy(), mesh.faces.cpu().numpy())
    counts = topology(vertices, faces)
    pieces = trimesh.Trimesh(vertices, faces, process=False).split(only_watertight=False)
    areas = np.array([piece.area for piece in pieces])
    return {
        "watertight": float(counts.open_edges == 0 and counts.crowded_edges == 0),
        "manifold": float(counts.crowded_edges == 0 and counts.pinched_vertices == 0),
        "oriented": float(counts.flipped_edges == 0 and counts.inverted == 0),
        "has_uvs": float(mesh.uvs is not None),
        "debris_pieces": float((areas < MIN_PIECE * areas.max()).sum()),
        "self_intersecting_faces": float(len(self_intersecting_faces(vertices, faces))),
    }


def self_intersecting_faces(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Faces that an edge of another face passes through; faces with a common corner do not count.

    Args:
        vertices: [V, 3], one for each position.
        faces: [F, 3]

    Returns:
        [K] numbers of faces, ascending. Faces that lie in one plane are not found.
    """
    first, second = _overlapping_boxes(vertices[faces].astype(np.float64))
    apart = ~(faces[first][:, :, None] == faces[second][:, None, :]).any((1, 2))
    first, second = first[apart], second[apart]
    corners = vertices[faces].astype(np.float64)
    crossed = _edge_crosses(corners[first], corners[second])
    crossed |= _edge_crosses(corners[second], corners[first])
    return np.unique(np.concatenate([first[crossed], second[crossed]]))


def _overlapping_boxes(corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of triangles [F, 3, 3] whose boxes overlap, each pair once. [P], [P]"""
    from rtree.index import Index, Property

    low, high = corners.min(1), corners.max(1)
    numbers = np.arange(len(corners))
    tree = Index(
        zip(numbers, np.concatenate([low, high], 1), [None] * len(numbers), strict=True),
        properties=Property(dimension=3),
    )
    found, counts = tree.intersection_v(low, high)
    first, second = np.repeat(numbers, counts.astype(np.int64)), found.astype(np.int64)
    return first[first < second], second[first < second]


def _edge_crosses(edges_of: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Whether an edge of one triangle passes through another (Moeller and Trumbore 1997).

    Args:
        edges_of: [P, 3, 3]
        triangles: [P, 3, 3]

    Returns:
        [P] bool
    """
    a, u, v = triangles[:, 0], triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]
    crosses = np.zeros(len(triangles), dtype=bool)
    for start in range(3):
        origin, end = edges_of[:, start], edges_of[:, (start + 1) % 3]
        direction = end - origin
        normal = np.cross(direction, v)
        determinant = (u * normal).sum(1)
        with np.errstate(divide="ignore", invalid="ignore"):
            offset = origin - a
            q = np.cross(offset, u)
            s = (offset * normal).sum(1) / determinant
            t = (direction * q).sum(1) / determinant
            along = (v * q).sum(1) / determinant
            inside = (s > EPS) & (t > EPS) & (s + t < 1 - EPS)
            crosses |= inside & (along > EPS) & (along < 1 - EPS)
    return crosses
