"""How a prediction is moved onto the truth before meshes are compared. Each protocol names its way.

Published tables differ: SyncDreamer moves nothing, CraftsMan and MVDiffusion++ use ICP, Wonder3D
aligns by an unstated method.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from hi3d.evaluation.mesh_files import normalised
from hi3d.evaluation.mesh_metrics import rotated_about_up, sample_surface
from hi3d.evaluation.protocols.depth_points import depth_chamfer
from hi3d.mesh import SurfaceMesh

NUM_POINTS = 4000
COARSE_DEG, FINE_DEG = 10, 1


def unaligned(pred: SurfaceMesh, gt: SurfaceMesh) -> SurfaceMesh:
    """The prediction as it is."""
    del gt
    return pred


def scaled_and_centered(pred: SurfaceMesh, gt: SurfaceMesh) -> SurfaceMesh:
    """The prediction's bounding box centered with longest side 1, as the truth's is."""
    del gt
    return normalised(pred)[0]


def turned_best(pred: SurfaceMesh, gt: SurfaceMesh) -> SurfaceMesh:
    """Turned about the up axis, scaled and centered, to the least Chamfer distance.

    The box is that of the turned mesh, since boxes change as meshes turn.
    """
    target = sample_surface(gt, NUM_POINTS, seed=1)

    def turned(angle_deg: float) -> SurfaceMesh:
        return normalised(rotated_about_up(pred, angle_deg))[0]

    def error(angle_deg: float) -> float:
        return depth_chamfer(sample_surface(turned(angle_deg), NUM_POINTS, seed=0), target)

    coarse = min(range(0, 360, COARSE_DEG), key=error)
    fine = range(coarse - COARSE_DEG + FINE_DEG, coarse + COARSE_DEG, FINE_DEG)
    return turned(min(fine, key=error))


def iterated_closest_points(pred: SurfaceMesh, gt: SurfaceMesh) -> SurfaceMesh:
    """Scaled, centered, then rotated, moved and scaled by ICP (Besl and McKay 1992) on samples."""
    from trimesh.registration import icp

    pred = normalised(pred)[0]
    source, target = (sample_surface(mesh, NUM_POINTS, seed=1) for mesh in (pred, gt))
    matrix, _, _ = icp(
        source.double().numpy(), target.double().numpy(),
        threshold=1e-7, max_iterations=50, reflection=False, scale=True,
    )  # fmt: skip
    vertices = pred.vertices.double().cpu().numpy() @ np.asarray(matrix)[:3, :3].T
    moved = torch.from_numpy(vertices + np.asarray(matrix)[:3, 3])
    return replace(pred, vertices=moved.to(pred.vertices))


ALIGNMENTS: dict[str, Callable[[SurfaceMesh, SurfaceMesh], SurfaceMesh]] = {
    "none": unaligned,
    "scale-centre": scaled_and_centered,
    "icp": iterated_closest_points,
    "best-yaw": turned_best,
}
"""By the name that a protocol carries."""
