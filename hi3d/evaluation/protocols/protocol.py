"""The protocols by name, and the scores of one object under one of them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from hi3d.errors import InputError
from hi3d.evaluation.mesh_metrics import sample_surface, volume_iou
from hi3d.evaluation.protocols.alignment import ALIGNMENTS
from hi3d.evaluation.protocols.depth_points import (
    depth_chamfer,
    depth_points,
    inside_at_corners,
    one_per_voxel,
    syncdreamer_cameras,
)
from hi3d.evaluation.view_metrics import MAX_PSNR, psnr, ssim
from hi3d.images.lpips import Lpips, LpipsNetwork
from hi3d.mesh import SurfaceMesh
from hi3d.surface.topology import merged, topology

NUM_SAMPLES = 100_000
THRESHOLDS = (0.01, 0.02, 0.05)
"""Of the F-scores, world units: the object's longest side is 1."""


@dataclass(frozen=True)
class Protocol:
    """What a number means. Numbers of two protocols do not belong in one table."""

    name: str
    statement: str
    """One line for the reader of a table."""
    view_size: int = 256
    """Side of the compared views in pixels."""
    first_view_counts: bool = True
    """View 0 is the photo itself, which lifts the mean."""
    pooled: bool = False
    """PSNR and SSIM of all views as one set, instead of the mean over views."""
    lpips_network: LpipsNetwork = LpipsNetwork.vgg
    mesh_points: str | None = "seen"
    """`seen` by the 16 cameras of elevation 30, samples of the `surface`, or None: no mesh."""
    alignment: str = "none"
    """Key of `ALIGNMENTS`."""


SYNCDREAMER = Protocol(
    "syncdreamer",
    "16 views of 256x256 with view 0, over white: PSNR and SSIM per view, LPIPS (VGG), then means; "
    "Chamfer of points seen from elevation 30, unsquared and halved; IoU at 64^3 over [-1, 1]^3; "
    "the prediction as it is",
)
SURFACE = Protocol(
    "whole-surface",
    "views 1-15 of 256x256; Chamfer (unsquared, halved), F-scores and normal consistency of "
    "100,000 samples of whole surfaces; IoU at 64^3 and 128^3; the prediction as it is",
    first_view_counts=False,
    mesh_points="surface",
)


def _views_only(name: str, statement: str, **changes: Any) -> Protocol:
    return replace(SYNCDREAMER, name=name, statement=statement, mesh_points=None, **changes)


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        SYNCDREAMER,
        replace(
            SYNCDREAMER,
            name="syncdreamer-excluding-view0",
            statement="as syncdreamer, views 1-15",
            first_view_counts=False,
        ),
        _views_only("views512", "as syncdreamer, truth of 512x512, views only", view_size=512),
        _views_only("views1024", "as syncdreamer, truth of 1024x1024, views only", view_size=1024),
        _views_only(
            "epidiff",
            "16 views of 256x256: PSNR of the pooled squared error and SSIM of the set per object, "
            "LPIPS (AlexNet)",
            pooled=True,
            lpips_network=LpipsNetwork.alex,
        ),
        SURFACE,
        *(
            replace(
                SURFACE,
                name=f"whole-surface-{alignment}",
                statement=f"as whole-surface, the prediction aligned first ({alignment})",
                alignment=alignment,
            )
            for alignment in ALIGNMENTS
            if alignment != "none"
        ),
    )
}


Scores = dict[str, float | None]


def find_protocol(name: str) -> Protocol:
    """The protocol of a name.

    Raises:
        InputError: there is none; the message lists all.
    """
    if name not in PROTOCOLS:
        raise InputError(f"no protocol named {name}: choose one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def score_object(
    protocol: Protocol,
    views: Tensor | None,  # [V, 3, H, W]
    truth_views: Tensor | None,  # [V, 3, H, W]
    mesh: SurfaceMesh | None,
    truth_mesh: SurfaceMesh | None,
    lpips: Lpips | None = None,
) -> tuple[Scores, list[str]]:
    """All scores of one object.

    Args:
        protocol: what is measured and how.
        views: predicted views over white, in [0, 1]; of another size they are resized.
        truth_views: true views of the same cameras, in the same order.
        mesh: predicted mesh, in the truth's coordinates.
        truth_mesh: longest side 1, centered, turned to the photo.
        lpips: of the protocol's network; None leaves the score out.

    Returns:
        Scores, None where one cannot be computed, and a line about everything that was not as the
        protocol expects it.
    """
    scores: Scores = {}
    notes: list[str] = []
    if truth_views is not None:
        scores |= _scores_or_reason(
            view_names(lpips), notes,
            lambda: score_views(protocol, views, truth_views, lpips, notes),
        )  # fmt: skip
    if truth_mesh is not None and protocol.mesh_points is not None:
        scores |= _scores_or_reason(
            mesh_names(protocol), notes, lambda: score_mesh(protocol, mesh, truth_mesh, notes)
        )
    return scores, notes


def _scores_or_reason(names: list[str], notes: list[str], compute: Callable[[], Scores]) -> Scores:
    """What `compute` gives, or None for every name and the reason in `notes`."""
    try:
        return compute()
    except InputError as error:
        notes.append(str(error))
        return dict.fromkeys(names)


def view_names(lpips: Lpips | None) -> list[str]:
    """Names of the scores of views."""
    return ["psnr", "ssim", *(["lpips"] if lpips is not None else [])]


def mesh_names(protocol: Protocol) -> list[str]:
    """Names of the scores of meshes."""
    if protocol.mesh_points == "seen":
        return ["chamfer", "iou64"]
    f_scores = [f"f_score_{threshold:g}" for threshold in THRESHOLDS]
    return ["chamfer", *f_scores, "normal_consistency", "iou64", "iou128"]


def score_views(
    protocol: Protocol,
    views: Tensor | None,
    truth: Tensor,
    lpips: Lpips | None,
    notes: list[str],
) -> Scores:
    """Scores of one object's views.

    Args:
        protocol: what is measured and how.
        views: [V, 3, H, W] in [0, 1], over white.
        truth: [V, 3, H, W] in [0, 1], over white.
        lpips: of the protocol's network, or None.
        notes: lines are added for what is unusual.

    Raises:
        InputError: views are missing, or values are not finite.
    """
    if views is None or len(views) != len(truth):
        have = 0 if views is None else len(views)
        raise InputError(f"{have} of {len(truth)} views: give one for each camera")
    if not torch.isfinite(views).all():
        raise InputError("views with values that are not finite: nothing is scored")
    views, truth = (
        at_size(images, protocol.view_size, name, notes)
        for name, images in (("predicted", views), ("true", truth))
    )
    if not protocol.first_view_counts:
        views, truth = views[1:], truth[1:]
    if protocol.pooled:
        error = (views - truth).double().square().mean().item()
        measured = -10 * np.log10(error) if error else np.inf
        similarity = _pooled_ssim(views, truth)
    else:
        measured = psnr(views, truth).clamp_max(MAX_PSNR).double().mean().item()
        similarity = ssim(views, truth).double().mean().item()
    scores: Scores = {"psnr": min(float(measured), MAX_PSNR), "ssim": similarity}
    if lpips is not None:
        pairs = zip(views.split(1), truth.split(1), strict=True)
        scores["lpips"] = float(np.mean([lpips(a, b).item() for a, b in pairs]))
    return scores


def _pooled_ssim(views: Tensor, truth: Tensor) -> float:
    from torchmetrics.functional.image import structural_similarity_index_measure

    similarity = structural_similarity_index_measure(views, truth)
    return float(similarity if isinstance(similarity, Tensor) else similarity[0])


def at_size(images: Tensor, size: int, name: str, notes: list[str]) -> Tensor:
    """Images [V, 3, H, W] at the protocol's size; what is resized is said in `notes`."""
    if images.shape[-2:] == (size, size):
        return images
    height, width = images.shape[-2:]
    notes.append(f"{name} views resized from {width}x{height} to {size}x{size}")
    resized = torch.nn.functional.interpolate(
        images, (size, size), mode="bicubic", antialias=True, align_corners=False
    )
    return resized.clamp(0, 1)


def score_mesh(
    protocol: Protocol, mesh: SurfaceMesh | None, truth: SurfaceMesh, notes: list[str]
) -> Scores:
    """Scores of one mesh.

    Args:
        protocol: what is measured and how.
        mesh: in the truth's coordinates.
        truth: longest side 1, centered, turned to the photo.
        notes: lines are added for what is unusual.

    Raises:
        InputError: the mesh is missing, empty or seen by no camera.
    """
    if mesh is None:
        raise InputError("no mesh: give one for every object")
    mesh, truth = finite(mesh, "predicted", notes), finite(truth, "true", notes)
    mesh = ALIGNMENTS[protocol.alignment](mesh, truth)
    for name, each in (("predicted", mesh), ("true", truth)):
        say_unusual(each, name, notes)
    if protocol.mesh_points == "seen":
        cameras = syncdreamer_cameras()
        points = [
            one_per_voxel(depth_points(each, cameras, rendered))
            for each, rendered in ((mesh, False), (truth, True))
        ]
        first, second = (inside_at_corners(each) for each in (mesh, truth))
        union = int((first | second).sum())
        if not union:
            notes.append("neither mesh encloses a volume: no IoU")
        iou = int((first & second).sum()) / union if union else None
        return {"chamfer": depth_chamfer(*points), "iou64": iou}
    return surface_scores(mesh, truth, notes)


def surface_scores(mesh: SurfaceMesh, truth: SurfaceMesh, notes: list[str]) -> Scores:
    """Chamfer, F-scores, normal consistency and volumes from samples of whole surfaces.

    Chamfer is in world units, unsquared and halved; normal consistency is the mean absolute cosine
    between normals at nearest points, both ways (Occupancy Networks, Mescheder et al. 2019).

    Args:
        mesh: in the truth's coordinates.
        truth: longest side 1, centered.
        notes: lines are added where there is no IoU.

    Raises:
        InputError: a mesh has no area.
    """
    points = [sample_surface(m, NUM_SAMPLES, seed) for seed, m in enumerate((mesh, truth))]
    normals = [normals_at(m, p) for m, p in zip((mesh, truth), points, strict=True)]
    to_gt, near_gt = cKDTree(points[1].numpy()).query(points[0].numpy(), workers=-1)
    to_pred, near_pred = cKDTree(points[0].numpy()).query(points[1].numpy(), workers=-1)
    scores: Scores = {"chamfer": float(to_gt.mean() + to_pred.mean()) / 2}
    for threshold in THRESHOLDS:
        precision, recall = (float((d < threshold).mean()) for d in (to_gt, to_pred))
        both = precision + recall
        scores[f"f_score_{threshold:g}"] = 2 * precision * recall / both if both else 0.0
    agree = (normals[0] * normals[1][near_gt]).sum(1).abs().mean()
    back = (normals[1] * normals[0][near_pred]).sum(1).abs().mean()
    scores["normal_consistency"] = (agree + back).item() / 2
    for resolution in (64, 128):
        try:
            scores[f"iou{resolution}"] = volume_iou(mesh, truth, resolution)
        except InputError as error:
            notes.append(f"no IoU at {resolution}^3: {error}")
            scores[f"iou{resolution}"] = None
    return scores


def normals_at(mesh: SurfaceMesh, points: Tensor) -> Tensor:
    """Unit normals [N, 3] of the faces nearest to points [N, 3] of the surface."""
    import igl

    vertices = mesh.vertices.detach().cpu().double().numpy()
    faces = mesh.faces.cpu().long().numpy()
    _, face, _ = igl.point_mesh_squared_distance(points.double().numpy(), vertices, faces)
    a, b, c = torch.from_numpy(vertices[faces[face]]).unbind(1)
    return torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=-1)


def finite(mesh: SurfaceMesh, name: str, notes: list[str]) -> SurfaceMesh:
    """The mesh without the faces that use a vertex which is not finite.

    Raises:
        InputError: no face is left.
    """
    good = torch.isfinite(mesh.vertices).all(-1)[mesh.faces].all(-1)
    if not good.all():
        notes.append(f"{name} mesh: {int((~good).sum())} faces with NaN or infinity left out")
        vertices = torch.nan_to_num(mesh.vertices, 0.0, 0.0, 0.0)
        mesh = SurfaceMesh(vertices, mesh.faces[good], mesh.vertex_rgb)
    if len(mesh.faces) == 0:
        raise InputError(f"the {name} mesh has no faces: nothing to score")
    return mesh


def say_unusual(mesh: SurfaceMesh, name: str, notes: list[str]) -> None:
    """Add lines for open and inverted meshes, and for such as leave the volume's grid."""
    vertices, faces = merged(mesh.vertices.detach().cpu().numpy(), mesh.faces.cpu().numpy())
    counts = topology(vertices, faces)
    if counts.open_edges:
        notes.append(f"{name} mesh is open ({counts.open_edges} edges): inside by winding number")
    elif counts.inverted:
        notes.append(f"{name} mesh is inside out: scored as if it were not")
    reach = np.abs(vertices[faces]).max()
    if reach > 1:
        notes.append(f"{name} mesh reaches {reach:.3g}: what is outside [-1, 1] has no volume")
