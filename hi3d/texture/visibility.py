"""Which texels each view sees, and how far its pixels can be trusted."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d

from hi3d.cameras import Cameras
from hi3d.surface.ray_casting import RayCaster
from hi3d.texture.atlas import Texels, sample_image

EDGE_TRUST = 1e-3  # of pixels on an edge: they decide only where no view is better
OCCLUSION_MARGIN = 2e-3  # a texel this close behind the first hit is that hit, world units
CARRIED_PIXELS = 2  # color is carried this far beyond the silhouette
STEP_HEIGHT = 0.01  # depth steps below this are no occlusion edges, world units


@dataclass(frozen=True)
class Sighting:
    """The N texels that one view can color."""

    texels: Tensor  # [N] int32
    """Numbers of the texels."""
    grid: Tensor  # [N, 2]
    """Where they lie in the image; -1 and 1 are its borders."""
    cos: Tensor  # [N]
    """Cosine of the angle between the ray to the camera and the surface normal."""
    density: Tensor  # [N]
    """Pixels per world unit on a surface facing the camera, over the image's width."""
    trust: Tensor  # [N]
    """In (0, 1]: how far the texel is from silhouettes and occlusion edges."""


def see_texels(
    texels: Texels,
    cameras: Cameras,
    view: int,
    caster: RayCaster,
    depth: Tensor,  # [H, W]
    trust: Tensor,  # [1, H, W]
    min_cos: float,
) -> Sighting:
    """Find the texels that lie in one view, face its camera and are not hidden.

    Args:
        texels: T surface points.
        cameras: on the CPU.
        view: number of the camera.
        caster: the surface.
        depth: [H, W] of the surface in this view, infinity where there is none.
        trust: [1, H, W], from `trusted_image`.
        min_cos: views that see the surface flatter than this do not color it.

    Returns:
        N of the T texels.
    """
    position = cameras.positions[view]
    candidates = _facing(texels, position).nonzero()[:, 0]
    points = texels.positions[candidates]
    pixels, depths, framed = cameras.project(points, view)
    grid = 2 * pixels / torch.tensor([cameras.width, cameras.height]) - 1
    to_camera = position - points
    distance = to_camera.norm(dim=-1)
    direction = to_camera / distance[:, None]
    cos = torch.minimum(
        (direction * texels.face_normals[texels.face[candidates]]).sum(-1),
        (direction * texels.smooth_normals[candidates]).sum(-1),
    )
    kept = ((cos > min_cos) & framed).nonzero()[:, 0]
    texel_trust = sample_image(trust, grid[kept])[:, 0]
    kept, texel_trust = kept[texel_trust > 0], texel_trust[texel_trust > 0]

    # Where the interpolated depth of the surface is the texel's own, the texel is what is seen;
    # rays decide about the rest.
    z = depths[kept]
    seen_z = sample_image(depth[None], grid[kept])[:, 0]
    visible = (seen_z - z).abs() < OCCLUSION_MARGIN / 2
    unsure = kept[~visible]
    hit = caster.distances(position.expand(len(unsure), 3), -direction[unsure])
    visible[~visible] = hit > distance[unsure] - OCCLUSION_MARGIN
    kept, density = kept[visible], cameras.Ks[view, 0, 0] / z[visible] / cameras.width
    return Sighting(candidates[kept].int(), grid[kept], cos[kept], density, texel_trust[visible])


def trusted_image(
    rgb: Tensor, alpha: Tensor, depth: Tensor, focal: float, min_alpha: float, edge_width: int
) -> Tensor:
    """Colors free of background, with the trust in every pixel.

    Args:
        rgb: [3, H, W] over white.
        alpha: [1, H, W]
        depth: [H, W] of the surface, infinity where there is none.
        focal: of the camera in pixels.
        min_alpha: pixels below this opacity hold some of the background and are not used.
        edge_width: pixels over which trust rises.

    Returns:
        [4, H, W]: color, and trust in [0, 1]: 0 outside the object, EDGE_TRUST on silhouettes
        and occlusion edges, rising from there to 1 over `edge_width` pixels.
    """
    opaque = (alpha >= min_alpha).float()
    inside = opaque * ~_depth_steps(depth, (depth / focal).nan_to_num(posinf=0))
    trust = torch.zeros_like(alpha)
    for _ in range(edge_width):
        inside = -max_pool2d(-inside[None], 3, stride=1, padding=1)[0]
        trust += inside / edge_width
    color = (rgb - (1 - alpha)) / alpha.clamp_min(min_alpha) * opaque
    # The object's color is carried outwards, so that interpolation never reads background: one
    # pixel farther than it is trusted.
    usable = colored = opaque
    for _ in range(CARRIED_PIXELS + 1):
        usable = colored
        sums = torch.cat([color * colored, colored])[None]
        mean = avg_pool2d(sums, 3, stride=1, padding=1)[0]
        carried = mean[:3] / mean[3:].clamp_min(1e-6)
        color = torch.where(colored > 0, color, carried)
        colored = (mean[3:] > 0).float()
    return torch.cat([color.clamp(0, 1), torch.maximum(trust, EDGE_TRUST * usable)])


def _facing(texels: Texels, position: Tensor) -> Tensor:
    """Whether each texel's face is turned to a camera at `position` [3]. [T] bool"""
    return ((position * texels.face_normals).sum(-1) > texels.face_offsets)[texels.face]


def _depth_steps(depth: Tensor, footprint: Tensor) -> Tensor:
    """Pixels beside a step in depth: where it bends more than a slope or a crease does.

    Args:
        depth: [H, W], infinity where there is no surface.
        footprint: [H, W] width of a pixel on the surface, in world units.

    Returns:
        [H, W] bool
    """
    padded = torch.nn.functional.pad(depth[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]
    bend_x = (padded[1:-1, 2:] + padded[1:-1, :-2] - 2 * depth).abs()
    bend_y = (padded[2:, 1:-1] + padded[:-2, 1:-1] - 2 * depth).abs()
    limit = STEP_HEIGHT + 2 * footprint
    # Beside the background a bend is infinite or, within it, not a number.
    return ~((bend_x <= limit) & (bend_y <= limit))
