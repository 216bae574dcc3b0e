"""A base-colour texture for the final mesh, baked from the views (paper, Section 4.4)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hi3d.config import check_number
from hi3d.errors import InputError
from hi3d.mesh import SurfaceMesh, vertex_normals
from hi3d.progress import track
from hi3d.surface.ray_casting import RayCaster
from hi3d.texture.atlas import (
    Texels,
    face_areas,
    nearest_texels,
    sample_texture,
    surface_texels,
    unwrap,
)
from hi3d.texture.blending import WeightedMean, sighting_weight
from hi3d.texture.optimization import (
    Target,
    make_target,
    optimize_texels,
    subpixels,
)
from hi3d.texture.unseen import fill_unseen
from hi3d.texture.visibility import see_texels, trusted_image
from hi3d.views import Views

MAX_RESOLUTION = 8192
PADDING = 4  # texels between the charts of the atlas, against bleeding in mipmaps
ANGLE_POWER = 8.0  # of cos(angle to the surface normal) in a view's weight: frontal views lead
DISTANCE_POWER = 2.0  # of a view's pixels per world unit in its weight: nearer views lead
MIN_COS = 0.15  # views that see the surface flatter than this do not color it
EDGE_WIDTH = 4  # pixels from a silhouette or occlusion edge over which a weight rises to 1
MIN_ALPHA = 0.95  # fainter pixels hold some of the white background and are not used


@dataclass
class TextureConfig:
    """Size of the atlas, and how it is sharpened."""

    resolution: int = 1024
    """Height and width of the texture in texels, 1 to 8192."""
    optimization_steps: int = 4
    """Steps over all views, 0 to 1000, that bring the rendered texture nearer to the views."""

    def __post_init__(self) -> None:
        check_number("texture.resolution", self.resolution, 1, MAX_RESOLUTION)
        check_number("texture.optimization_steps", self.optimization_steps, 0, 1000)


def bake_texture(
    mesh: SurfaceMesh,
    views: Views,
    config: TextureConfig | None = None,
    photo: Views | None = None,
) -> SurfaceMesh:
    """Cut the surface into an atlas and color it from the views that see it.

    A texel takes the weighted mean of the views in which its surface point is not hidden; a view
    weighs more the more frontal and nearer it is, and the farther the texel is from silhouettes and
    occlusion edges, where an error in shape would take the color of what lies behind. Then the
    texels are optimized against the views. Texels that no view sees take the colors around them,
    along the surface. The work is done on the CPU.

    Args:
        mesh: the surface, in the world coordinates of the cameras; its colors are not used.
        views: the images, over white.
        config: defaults to `TextureConfig()`.
        photo: one or more of the views at a resolution of their own. A view of more pixels weighs
            more, so what a photo shows keeps the photo's detail.

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
    source, faces, uvs = unwrap(mesh, config.resolution, PADDING)
    vertices = mesh.vertices[source]
    texels = surface_texels(vertices, faces, uvs, vertex_normals(mesh)[source], config.resolution)
    given = [views] if photo is None else [views, photo.to("cpu")]
    rgb, best_trust, targets = _blend_views(
        texels, given, vertices, faces, uvs[faces], config.optimization_steps > 0
    )
    if not best_trust.any():
        raise InputError("no view sees the mesh: give views of this object, in its coordinates")
    fill_unseen(rgb, best_trust, texels, vertices, faces)
    texel_of_pixel = nearest_texels(texels.index, config.resolution)
    # Edges, which may show what lies behind, are hardly sharpened.
    rgb = optimize_texels(rgb, best_trust, texel_of_pixel, targets, config.optimization_steps)
    texture = rgb[texel_of_pixel].permute(2, 0, 1).clamp(0, 1).contiguous()
    vertex_rgb = sample_texture(texture, uvs)
    return SurfaceMesh(vertices, faces, vertex_rgb, uvs, texture).to(device)


def _blend_views(
    texels: Texels,
    given: list[Views],
    vertices: Tensor,
    faces: Tensor,
    corner_uvs: Tensor,
    with_targets: bool,
) -> tuple[Tensor, Tensor, list[Target]]:
    """Colour T texels from V views, those of each entry of one size.

    Returns:
        rgb: [T, 3]
        best_trust: [T] the largest trust a view colored the texel with, 0 for unseen ones.
        targets: of the V views, for the optimization, where they are wanted.
    """
    caster = RayCaster(vertices, faces)
    mean = WeightedMean(len(texels.index))
    best_trust, targets = torch.zeros(len(texels.index)), []
    texel_size = (face_areas(vertices, faces).sum() / len(texels.index)).sqrt().item()
    single = [(views, view) for views in given for view in range(len(views))]
    for views, view in track(single, "texture"):
        cameras = views.cameras
        depth = caster.depth(cameras, view)
        image = trusted_image(
            views.rgb[view],
            views.alpha[view],
            depth,
            cameras.Ks[view, 0, 0].item(),
            MIN_ALPHA,
            # as wide on the object in every view: edges of the shape are as wrong in the larger
            round(EDGE_WIDTH * cameras.height / given[0].cameras.height),
        )
        color, trust = image.split([3, 1])
        sighting = see_texels(texels, cameras, view, caster, depth, trust, MIN_COS)
        weight = sighting_weight(sighting, ANGLE_POWER, DISTANCE_POWER)
        mean.add(sighting, weight, color)
        best_trust[sighting.texels] = torch.maximum(best_trust[sighting.texels], sighting.trust)
        if with_targets:
            num_subpixels = subpixels(cameras, texel_size)
            targets.append(
                make_target(
                    image, cameras, view, caster, corner_uvs, num_subpixels, sighting, weight
                )
            )
    return mean.colors(), best_trust, targets
