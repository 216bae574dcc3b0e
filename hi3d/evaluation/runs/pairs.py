"""One prediction against one truth, from files: by settings of one's own, or by a protocol's."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from hi3d.config import config_to_dict, load_config
from hi3d.errors import InputError
from hi3d.evaluation.mesh_files import MeshFilesConfig, normalised, read_mesh, score_mesh_files
from hi3d.evaluation.mesh_metrics import rotated_about_up
from hi3d.evaluation.methods.layouts import Layout
from hi3d.evaluation.methods.reading import over_white, read_views
from hi3d.evaluation.protocols.protocol import find_protocol
from hi3d.evaluation.protocols.scores import score_object
from hi3d.evaluation.protocols.view_scores import perceptual_distance
from hi3d.evaluation.tables import about_scores
from hi3d.evaluation.view_matching import score_matched_views
from hi3d.evaluation.view_metrics import ViewMetricsConfig
from hi3d.mesh import SurfaceMesh
from hi3d.pipelines.given_views import load_views_to_score
from hi3d.views import load_rgba, view_files

VIDEOS = (".mp4", ".avi", ".mov", ".gif")
AXES = ("up", "gt_up", "front", "gt_front")
"""Settings of meshes that say how files are read: they go with any protocol."""

Scores = Mapping[str, float]
"""NaN where one cannot be computed."""


def score_pair(
    what: str, pred: Path, gt: Path, config: str | None, overrides: Sequence[str], turn_deg: float
) -> tuple[Scores, dict[str, Any]]:
    """Scores by settings of one's own.

    Args:
        what: `views` or `mesh`.
        pred: folder of views, or a mesh file.
        gt: the same of the truth.
        config: YAML file of settings.
        overrides: `key=value` words.
        turn_deg: azimuth at which the photo shows the true mesh.

    Returns:
        The scores, and what a reader must know beside them.

    Raises:
        InputError: a file or a setting is wrong, or the two do not belong together.
    """
    settings: ViewMetricsConfig | MeshFilesConfig
    scores: Scores
    if what == "views":
        settings = load_config(ViewMetricsConfig, config, overrides)
        (views, known), (truth, truth_known) = map(load_views_to_score, (pred, gt))
        scores, how = score_matched_views(views, truth, known and truth_known, settings)
    else:
        settings = load_config(MeshFilesConfig, config, overrides)
        found, how = score_mesh_files(pred, gt, settings, turn_deg)
        scores = asdict(found)
    return scores, about_scores(what, how, config_to_dict(settings))


def score_pair_by(
    protocol: str,
    what: str,
    pred: Path,
    gt: Path,
    config: str | None,
    overrides: Sequence[str],
    turn_deg: float,
) -> tuple[Scores, dict[str, Any]]:
    """Scores by a protocol, as tables have them; views are compared by number, without cameras.

    Args:
        protocol: its name.
        what: `views` or `mesh`.
        pred: views as a folder of numbered images, a row in one image or a video; a mesh file.
        gt: the same of the truth.
        config: YAML file of settings: of meshes the axes of the files, else none.
        overrides: `key=value` words.
        turn_deg: azimuth at which the photo shows the true mesh.

    Returns:
        The scores, and what a reader must know beside them.

    Raises:
        InputError: a file is wrong, or a setting is the protocol's own.
    """
    found = find_protocol(protocol)
    settings: dict[str, Any] = {}
    if what == "views":
        if config is not None or overrides:
            raise InputError(f"protocol {protocol} has its own settings of views: give no others")
        distance = perceptual_distance(found)
        views, truth = numbered_views(pred), numbered_views(gt)
        scores, notes = score_object(found, views, truth, None, None, distance)
        how = "views by number, over white"
    else:
        if found.mesh_points is None:
            raise InputError(f"protocol {protocol} scores no meshes: choose another")
        files = axes_alone(load_config(MeshFilesConfig, config, overrides), protocol)
        settings = {name: getattr(files, name) for name in AXES}
        mesh, true_mesh = mesh_pair(pred, gt, files, turn_deg)
        scores, notes = score_object(found, None, None, mesh, true_mesh)
        how = f"truth centered, longest side 1, turned by {-turn_deg:g} degrees; prediction "
        how += "as it is" if found.alignment == "none" else f"aligned: {found.alignment}"
    if all(score is None for score in scores.values()):
        raise InputError("; ".join(notes))
    about = about_scores(what, how, {"protocol": protocol, **settings})
    numbers = {name: math.nan if score is None else score for name, score in scores.items()}
    return numbers, {**about, "protocol": f"{protocol}: {found.statement}", "notes": notes}


def axes_alone(config: MeshFilesConfig, protocol: str) -> MeshFilesConfig:
    """The settings, if none but those of the files' axes differ from the defaults.

    Raises:
        InputError: another does.
    """
    plain = asdict(MeshFilesConfig())
    others = [key for key, value in asdict(config).items() if value != plain[key]]
    if others := [key for key in others if key not in AXES]:
        raise InputError(f"protocol {protocol} decides on {', '.join(others)}: leave them out")
    return config


def mesh_pair(
    pred: Path, gt: Path, config: MeshFilesConfig, turn_deg: float
) -> tuple[SurfaceMesh, SurfaceMesh]:
    """Prediction as it is, and truth as protocols want it: longest side 1, turned to the photo."""
    truth, _ = normalised(read_mesh(gt, config.gt_up, config.gt_front))
    return read_mesh(pred, config.up, config.front), rotated_about_up(truth, -turn_deg)


def numbered_views(path: Path) -> Tensor:
    """Views in the order of their numbers, over white. [V, 3, H, W]

    Args:
        path: a folder of images, a row of 16 in one image, or a video of 16 frames.

    Raises:
        InputError: there are none, or they differ in size.
    """
    if path.is_dir():
        images = [over_white(*load_rgba(path / name)) for name in view_files(path)]
        if len({image.shape for image in images}) > 1:
            raise InputError(f"the views in {path} differ in size: give views of one size")
        return torch.stack(images)
    kind: Literal["video", "strip"] = "video" if path.suffix.lower() in VIDEOS else "strip"
    return read_views(Layout(kind=kind), path)
