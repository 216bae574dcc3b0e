"""What the benchmarks share: objects and their scores, timing, settings."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from hi3d.assets.load import load_object
from hi3d.cameras import Cameras, orbit_cameras
from hi3d.errors import InputError
from hi3d.evaluation.mesh_metrics import chamfer_distance, inside_grid, seen_chamfer_distance
from hi3d.files import write_json
from hi3d.mesh import SurfaceMesh

T = TypeVar("T")

ELEVATION_DEG = 20.0
GRIDS = {"IoU64": (64, 1.0), "IoU128": (128, 0.55)}
"""Cells a side and half extent of the volume grids."""
SEEN_RESOLUTION = 256  # of the orbit whose pixels give the points for the seen Chamfer distance


@dataclass(frozen=True)
class Truth:
    """What the meshes of one object are scored against."""

    mesh: SurfaceMesh
    inside: dict[str, Tensor]
    """By name of `GRIDS`, [R, R, R] bool."""
    cameras: Cameras
    """Whose pixels give the points for the seen Chamfer distance."""

    def score(self, mesh: SurfaceMesh, grids: tuple[str, ...] = ("IoU128",)) -> dict[str, float]:
        """Chamfer distances of the whole surface and of what is seen, and volume IoU."""
        return {
            "Chamfer": chamfer_distance(mesh, self.mesh),
            "seen Chamfer": seen_chamfer_distance(mesh, self.mesh, self.cameras),
            **{name: iou(inside_grid(mesh, *GRIDS[name]), self.inside[name]) for name in grids},
        }


def truth_of(path: Path, grids: tuple[str, ...] = ("IoU128",)) -> Truth:
    """The normalized object of a file, to score meshes against."""
    mesh = ground_truth(path)
    inside = {name: inside_grid(mesh, *GRIDS[name]) for name in grids}
    return Truth(mesh, inside, orbit_cameras(ELEVATION_DEG, SEEN_RESOLUTION))


def ground_truth(path: Path) -> SurfaceMesh:
    """The normalized object as one mesh, without colors."""
    vertices, faces, count = [], [], 0
    for part in load_object(path).parts:
        vertices.append(torch.as_tensor(part.vertices, dtype=torch.float32))
        faces.append(torch.as_tensor(part.faces, dtype=torch.int64) + count)
        count += len(part.vertices)
    return SurfaceMesh(torch.cat(vertices), torch.cat(faces), torch.full((count, 3), 0.8))


def iou(first: Tensor, second: Tensor) -> float:
    """Intersection over union of two boolean grids; NaN where both are empty."""
    union = int((first | second).sum())
    return int((first & second).sum()) / union if union else float("nan")


def timed(make: Callable[[], T]) -> tuple[T, float, float]:
    """What a function gives, and its wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    made = make()
    return made, time.perf_counter() - wall, time.process_time() - cpu


def keep_settings(output: Path, settings: dict[str, Any]) -> None:
    """Make the folder of a run and note its settings there.

    Raises:
        InputError: it holds a run with other settings.
    """
    path = output / "settings.json"
    if not path.is_file():
        output.mkdir(parents=True, exist_ok=True)
        write_json(path, settings)
    elif json.loads(path.read_text()) != json.loads(json.dumps(settings)):
        raise InputError(f"{output} has other settings: choose another --output")
