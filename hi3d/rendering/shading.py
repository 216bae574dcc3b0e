"""What the backends share: the lights, the limits of transparency, and the form of their result.

Shadings, all on the base color in linear light, encoded as sRGB at the end:

- `unlit`: the base color.
- `uniform`: a diffuse surface under a white environment of radiance 1 that reaches every point. Its
  radiance is base color / pi * irradiance, and the irradiance is pi, so the rasterizers show the
  base color. A path tracer shows the same wherever nothing stands in the way; in hollows it adds
  what the rasterizers leave out, occlusion and light from one surface to another.
- `key`: a white light fixed in the world plus ambient light (`key_light`, Lambert's cosine law).

Every surface has two sides and shows the one turned to the camera; of a single-sided part (see
`hi3d.assets.shells`) only the front. Normals are those of the
triangles, not interpolated.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

Shading = Literal["unlit", "uniform", "key"]
SHADINGS: tuple[Shading, ...] = ("unlit", "uniform", "key")
CLEAR_WHITE = 0x00FFFFFF  # R, G, B and alpha as the bytes of one number, lowest first
MIN_ALPHA = 1 / 255  # fainter points neither show nor count as surface

KEY_LIGHT_DIRECTION = tuple(float(x) for x in np.array([2.0, -1.0, 2.0]) / 3.0)
"""Toward the light, in the world: above, and left of a camera at azimuth 0. Unit length."""
KEY_LIGHT_SHARE = 0.65
"""Of a surface turned to the light."""
AMBIENT_SHARE = 0.35
"""From all sides; with the key light, a surface turned to the light shows its base color."""


@dataclass(frozen=True)
class Drawing:
    """What a backend draws: V images of H x W."""

    rgba8: np.ndarray  # [V, H, W, 4] uint8
    """sRGB over white, and the covered share of each pixel."""
    depth: np.ndarray  # [V, H, W] float32
    """Camera z of the first surface at each pixel center; 0 where there is none."""
    normals: np.ndarray | None  # [V, H, W, 3] float32
    """Unit normals in the world, turned to the camera; 0 where there is no surface."""


def empty_drawing(num_views: int, width: int, height: int, normals: bool) -> Drawing:
    """White, transparent images without a surface."""
    white = np.full((num_views, height, width), CLEAR_WHITE, "<u4")  # one fast pass
    return Drawing(
        white.view(np.uint8).reshape(num_views, height, width, 4),
        np.zeros((num_views, height, width), np.float32),
        np.zeros((num_views, height, width, 3), np.float32) if normals else None,
    )


def key_light(normals: np.ndarray) -> np.ndarray:
    """Share of the base color, in linear light, that a lit surface shows. [..., 3] -> [...]"""
    cosine = (normals * np.array(KEY_LIGHT_DIRECTION, normals.dtype)).sum(axis=-1)
    return AMBIENT_SHARE + KEY_LIGHT_SHARE * cosine.clip(0)
