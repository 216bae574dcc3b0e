"""The scores of one object under a protocol."""

from collections.abc import Callable

from torch import Tensor

from hi3d.errors import InputError
from hi3d.evaluation.protocols.mesh_scores import mesh_names, score_mesh
from hi3d.evaluation.protocols.protocol import Protocol
from hi3d.evaluation.protocols.view_scores import Scores, score_views, view_names
from hi3d.images.lpips import FeatureDistance
from hi3d.mesh import SurfaceMesh


def score_object(
    protocol: Protocol,
    views: Tensor | None,  # [V, 3, H, W]
    truth_views: Tensor | None,  # [V, 3, H, W]
    mesh: SurfaceMesh | None,
    truth_mesh: SurfaceMesh | None,
    distance: FeatureDistance | None = None,
) -> tuple[Scores, list[str]]:
    """All scores of one object.

    Args:
        protocol: what is measured and how.
        views: predicted views over white, in [0, 1]; of another size they are resized.
        truth_views: true views of the same cameras, in the same order.
        mesh: predicted mesh, in the truth's coordinates.
        truth_mesh: longest side 1, centered, turned to the photo.
        distance: of `perceptual_distance`; None leaves the score out.

    Returns:
        Scores, None where one cannot be computed, and a line about everything that was not as the
        protocol expects it.
    """
    scores: Scores = {}
    notes: list[str] = []
    if truth_views is not None:
        scores |= _scores_or_reason(
            view_names(distance), notes,
            lambda: score_views(protocol, views, truth_views, distance, notes),
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
