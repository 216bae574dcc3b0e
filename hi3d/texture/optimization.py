"""Sharper textures: what the views show and the rendered texture does not is painted back.

Iterative back-projection (Irani and Peleg, "Improving Resolution by Image Registration", 1991): the
mesh is rendered with its texture at every view, and each texel moves by the weighted mean of the
differences where the views see it. This is gradient descent on the squared photometric error with
the texels' own step sizes; rendering is linear in the texels, so a few steps suffice.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hi3d.cameras import Cameras
from hi3d.progress import track
from hi3d.surface.ray_casting import RayCaster
from hi3d.texture.atlas import sample_image
from hi3d.texture.blending import WeightedMean
from hi3d.texture.visibility import Sighting

MAX_SUBPIXELS = 3


@dataclass(frozen=True)
class Target:
    """The P pixels of one view that the textured mesh is compared with."""

    pixels: Tensor  # [P] int32
    """Row * width + column."""
    rgb: Tensor  # [P, 3]
    """Their colors."""
    lookups: Tensor  # [S * S, P, 2]
    """Where S x S rays through each pixel meet the texture; -1 and 1 are its borders."""
    sighting: Sighting
    """The texels that the view sees."""
    weight: Tensor  # [N]
    """The view's weight for each of them."""
    image_size: tuple[int, int]
    """Height and width of the view."""


def make_target(
    image: Tensor,
    cameras: Cameras,
    view: int,
    caster: RayCaster,
    corner_uvs: Tensor,
    num_subpixels: int,
    sighting: Sighting,
    weight: Tensor,
) -> Target:
    """Find the texture behind the trusted pixels of one view.

    Args:
        image: [4, H, W], from `trusted_image`.
        cameras: on the CPU.
        view: number of the camera.
        caster: the surface.
        corner_uvs: [F, 3, 2], v up.
        num_subpixels: S
        sighting: N texels that the view sees.
        weight: [N]
    """
    height, width, side = cameras.height, cameras.width, num_subpixels
    pixels = (image[3] > 0).reshape(-1).nonzero()[:, 0]
    fine = cameras.resized(width * side, height * side)
    directions = fine.rays(view)[1].reshape(height, side, width, side, 3)
    directions = directions.permute(1, 3, 0, 2, 4).reshape(side * side, height * width, 3)
    directions = directions[:, pixels].reshape(-1, 3)
    face, barycentric = caster.hits(cameras.positions[view].expand_as(directions), directions)
    uvs = (corner_uvs[face] * barycentric[..., None]).sum(1)
    lookups = torch.stack([2 * uvs[:, 0] - 1, 1 - 2 * uvs[:, 1]], dim=-1)
    hit = (face >= 0).reshape(side * side, -1).all(0)
    pixels = pixels[hit]
    return Target(
        pixels.int(),
        image[:3].reshape(3, -1)[:, pixels].T,
        lookups.reshape(side * side, -1, 2)[:, hit],
        sighting,
        weight,
        (height, width),
    )


def subpixels(cameras: Cameras, texel_size: float) -> int:
    """How many rays a side a pixel needs for textures of small texels, at most 3.

    Args:
        cameras: at the object's distance from the origin.
        texel_size: on the surface, in world units.
    """
    pixel_size = (cameras.positions.norm(dim=-1) / cameras.Ks[:, 0, 0]).median().item()
    return max(1, min(MAX_SUBPIXELS, round(pixel_size / max(texel_size, 1e-9) / 2)))


def optimize_texels(
    rgb: Tensor,
    step_size: Tensor,
    texel_of_pixel: Tensor,
    targets: list[Target],
    steps: int,
) -> Tensor:
    """Lower the squared difference of the rendered texture and the views.

    Args:
        rgb: [T, 3] colors to begin with, in [0, 1].
        step_size: [T] share of the mean difference that each texel takes up, in [0, 1].
        texel_of_pixel: [R, R] the texel that each pixel of the texture shows.
        targets: V views.
        steps: over all views; more sharpen more and bring noise out.

    Returns:
        [T, 3] in [0, 1]; texels that no view sees are left as they are.
    """
    if not targets or steps == 0:
        return rgb
    for _ in track(range(steps), "texture optimization"):
        texture = rgb[texel_of_pixel].permute(2, 0, 1)
        correction = WeightedMean(len(rgb))
        for target in targets:
            rendered = sample_image(texture, target.lookups.reshape(-1, 2))
            rendered = rendered.reshape(*target.lookups.shape[:2], 3).mean(0)
            height, width = target.image_size
            difference = torch.zeros(3, height * width)
            difference[:, target.pixels] = (target.rgb - rendered).T
            correction.add(target.sighting, target.weight, difference.reshape(3, height, width))
        rgb = (rgb + step_size[:, None] * correction.colors()).clamp(0, 1)
    return rgb
