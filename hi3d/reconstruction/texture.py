"""A base-colour texture for the final mesh, baked from the views (paper, Section 4.4)."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d, normalize

from hi3d.errors import InputError
from hi3d.progress import track
from hi3d.reconstruction.atlas import (
    Texels,
    area_weighted_normals,
    sample_image,
    sample_texture,
    surface_texels,
    unwrap,
)
from hi3d.reconstruction.ray_casting import RayCaster
from hi3d.surface_mesh import SurfaceMesh
from hi3d.views import Views

EDGE_TRUST = 1e-3  # of pixels on an edge: they decide only where no view is better
SOUND_TRUST = 0.1  # texels seen with less may show another surface and colour no unseen ones
OCCLUSION_MARGIN = 2e-3  # a texel this close behind the first hit is that hit, world units
NORMAL_DISTANCE = 0.05  # world units that a difference of 1 in the normals counts for in filling
CARRIED_PIXELS = 2  # colour is carried this far beyond the silhouette
STEP_HEIGHT = 0.01  # depth steps below this are no occlusion edges, world units


@dataclass
class TextureConfig:
    """Size of the atlas, and which views colour which texel."""

    resolution: int = 1024
    """Height and width of the texture in texels."""
    padding: int = 4
    """Texels between the charts of the atlas."""
    angle_power: float = 8.0
    """A view weighs cos(angle to the surface normal) to this power: 0 is the mean of all views,
    large values take the most frontal one."""
    min_cos: float = 0.15
    """Views that see the surface flatter than this do not colour it."""
    edge_width: int = 4
    """Pixels from a silhouette or an occlusion edge over which a view's weight rises to 1."""
    min_alpha: float = 0.95
    """Pixels below this opacity hold some of the white background and are not used."""
    fill_neighbours: int = 32
    """Seen surface points that colour an unseen one."""

    def __post_init__(self) -> None:
        for name in ("resolution", "edge_width", "fill_neighbours"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}: give a number of at least 1")
        for name in ("min_cos", "min_alpha"):
            if not 0 < getattr(self, name) <= 1:
                raise InputError(f"{name} is {getattr(self, name)}: give a number in (0, 1]")
        if self.padding < 0 or self.angle_power < 0:
            raise InputError("padding and angle_power must be at least 0: raise the negative one")


def bake_texture(
    mesh: SurfaceMesh, views: Views, config: TextureConfig | None = None
) -> SurfaceMesh:
    """Cut the surface into an atlas and colour it from the views that see it.

    Each texel is the weighted mean of the views in which its surface point is not hidden; a view
    weighs more the more frontal it is and the farther from silhouettes and occlusion edges, where
    an error in shape would take the colour of what lies behind. Texels that no view sees take the
    colours of the nearest seen ones. The work is done on the CPU.

    Args:
        mesh: the surface, in the world coordinates of the cameras; its colours are not used.
        views: the images, over white.
        config: defaults to `TextureConfig()`.

    Returns:
        The same triangles with vertices doubled along chart borders, `uvs`, `texture [3, R, R]` in
        [0, 1] and `vertex_rgb` read from the texture, on the device of `mesh`.

    Raises:
        InputError: the mesh has no faces, or no view sees it.
    """
    config = config or TextureConfig()
    if len(mesh.faces) == 0:
        raise InputError("the mesh has no faces: lower the surface threshold or refit")
    device = mesh.vertices.device
    mesh, views = mesh.to("cpu"), views.to("cpu")
    source, faces, uvs = unwrap(mesh, config.resolution, config.padding)
    vertices = mesh.vertices[source]
    texels = surface_texels(
        vertices, faces, uvs, area_weighted_normals(mesh)[source], config.resolution
    )
    rgb, best_trust = _blend_views(texels, views, RayCaster(vertices, faces), config)
    if not best_trust.any():
        raise InputError("no view sees the mesh: give views of this object, in its coordinates")
    _fill_unseen(rgb, best_trust, texels, config.fill_neighbours)
    texture = _fill_gaps(rgb, texels.index, config.resolution)
    vertex_rgb = sample_texture(texture, uvs)
    return SurfaceMesh(vertices, faces, vertex_rgb, uvs, texture).to(device)


def _blend_views(
    texels: Texels, views: Views, caster: RayCaster, config: TextureConfig
) -> tuple[Tensor, Tensor]:
    """Colour [T, 3] of every texel, and the largest trust a view coloured it with [T], 0 unseen."""
    total = torch.zeros_like(texels.positions)
    total_weight = torch.zeros(len(texels.positions))
    best_trust = torch.zeros(len(texels.positions))
    cameras = views.cameras
    for view in track(range(len(views)), "texture"):
        to_camera = cameras.positions[view] - texels.positions
        direction = normalize(to_camera, dim=-1)
        cos = torch.minimum(
            (direction * texels.face_normals).sum(-1), (direction * texels.smooth_normals).sum(-1)
        )
        viewmat, K = cameras.viewmats[view], cameras.Ks[view]
        in_camera = texels.positions @ viewmat[:3, :3].T + viewmat[:3, 3]
        pixels = in_camera @ K.T
        image_size = torch.tensor([cameras.width, cameras.height])
        grid = 2 * pixels[:, :2] / pixels[:, 2:] / image_size - 1
        in_frame = (grid.abs() < 1).all(-1) & (in_camera[:, 2] > 0)
        candidates = ((cos > config.min_cos) & in_frame).nonzero()[:, 0]

        depth = caster.depth(cameras, view)
        footprint = (depth / K[0, 0]).nan_to_num(posinf=0)
        image = _trusted_image(views.rgb[view], views.alpha[view], depth, footprint, config)
        rgb, trust = sample_image(image, grid[candidates]).split([3, 1], dim=-1)
        kept = trust[:, 0] > 0
        candidates, rgb, trust = candidates[kept], rgb[kept], trust[kept]

        ray = -to_camera[candidates]
        hit = caster.distances(cameras.positions[view].expand_as(ray), ray) * ray.norm(dim=-1)
        visible = hit > ray.norm(dim=-1) - OCCLUSION_MARGIN
        candidates, trust = candidates[visible], trust[visible, 0]
        weight = cos[candidates] ** config.angle_power * trust
        total[candidates] += weight[:, None] * rgb[visible]
        total_weight[candidates] += weight
        best_trust[candidates] = torch.maximum(best_trust[candidates], trust)
    return total / total_weight.clamp_min(1e-30)[:, None], best_trust


def _trusted_image(
    rgb: Tensor, alpha: Tensor, depth: Tensor, footprint: Tensor, config: TextureConfig
) -> Tensor:
    """Colours free of background, with the trust in every pixel.

    Args:
        rgb: [3, H, W] over white.
        alpha: [1, H, W]
        depth: [H, W], infinity where there is no surface.
        footprint: [H, W] width of a pixel on the surface, in world units.
        config: the edge settings.

    Returns:
        [4, H, W]: colour, and trust in [0, 1]: 0 outside the object, EDGE_TRUST on silhouettes
        and occlusion edges, rising from there to 1 over `edge_width` pixels.
    """
    opaque = (alpha >= config.min_alpha).float()
    inside = opaque * ~_depth_steps(depth, footprint)
    trust = torch.zeros_like(alpha)
    for _ in range(config.edge_width):
        inside = -max_pool2d(-inside[None], 3, stride=1, padding=1)[0]
        trust += inside / config.edge_width
    colour = (rgb - (1 - alpha)) / alpha.clamp_min(config.min_alpha) * opaque
    # The object's colour is carried outwards, so that interpolation never reads background: one
    # pixel farther than it is trusted.
    usable = coloured = opaque
    for _ in range(CARRIED_PIXELS + 1):
        usable = coloured
        sums = torch.cat([colour * coloured, coloured])[None]
        mean = avg_pool2d(sums, 3, stride=1, padding=1)[0]
        carried = mean[:3] / mean[3:].clamp_min(1e-6)
        colour = torch.where(coloured > 0, colour, carried)
        coloured = (mean[3:] > 0).float()
    return torch.cat([colour.clamp(0, 1), torch.maximum(trust, EDGE_TRUST * usable)])


def _depth_steps(depth: Tensor, footprint: Tensor) -> Tensor:
    """Pixels beside a step in depth: where it bends more than a slope or a crease does. [H, W]"""
    padded = torch.nn.functional.pad(depth[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]
    bend_x = (padded[1:-1, 2:] + padded[1:-1, :-2] - 2 * depth).abs()
    bend_y = (padded[2:, 1:-1] + padded[:-2, 1:-1] - 2 * depth).abs()
    limit = STEP_HEIGHT + 2 * footprint
    # Beside the background a bend is infinite or, within it, not a number.
    return ~((bend_x <= limit) & (bend_y <= limit))


def _fill_unseen(rgb: Tensor, best_trust: Tensor, texels: Texels, num_neighbours: int) -> None:
    """Colour unseen texels in place: mean of the nearest seen ones, weighted by 1 / distance^2.

    The distance counts the angle between normals too, or colour would come through thin walls.

    Args:
        rgb: [T, 3]
        best_trust: [T], 0 for unseen texels.
        texels: the surface points.
        num_neighbours: how many seen points each unseen one takes.
    """
    from scipy.spatial import cKDTree

    seen, sound = best_trust > 0, best_trust > SOUND_TRUST
    if seen.all():
        return
    sound = sound if sound.any() else seen
    points = torch.cat([texels.positions, NORMAL_DISTANCE * texels.smooth_normals], dim=-1)
    step = max(1, int(sound.sum()) // 20_000)  # enough points for a smooth fill
    known = sound.nonzero()[::step, 0]
    num_neighbours = min(num_neighbours, len(known))
    distance, neighbour = cKDTree(points[known].numpy()).query(
        points[~seen].numpy(), k=range(1, num_neighbours + 1)
    )
    weight = 1 / (torch.from_numpy(distance).float() ** 2 + 1e-8)
    weight = weight / weight.sum(-1, keepdim=True)
    rgb[~seen] = (rgb[known[torch.from_numpy(neighbour)]] * weight[..., None]).sum(1)


def _fill_gaps(rgb: Tensor, index: Tensor, resolution: int) -> Tensor:
    """Lay the texels into the texture; texels between charts take the nearest one's colour.

    Args:
        rgb: [T, 3]
        index: [T] row * resolution + column
        resolution: height and width of the texture.

    Returns:
        [3, R, R] in [0, 1]
    """
    from scipy.ndimage import distance_transform_edt

    empty = np.ones(resolution * resolution, dtype=bool)
    empty[index.numpy()] = False
    row, column = distance_transform_edt(
        empty.reshape(resolution, resolution), return_distances=False, return_indices=True
    )
    texture = torch.zeros(resolution * resolution, 3)
    texture[index] = rgb
    nearest = torch.from_numpy(row.astype(np.int64) * resolution + column)
    return texture[nearest].permute(2, 0, 1).clamp(0, 1).contiguous()
