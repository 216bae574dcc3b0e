"""Mesh files as they are scored: the truth is brought to the coordinates of the reconstruction."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from hi3d.assets.load import SUFFIXES, declared_front, z_up
from hi3d.assets.surface_mesh import load_mesh
from hi3d.assets.wavefront.looks import scanned_object_folder
from hi3d.config import check_choice
from hi3d.errors import InputError
from hi3d.evaluation.mesh_metrics import (
    MeshMetricsConfig,
    MeshScores,
    rotated_about_up,
    score_mesh,
)
from hi3d.files import regular_file
from hi3d.mesh import SurfaceMesh

PLAIN_SUFFIXES = (".stl", ".off")
"""Triangles alone, z up; read by trimesh."""
UP_AXES, FRONT_AXES = ("y", "z"), ("x", "z")
NORMALISED_TOLERANCE = 1e-3
"""A mesh so close to the unit cube is left as it is."""


@dataclass
class MeshFilesConfig(MeshMetricsConfig):
    """How mesh files are read and scored."""

    normalize_gt: bool = True
    """Center the truth's bounding box and make its longest side 1, as scripts/render_orbits.py
    does."""
    normalize_pred: bool = False
    """The same for the prediction; then its size and place are not scored."""
    up: str | None = None
    """Upward axis of the predicted file, y or z. None: z for PLY, STL and OFF, y for others."""
    gt_up: str | None = None
    """Upward axis of the true file."""
    front: str | None = None
    """Axis of a predicted Y-up file that azimuth 0 sees, x or z. None: what the file declares (z in
    meshes of this project), else x."""
    gt_front: str | None = None
    """The same of the true file."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("up", "gt_up", "front", "gt_front"):
            if getattr(self, name) is not None:
                known = UP_AXES if name.endswith("up") else FRONT_AXES
                check_choice(name, getattr(self, name), known)


def score_mesh_files(
    pred: Path, gt: Path, config: MeshFilesConfig, rotate_gt_deg: float = 0.0
) -> tuple[MeshScores, str]:
    """Score one mesh file.

    Args:
        pred: GLB, glTF, OBJ, PLY, STL or OFF.
        gt: the true mesh, of the same formats.
        config: settings.
        rotate_gt_deg: azimuth at which the photo shows the true mesh.

    Returns:
        The scores, and one line that says which axes are taken as upward and what was moved.

    Raises:
        InputError: a file is missing or broken, or a mesh lies outside the grid of the scores.
    """
    predicted = read_mesh(pred, config.up, config.front)
    truth = read_mesh(gt, config.gt_up, config.gt_front)
    facts = [
        f"prediction {up_axis(pred, config.up)}",
        f"truth {up_axis(gt, config.gt_up)}",
    ]
    if config.normalize_gt:
        truth, fact = normalised(truth)
        facts.append(f"truth {fact}")
    if config.normalize_pred:
        predicted, fact = normalised(predicted)
        facts.append(f"prediction {fact}")
    if rotate_gt_deg:
        truth = rotated_about_up(truth, -rotate_gt_deg)
        facts.append(f"truth turned by {-rotate_gt_deg:g} degrees")
    return score_mesh(predicted, truth, config), "; ".join(facts)


def up_axis(path: Path, up: str | None) -> str:
    """Which axis of a file is taken as upward, and why; a setting against the file is named.

    Args:
        path: an existing file of a format that is scored.
        up: the setting, y or z; None = none.
    """
    suffix = path.suffix.lower()
    if suffix in PLAIN_SUFFIXES or suffix == ".ply":
        usual, why, certain = "z", f"as {suffix[1:].upper()} files are read", False
    elif scanned_object_folder(path):
        usual, why, certain = "z", "as scans in such folders are", False
    elif declared_front(path):
        usual, why, certain = "y", "as the file declares", True
    elif suffix == ".obj":
        usual, why, certain = "y", "as OBJ files are read", False
    else:
        usual, why, certain = "y", "as glTF has it", True
    if up is None or up == usual:
        return f"{usual} up ({why})"
    return f"{up} up (as set, ALTHOUGH {usual} is up {why})" if certain else f"{up} up (as set)"


def read_mesh(path: Path, up: str | None, front: str | None = None) -> SurfaceMesh:
    """Read a mesh file of any format that is scored, z up.

    Args:
        path: the file.
        up: its upward axis, y or z; None = as its format has it.
        front: the axis of a Y-up file that azimuth 0 sees, x or z; None = as it declares.

    Raises:
        InputError: it is missing, broken or of another format.
    """
    axis: Literal["y", "z"] | None = None if up is None else "y" if up == "y" else "z"
    side: Literal["x", "z"] | None = None if front is None else "z" if front == "z" else "x"
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        return load_mesh(path, axis, side)
    if suffix not in PLAIN_SUFFIXES:
        known = ", ".join((*SUFFIXES, *PLAIN_SUFFIXES))
        raise InputError(f"{path} is not a mesh file: give one of {known}")
    if not regular_file(path).is_file():
        raise InputError(f"no mesh file at {path}: check the path")
    import trimesh

    try:
        mesh = trimesh.load_mesh(path)
        vertices = np.asarray(mesh.vertices, np.float32)
        faces = np.asarray(mesh.faces, np.int64).reshape(-1, 3)
    except Exception as error:
        raise InputError(f"cannot read mesh {path} ({type(error).__name__}): replace it") from error
    if len(faces) == 0 or not np.isfinite(vertices).all():
        raise InputError(f"{path} holds no triangles: give another mesh")
    if axis == "y":
        vertices = z_up(vertices, side).astype(np.float32)
    points = torch.from_numpy(vertices)
    return SurfaceMesh(points, torch.from_numpy(faces), torch.full_like(points, 0.5))


def normalised(mesh: SurfaceMesh) -> tuple[SurfaceMesh, str]:
    """The mesh with its bounding box centered and longest side 1, and what that took.

    Raises:
        InputError: the mesh has no extent.
    """
    used = mesh.vertices[mesh.faces.reshape(-1)].double()
    low, high = used.amin(0), used.amax(0)
    center, side = (low + high) / 2, (high - low).max().item()
    if side <= 0:
        raise InputError("the mesh has no surface: give a mesh with triangles")
    if center.abs().max() < NORMALISED_TOLERANCE and abs(side - 1) < NORMALISED_TOLERANCE:
        return mesh, "is centered with longest side 1"
    vertices = ((mesh.vertices.double() - center) / side).to(mesh.vertices)
    place = ", ".join(f"{value:.4g}" for value in center.tolist())
    return replace(mesh, vertices=vertices), f"centered from ({place}) and divided by {side:.4g}"
