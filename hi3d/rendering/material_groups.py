"""Parts of an object grouped by material state: what one draw call takes."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from hi3d.assets.parts import AlphaMode, ObjectPart, Sampler


@dataclass(frozen=True)
class MaterialGroup:
    """Triangles that share texture, alpha mode and sides; color factors lie at the vertices."""

    vertices: np.ndarray  # [V, 3] float32
    """World positions."""
    faces: np.ndarray  # [F, 3] int32
    """Vertex indices."""
    uvs: np.ndarray  # [V, 2] float32
    """Texture coordinates, v up; zeros without a texture."""
    linear_rgba: np.ndarray  # [V, 4] float32
    """Base color without the texture, in linear light."""
    texture: np.ndarray | None  # [H, W, 4] uint8
    """RGBA with RGB in sRGB, row 0 at the top."""
    alpha_mode: AlphaMode
    """As in `ObjectPart`."""
    alpha_cutoff: float
    """Points with a smaller alpha do not exist; 0 where the mode is not MASK."""
    sampler: Sampler
    """How the texture is read."""
    single_sided: bool
    """Whether back sides are left out."""


def material_groups(parts: Iterable[ObjectPart]) -> list[MaterialGroup]:
    """Group parts by texture, alpha mode and sides, BLEND last."""
    groups: dict[tuple, list[ObjectPart]] = {}
    for part in parts:
        cutoff = part.alpha_cutoff if part.alpha_mode == "MASK" else 0.0
        texture = (id(part.texture), part.sampler)
        key = (part.alpha_mode == "BLEND", part.alpha_mode, cutoff, texture, part.single_sided)
        groups.setdefault(key, []).append(part)
    return [
        _joined(groups[key], alpha_cutoff=key[2]) for key in sorted(groups, key=lambda key: key[0])
    ]


def _joined(parts: list[ObjectPart], alpha_cutoff: float) -> MaterialGroup:
    """One group of parts that agree in texture and alpha mode."""
    offsets = np.cumsum([0] + [len(part.vertices) for part in parts])
    uvs = [np.zeros((len(p.vertices), 2)) if p.uvs is None else p.uvs for p in parts]
    return MaterialGroup(
        np.concatenate([part.vertices for part in parts]).astype(np.float32),
        np.concatenate(
            [part.faces + offset for part, offset in zip(parts, offsets, strict=False)]
        ).astype(np.int32),
        np.concatenate(uvs).astype(np.float32),
        np.concatenate([part.linear_vertex_rgba for part in parts]).astype(np.float32),
        parts[0].texture,
        parts[0].alpha_mode,
        alpha_cutoff,
        parts[0].sampler,
        parts[0].single_sided,
    )
