"""What keeps triangles from being the boundary of a solid: closed, manifold, oriented outwards."""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

FLAT = 1e-12
"""Area of a face that counts as none, in squares of the mesh's longest side."""


@dataclass(frozen=True)
class Topology:
    """How often each fault occurs; all 0 for the boundary of a solid."""

    open_edges: int
    """Edges of one face."""
    crowded_edges: int
    """Edges of three or more faces."""
    flipped_edges: int
    """Edges that their two faces run through in the same direction."""
    pinched_vertices: int
    """Vertices whose faces form more than one fan."""
    flat_faces: int
    """Faces without an area."""
    inverted: int
    """1 if the surface encloses no volume or has its inside out."""

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not any(vars(self).values())


def topology(vertices: np.ndarray, faces: np.ndarray) -> Topology:
    """Count the faults of a mesh.

    Args:
        vertices: [V, 3]; those at the same position count as one.
        faces: [F, 3] vertex indices, at least one.
    """
    vertices, faces = merged(vertices, faces)
    corners = vertices[faces].astype(np.float64)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    flat = np.linalg.norm(normals, axis=1) / 2 <= FLAT * np.ptp(vertices, axis=0).max() ** 2
    _, edge, sizes, direction = half_edges(faces)
    turns = np.bincount(edge, direction)
    fans = fan_of_corners(faces)
    fan_vertices = np.unique(np.stack([faces.ravel(), fans], axis=1), axis=0)[:, 0]
    return Topology(
        open_edges=int((sizes == 1).sum()),
        crowded_edges=int((sizes > 2).sum()),
        flipped_edges=int(((sizes == 2) & (turns != 0)).sum()),
        pinched_vertices=int((np.bincount(fan_vertices) > 1).sum()),
        flat_faces=int(flat.sum()),
        inverted=int(volume(vertices, faces) <= 0),
    )


def merged(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same faces with one vertex for each position."""
    positions, index = np.unique(vertices, axis=0, return_inverse=True)
    return positions, index.ravel()[faces]


def volume(vertices: np.ndarray, faces: np.ndarray) -> float:
    """Enclosed volume of a closed mesh, below 0 if its faces look inwards."""
    a, b, c = vertices[faces].astype(np.float64).transpose(1, 0, 2)
    return float((a * np.cross(b, c)).sum() / 6)


def half_edges(faces: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The sides of the faces, by the edge they lie on; side 3 f + k goes from corner k to the next.

    Returns:
        ends: [E, 2] vertices of the edges, the lower one first.
        edge: [3 F] number of the edge of each side.
        sizes: [E] sides of each edge.
        direction: [3 F] 1 for sides from the lower vertex to the higher one, else -1.
    """
    sides = np.stack([faces, np.roll(faces, -1, axis=1)], axis=-1).reshape(-1, 2)
    ends, edge, sizes = np.unique(
        np.sort(sides, axis=1), axis=0, return_inverse=True, return_counts=True
    )
    return ends, edge.ravel(), sizes, np.where(sides[:, 0] < sides[:, 1], 1, -1)


def fan_of_corners(faces: np.ndarray) -> np.ndarray:
    """Number of the fan each corner 3 f + k belongs to: faces of a vertex joined by edges of two.

    Returns:
        [3 F]
    """
    _, edge, sizes, _ = half_edges(faces)
    order = np.argsort(edge, kind="stable")
    paired = order[sizes[edge[order]] == 2].reshape(-1, 2)
    return joined_corners(faces, paired)


def joined_corners(faces: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """The fans that form where pairs of sides are joined.

    Args:
        faces: [F, 3]
        pairs: [P, 2] sides 3 f + k of one edge.

    Returns:
        [3 F] number of the fan each corner belongs to.
    """
    first, second = pairs[:, 0], pairs[:, 1]
    corners = faces.ravel()
    # The corner at each side's end.
    after = np.roll(np.arange(faces.size).reshape(-1, 3), -1, axis=1).ravel()
    same_way = corners[first] == corners[second]
    starts = np.stack([first, np.where(same_way, second, after[second])])
    finishes = np.stack([after[first], np.where(same_way, after[second], second)])
    links = np.concatenate([starts, finishes], axis=1)
    graph = csr_matrix((np.ones(links.shape[1]), links), shape=(faces.size, faces.size))
    return connected_components(graph, directed=False)[1]
