"""How well the views of an orbit agree with each other, without a truth."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from hi3d.cameras import Cameras, between_views
from hi3d.config import check_elevation, check_number, check_path, check_seed
from hi3d.errors import InputError
from hi3d.evaluation.protocols.depth_points import depth_chamfer
from hi3d.evaluation.score_table import Column
from hi3d.evaluation.view_metrics import MAX_PSNR, psnr, ssim
from hi3d.images.lpips import Lpips
from hi3d.mesh import SurfaceMesh
from hi3d.pipelines.views_to_mesh import fit_splats_from_hull
from hi3d.splats import GaussianSplats
from hi3d.splatting.fit import SplatConfig
from hi3d.splatting.rasterization.render import RenderedSplats, rasterize
from hi3d.surface.ray_casting import RayCaster
from hi3d.views import Views

MIN_VIEWS = 6
"""Three in each half: fewer silhouettes do not bound an object."""
MIN_OPACITY = 0.1
"""Fainter Gaussians have no centers that count."""
SAME_DEPTH = 0.03
"""World units within which a point of one view is what the next one sees there."""
COLUMNS = {
    "c_psnr": Column("cPSNR", "dB"),
    "c_ssim": Column("cSSIM"),
    "c_lpips": Column("cLPIPS", better="lower"),
    "c_chamfer": Column("cChamfer", better="lower"),
    "reprojection": Column("Reprojection error", better="lower"),
    "clip_similarity": Column("CLIP similarity"),
}
ABOUT = (
    "cPSNR, cSSIM, cLPIPS: splats of the even views against splats of the odd ones, at the cameras "
    "half way between all views; cChamfer: between the centers of both (MVGBench); reprojection "
    "error: mean absolute difference of colors in [0, 1] that neighbouring views have at one point"
)


@dataclass
class ConsistencyConfig:
    """How consistency is measured."""

    resolution: int = 128
    """Side in pixels to which larger views are reduced, 32 to 2048."""
    splats: SplatConfig = field(
        default_factory=partial(SplatConfig, steps=300, num_initial=4000, max_splats=8000)
    )
    seed: int = 0
    """Of both fits."""
    elevation_deg: float | None = None
    """Of an orbit whose folder has no cameras."""
    mesh: str | None = None
    """Mesh in the cameras' world whose depth takes colors from view to view; null: the depth of the
    splats of the other half."""
    clip: str | None = None
    """Folder of a CLIP vision model with projection (transformers): similarity of all views to view
    0; null leaves it out."""

    def __post_init__(self) -> None:
        check_number("resolution", self.resolution, 32, 2048)
        check_seed(self.seed)
        if self.elevation_deg is not None:
            check_elevation(self.elevation_deg)
        for name in ("mesh", "clip"):
            if getattr(self, name) is not None:
                check_path(name, getattr(self, name))


def view_consistency(
    views: Views,
    config: ConsistencyConfig | None = None,
    lpips: Lpips | None = None,
    mesh: SurfaceMesh | None = None,
) -> dict[str, float]:
    """Scores of an orbit by itself.

    Args:
        views: V views over white with alpha, in the order of the orbit.
        config: settings; None = the defaults.
        lpips: of the in-between renders; None leaves it out.
        mesh: whose depth the reprojection takes, in the cameras' world; None = the splats'.

    Returns:
        By name of `COLUMNS`.

    Raises:
        InputError: fewer than six views, or half of them show no object.
    """
    config = config or ConsistencyConfig()
    if len(views) < MIN_VIEWS:
        raise InputError(f"consistency of {len(views)} views: give {MIN_VIEWS} or more")
    scores = {}
    if config.clip is not None:
        scores["clip_similarity"] = clip_similarity(views.rgb, config.clip)
    if views.cameras.height > config.resolution:
        views = views.shrunk(config.resolution)
    halves = [
        fit_splats_from_hull(views[list(range(start, len(views), 2))], config.splats, config.seed)
        for start in (0, 1)
    ]
    depth = depth_of(mesh, views) if mesh is not None else depth_of_others(halves, views)
    return {
        **compared_halves(halves, views, lpips),
        "reprojection": reprojection_error(views, depth),
        **scores,
    }


def compared_halves(
    halves: Sequence[GaussianSplats], views: Views, lpips: Lpips | None
) -> dict[str, float]:
    """Scores of the splats of half the views against those of the other half."""
    cameras = between_views(views.cameras, len(views))
    first, second = (_rendered(splats, cameras).rgb.clamp(0, 1) for splats in halves)
    scores = {
        "c_psnr": psnr(first, second).clamp_max(MAX_PSNR).mean().item(),
        "c_ssim": ssim(first, second, data_range=1.0).mean().item(),
    }
    if lpips is not None:
        pairs = zip(first.split(1), second.split(1), strict=True)
        scores["c_lpips"] = torch.cat([lpips(a, b) for a, b in pairs]).mean().item()
    centers = [splats.means[splats.opacities > MIN_OPACITY].cpu() for splats in halves]
    if not all(map(len, centers)):
        raise InputError("one half of the views gives no splats: check the views")
    return {**scores, "c_chamfer": depth_chamfer(*centers)}


def _rendered(splats: GaussianSplats, cameras: Cameras) -> RenderedSplats:
    with torch.no_grad():
        return rasterize(splats, cameras)


def depth_of_others(halves: Sequence[GaussianSplats], views: Views) -> Tensor:
    """Depth at each view by the splats of the half that it is not in; 0 = empty. [V, H, W]"""
    rendered = [_rendered(splats, views.cameras) for splats in halves]
    depth = [torch.where(r.alpha > 0.5, r.depth, 0.0)[:, 0] for r in rendered]
    return torch.stack([depth[1 - view % 2][view] for view in range(len(views))])


def depth_of(mesh: SurfaceMesh, views: Views) -> Tensor:
    """Depth of a mesh at each view; 0 = empty. [V, H, W]"""
    caster, depths = RayCaster(mesh.vertices, mesh.faces), []
    for view in range(len(views)):
        origins, directions = views.cameras.rays(view)
        distances = caster.distances(origins.reshape(-1, 3), directions.reshape(-1, 3))
        along = (directions @ views.cameras.viewmats[view, 2, :3]).reshape(-1)
        depth = torch.where(distances < torch.inf, distances * along, 0.0)
        depths.append(depth.reshape(directions.shape[:2]))
    return torch.stack(depths)


def reprojection_error(views: Views, depth: Tensor) -> float:
    """Mean absolute difference of the colors that neighbouring views have at one surface point.

    Args:
        views: V views in the order of the orbit, whose ends meet.
        depth: [V, H, W] along the camera's z axis; 0 = empty.

    Returns:
        In [0, 1]; NaN where no point is seen by two views.
    """
    differences = [
        _difference(views, depth, view, (view + step) % len(views))
        for view in range(len(views))
        for step in (1, -1)
    ]
    return torch.cat(differences).mean().item()


def _difference(views: Views, depth: Tensor, view: int, other: int) -> Tensor:
    """Of the points of one view that another sees. [P]"""
    cameras = views.cameras
    opaque = (depth[view] > 0) & (views.alpha[view, 0] > 0.5)
    y, x = torch.nonzero(opaque, as_tuple=True)
    z = depth[view, y, x]
    pixels = torch.stack([x + 0.5, y + 0.5, torch.ones_like(z)], dim=-1) * z[:, None]
    local = pixels @ torch.linalg.inv(cameras.Ks[view]).T
    camtoworld = cameras.camtoworlds[view]
    points = local @ camtoworld[:3, :3].T + camtoworld[:3, 3]
    place, there, framed = cameras.project(points, other)
    size = place.new_tensor([cameras.width, cameras.height])
    grid = (2 * place / size - 1)[None, None]
    images = torch.cat([views.rgb[other], depth[other][None]])[None]
    seen = F.grid_sample(images[:, :3], grid, align_corners=False)[0, :, 0]
    surface = F.grid_sample(images[:, 3:], grid, mode="nearest", align_corners=False)[0, 0, 0]
    same = framed & ((surface - there).abs() < SAME_DEPTH)
    return (seen - views.rgb[view, :, y, x]).abs().mean(0)[same]


def clip_similarity(rgb: Tensor, folder: str) -> float:
    """Mean cosine of the CLIP embeddings of views 1 to V - 1 with that of view 0.

    Args:
        rgb: [V, 3, H, W] in [0, 1].
        folder: of a CLIP vision model with projection, as transformers saves it.

    Raises:
        InputError: there is no such model.
    """
    from transformers import CLIPVisionModelWithProjection

    from hi3d.diffusion.conditioning import encode_image

    if not (Path(folder) / "config.json").is_file():
        raise InputError(f"no CLIP model in {folder}: give a folder with its config.json")
    try:
        encoder = CLIPVisionModelWithProjection.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        raise InputError(f"{folder} holds no CLIP vision model: {type(error).__name__}") from error
    with torch.no_grad():
        embeds = F.normalize(encode_image(encoder.eval(), rgb)[:, 0], dim=-1)
    return (embeds[1:] @ embeds[0]).mean().item()
