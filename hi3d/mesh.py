"""The triangle mesh that reconstruction makes and that rendering and evaluation take."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class SurfaceMesh:
    """A triangle mesh in world coordinates (z up, longest side about 1)."""

    vertices: Tensor  # [V, 3] float32
    """Positions."""
    faces: Tensor  # [F, 3] int64
    """Vertex indices, counter-clockwise seen from outside."""
    vertex_rgb: Tensor  # [V, 3]
    """Unlit colour in [0, 1], sRGB."""
    uvs: Tensor | None = None  # [V, 2]
    """Texture coordinates in [0, 1], origin at the bottom left (v up)."""
    texture: Tensor | None = None  # [3, H, W]
    """Unlit base colour in [0, 1], sRGB, row 0 at the top (v = 1)."""

    def __post_init__(self) -> None:
        num_vertices = self.vertices.shape[0]
        if self.vertices.shape != (num_vertices, 3):
            raise ValueError(f"vertices must be [V, 3], got {tuple(self.vertices.shape)}")
        if self.faces.ndim != 2 or self.faces.shape[1] != 3:
            raise ValueError(f"faces must be [F, 3], got {tuple(self.faces.shape)}")
        if self.vertex_rgb.shape != (num_vertices, 3):
            raise ValueError(f"vertex_rgb must be [V, 3], got {tuple(self.vertex_rgb.shape)}")
        if (self.uvs is None) != (self.texture is None):
            raise ValueError("uvs and texture go together: give both or neither")
        if self.uvs is not None and self.uvs.shape != (num_vertices, 2):
            raise ValueError(f"uvs must be [V, 2], got {tuple(self.uvs.shape)}")
        if self.texture is not None and (self.texture.ndim != 3 or self.texture.shape[0] != 3):
            raise ValueError(f"texture must be [3, H, W], got {tuple(self.texture.shape)}")

    def to(self, device: torch.device | str) -> "SurfaceMesh":
        """The same mesh on `device`."""
        moved = {name: value.to(device) for name, value in vars(self).items() if value is not None}
        return replace(self, **moved)
