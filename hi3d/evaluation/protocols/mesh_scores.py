"""Scores of one object's mesh under a protocol."""

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
from hi3d.evaluation.protocols.protocol import Protocol
from hi3d.evaluation.protocols.recent import Recent
from hi3d.evaluation.protocols.view_scores import Scores
from hi3d.mesh import SurfaceMesh
from hi3d.surface.topology import merged, topology

NUM_SAMPLES = 100_000
THRESHOLDS = (0.01, 0.02, 0.05)
"""Of the F-scores, world units: the object's longest side is 1."""
SEEN_TRUTHS: Recent[tuple[Tensor, np.ndarray]] = Recent(1)
"""What `seen_side` gives of the last truth."""


def mesh_names(protocol: Protocol) -> list[str]:
    """Names of the scores of meshes."""
    if protocol.mesh_points == "seen":
        return ["chamfer", "iou64"]
    f_scores = [f"f_score_{threshold:g}" for threshold in THRESHOLDS]
    return ["chamfer", *f_scores, "normal_consistency", "iou64", "iou128"]


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
        points, inside = seen_side(mesh, rendered=False)
        true_points, true_inside = SEEN_TRUTHS.get(
            [truth.vertices, truth.faces], lambda: seen_side(truth, rendered=True)
        )
        union = int((inside | true_inside).sum())
        if not union:
            notes.append("neither mesh encloses a volume: no IoU")
        iou = int((inside & true_inside).sum()) / union if union else None
        return {"chamfer": depth_chamfer(points, true_points), "iou64": iou}
    return surface_scores(mesh, truth, notes)


def seen_side(mesh: SurfaceMesh, rendered: bool) -> tuple[Tensor, np.ndarray]:
    """Points that the protocol's cameras see, one a voxel [N, 3], and what is inside [R, R, R]."""
    points = depth_points(mesh, syncdreamer_cameras(), rendered)
    return one_per_voxel(points), inside_at_corners(mesh)


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
