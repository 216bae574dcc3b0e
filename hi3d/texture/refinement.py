"""Cutting large triangles of a surface into small ones, without gaps between them."""

import numpy as np

MAX_ROUNDS = 16
"""Each halves the longest edges."""


def refined(
    vertices: np.ndarray, faces: np.ndarray, max_edge: float
) -> tuple[np.ndarray, np.ndarray]:
    """Halve edges until none is longer, in all their faces at once.

    Args:
        vertices: [V, 3]
        faces: [F, 3] vertex indices.
        max_edge: in the units of the vertices.

    Returns:
        [P, 3] the vertices in use and the new ones, [N, 3] faces, oriented as the given ones.
    """
    used, faces = np.unique(faces, return_inverse=True)
    vertices, faces = vertices[used], faces.reshape(-1, 3)
    for _ in range(MAX_ROUNDS):
        sides = np.stack([faces, np.roll(faces, -1, axis=1)], axis=-1)  # [F, 3, 2]
        lengths = np.linalg.norm(vertices[sides[..., 0]] - vertices[sides[..., 1]], axis=-1)
        if not (lengths > max_edge).any():
            break
        # Slivers would come from halving the long edges alone where all are near the limit.
        long = lengths > max(max_edge, 0.6 * lengths.max())
        ends, edge = np.unique(np.sort(sides[long], axis=-1), axis=0, return_inverse=True)
        middle = np.full(faces.shape, -1)
        middle[long] = len(vertices) + edge.ravel()
        vertices = np.concatenate([vertices, vertices[ends].mean(1)])
        faces = _split(faces, middle)
    return vertices, faces


def _split(faces: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """Faces cut at the middles of their sides.

    Args:
        faces: [F, 3]
        middle: [F, 3] vertex in the middle of side k, from corner k to the next; -1 for none.
    """
    count = (middle >= 0).sum(1)
    # Turned so that side 0 is cut; of two cut sides, sides 0 and 1.
    first = np.where(count == 2, ((middle < 0).argmax(1) + 1) % 3, (middle >= 0).argmax(1))
    turn = (first[:, None] + np.arange(3)) % 3
    faces, middle = np.take_along_axis(faces, turn, 1), np.take_along_axis(middle, turn, 1)
    (a, b, c), (ab, bc, ca) = faces.T, middle.T

    def where(number: int, *corners: np.ndarray) -> np.ndarray:
        return np.stack(corners, axis=1)[count == number]

    parts = [faces[count == 0], where(1, a, ab, c), where(1, ab, b, c)]
    parts += [where(2, ab, b, bc), where(2, a, ab, bc), where(2, a, bc, c)]
    parts += [where(3, a, ab, ca), where(3, ab, b, bc), where(3, ca, bc, c), where(3, ab, bc, ca)]
    return np.concatenate(parts)
