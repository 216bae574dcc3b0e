"""Scores of one object by the name of a protocol, and the columns that they fill."""

from dataclasses import dataclass, field

from torch import Tensor

from hi3d.assets.surface_mesh import surface_mesh_to_object
from hi3d.errors import InputError
from hi3d.evaluation import consistency
from hi3d.evaluation.protocols.mesh_scores import THRESHOLDS
from hi3d.evaluation.protocols.protocol import find_protocol
from hi3d.evaluation.protocols.scores import score_object
from hi3d.evaluation.protocols.view_scores import at_size, perceptual_distance
from hi3d.evaluation.score_table import Column
from hi3d.evaluation.truth import Truth
from hi3d.evaluation.view_metrics import MAX_PSNR, psnr
from hi3d.images.lpips import lpips_of
from hi3d.mesh import SurfaceMesh
from hi3d.photo.view_alpha import views_alpha
from hi3d.rendering.rasterizer import render_views
from hi3d.views import Views

COLUMNS = {
    "psnr": Column("PSNR", "dB"),
    "ssim": Column("SSIM"),
    "lpips": Column("LPIPS", better="lower"),
    "st_lpips": Column("ST-LPIPS", better="lower"),
    **consistency.COLUMNS,
    "mesh_psnr": Column("Mesh PSNR", "dB"),
    "chamfer": Column("Chamfer distance", better="lower"),
    **{f"f_score_{threshold:g}": Column(f"F-score {threshold:g}") for threshold in THRESHOLDS},
    "normal_consistency": Column("Normal consistency"),
    "iou64": Column("Volume IoU 64³"),
    "iou128": Column("Volume IoU 128³"),
}
BESIDE = (
    f"no part of the protocol: the mesh rendered unlit at the cameras of all views and in their "
    f"size; a view counts as at most {MAX_PSNR:g} dB"
)


@dataclass(frozen=True)
class Scored:
    """What a row says of an output."""

    scores: dict[str, float | None]
    """By name of the column; None where there is nothing to score."""
    notes: list[str] = field(default_factory=list)
    """What was unusual."""
    shown: Tensor | None = None  # [V, 3, H, W]
    """Views, or renders of the mesh where there are none."""
    kind: str = "views"
    """Of what is shown: `views` or `renders`."""


def about_scores(protocol: str, with_consistency: bool = False) -> dict[str, str]:
    """What a reader must know beside the numbers of a table.

    Args:
        protocol: its name.
        with_consistency: whether views are scored by themselves too.
    """
    found = find_protocol(protocol)
    about = {
        "protocol": found.statement,
        "units": "the true object's longest side is 1",
        "normalization": "truth centred, longest side 1, turned to the photo's azimuth; outputs of "
        "files as their layout says",
    }
    if with_consistency:
        about["consistency"] = consistency.ABOUT
    return about if found.mesh_points is None else {**about, "mesh_psnr": BESIDE}


def score_output(
    protocol: str,
    rgb: Tensor | None,  # [V, 3, H, W]
    mesh: SurfaceMesh | None,
    truth: Truth,
    meshes: bool = True,
) -> Scored:
    """Score one object.

    Args:
        protocol: its name.
        rgb: views over white in [0, 1], of any size, of the truth's cameras.
        mesh: in the coordinates of the truth.
        truth: of the object.
        meshes: whether meshes are scored.
    """
    found = find_protocol(protocol)
    distance = perceptual_distance(found)
    truth_mesh = truth.mesh if meshes else None
    scores, notes = score_object(found, rgb, truth.views.rgb, mesh, truth_mesh, distance)
    if not meshes or found.mesh_points is None or mesh is None:
        return Scored(scores, notes, rgb)
    rendered = render_views(surface_mesh_to_object(mesh), truth.views.cameras).rgb
    sized = [at_size(images, found.view_size, "", []) for images in (rendered, truth.views.rgb)]
    scores["mesh_psnr"] = psnr(*sized).clamp_max(MAX_PSNR).double().mean().item()
    if rgb is None:
        return Scored(scores, notes, rendered, "renders")
    return Scored(scores, notes, rgb)


def consistency_of(rgb: Tensor, truth: Truth, protocol: str) -> Scored:
    """Scores of views by themselves; a reason where there are none.

    Args:
        rgb: [V, 3, H, W] views over white in [0, 1], of the truth's cameras.
        truth: of the object, for its cameras.
        protocol: whose LPIPS network is taken.
    """
    lpips = lpips_of(find_protocol(protocol).lpips_network)
    cameras = truth.views.cameras.resized(rgb.shape[-1], rgb.shape[-2])
    try:
        views = Views(rgb, views_alpha(rgb), cameras)
        return Scored({**consistency.view_consistency(views, lpips=lpips)})
    except InputError as error:
        return Scored({}, [f"no consistency: {error}"])
