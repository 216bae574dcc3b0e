"""Objects as they are rendered: parts with unlit base colors."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from hi3d.color import linear_from_srgb

AlphaMode = Literal["OPAQUE", "MASK", "BLEND"]
LIGHT_GREY = np.array([0.8, 0.8, 0.8, 1.0], np.float32)  # sRGB, of parts without a material
BLOCK = 1 << 16
"""Triangles that are worked on at a time."""
MAX_FACES = 20_000_000
"""Larger objects are refused: they would take tens of gigabytes."""


@dataclass(frozen=True)
class Sampler:
    """How a texture goes on beyond [0, 1], and how its texels look from near."""

    clamped: tuple[bool, bool] = (False, False)
    """Whether along u and v the edge texels go on; else the texture repeats."""
    nearest: bool = False
    """Whether magnified texels have hard edges; else they are interpolated."""

    def indices(self, index: np.ndarray, count: int, axis: int) -> np.ndarray:
        """Texel indices of any value brought into [0, count) along u (`axis=0`) or v (1)."""
        return index.clip(0, count - 1) if self.clamped[axis] else index % count


REPEATED = Sampler()


@dataclass(frozen=True)
class ObjectPart:
    """Triangles of one material.

    The base color at a point is `base_color_factor * vertex_rgba * texture`, multiplied in linear
    light (glTF 2.0, Section 3.9.2); every factor is stored in sRGB.
    """

    vertices: np.ndarray  # [V, 3] float32
    """World positions, z up."""
    faces: np.ndarray  # [F, 3] int64
    """Vertex indices, counter-clockwise seen from outside."""
    base_color_factor: np.ndarray  # [4] float32
    """RGBA in [0, 1]; RGB in sRGB, alpha linear."""
    uvs: np.ndarray | None = None  # [V, 2] float32
    """Texture coordinates, v up; `sampler` says what lies beyond [0, 1]."""
    texture: np.ndarray | None = None  # [H, W, 4] uint8
    """RGBA with RGB in sRGB, row 0 at the top (v = 1). Parts may share one array."""
    vertex_rgba: np.ndarray | None = None  # [V, 4] float32
    """Vertex colors in [0, 1]; RGB in sRGB, alpha linear."""
    alpha_mode: AlphaMode = "OPAQUE"
    """OPAQUE ignores alpha, MASK cuts at `alpha_cutoff`, BLEND mixes with what lies behind."""
    alpha_cutoff: float = 0.5
    """With MASK, points with a smaller alpha do not exist."""
    sampler: Sampler = REPEATED
    """How the texture is read."""
    single_sided: bool = False
    """Whether the triangles are seen from their front alone; else from both sides."""

    def __post_init__(self) -> None:
        num_vertices = len(self.vertices)
        if self.vertices.shape != (num_vertices, 3):
            raise ValueError(f"vertices must be [V, 3], got {self.vertices.shape}")
        if self.faces.ndim != 2 or self.faces.shape[1] != 3:
            raise ValueError(f"faces must be [F, 3], got {self.faces.shape}")
        if self.base_color_factor.shape != (4,):
            raise ValueError(f"base_color_factor must be [4], got {self.base_color_factor.shape}")
        if (self.uvs is None) != (self.texture is None):
            raise ValueError("uvs and texture go together: give both or neither")
        if self.uvs is not None and self.uvs.shape != (num_vertices, 2):
            raise ValueError(f"uvs must be [V, 2], got {self.uvs.shape}")
        if self.texture is not None and (
            self.texture.dtype != np.uint8 or self.texture.ndim != 3 or self.texture.shape[2] != 4
        ):
            raise ValueError(f"texture must be [H, W, 4] uint8, got {self.texture.shape}")
        if self.vertex_rgba is not None and self.vertex_rgba.shape != (num_vertices, 4):
            raise ValueError(f"vertex_rgba must be [V, 4], got {self.vertex_rgba.shape}")

    @property
    def used(self) -> np.ndarray:
        """Which vertices triangles use. [V] bool"""
        used = np.zeros(len(self.vertices), bool)
        used[self.faces] = True
        return used

    @property
    def face_areas(self) -> np.ndarray:
        """Areas of the triangles. [F] float64"""
        areas = np.empty(len(self.faces))
        for start in range(0, len(areas), BLOCK):  # blocks that stay in the cache
            faces = self.faces[start : start + BLOCK]
            a, b, c = self.vertices[faces.T].astype(np.float64)
            x, y = (b - a).T, (c - a).T
            squares = [(x[i] * y[j] - x[j] * y[i]) ** 2 for i, j in ((1, 2), (2, 0), (0, 1))]
            areas[start : start + BLOCK] = np.sqrt(sum(squares)) / 2
        return areas

    @property
    def linear_vertex_rgba(self) -> np.ndarray:
        """`base_color_factor * vertex_rgba` in linear light. [V, 4] float32"""
        factor = linear_from_srgb(self.base_color_factor)
        if self.vertex_rgba is None:
            return np.broadcast_to(factor, (len(self.vertices), 4))
        return factor * linear_from_srgb(self.vertex_rgba)


@dataclass(frozen=True)
class RenderObject:
    """What the renderers draw: one or more parts in one coordinate system."""

    parts: tuple[ObjectPart, ...]
    """At least one."""

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError("an object needs at least one part")

    @property
    def points(self) -> np.ndarray:
        """The vertices that triangles use. [N, 3]"""
        return np.concatenate([part.vertices[part.used] for part in self.parts])

    @cached_property
    def bounds(self) -> np.ndarray:
        """Smallest and largest corner of the box around the used vertices. [2, 3]"""
        points = self.points
        return np.stack([points.min(axis=0), points.max(axis=0)])

    def normalised(self) -> "RenderObject":
        """The same object with its bounding box centered at the origin and longest side 1."""
        low, high = self.bounds.astype(np.float64)
        centre, longest_side = (low + high) / 2, (high - low).max()
        if longest_side <= 0:
            raise ValueError("an object without extent cannot be normalized")
        with np.errstate(over="ignore", invalid="ignore"):  # in vertices without triangles
            moved = [(part.vertices - centre) / longest_side for part in self.parts]
            singles = [vertices.astype(np.float32) for vertices in moved]
        pairs = zip(self.parts, singles, strict=True)
        return RenderObject(tuple(replace(part, vertices=single) for part, single in pairs))

    def stretched(self, factors: tuple[float, float, float], angle_deg: float) -> "RenderObject":
        """The object with other proportions, normalized again.

        Args:
            factors: above 0, along two horizontal directions and along z.
            angle_deg: from x to the first of these directions, about z.
        """
        angle = np.deg2rad(angle_deg)
        axes = np.array(
            [[np.cos(angle), np.sin(angle), 0], [-np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
        )
        matrix = axes.T @ np.diag(factors) @ axes
        with np.errstate(over="ignore", invalid="ignore"):  # in vertices without triangles
            parts = [replace(part, vertices=part.vertices @ matrix) for part in self.parts]
        return RenderObject(tuple(parts)).normalised()
