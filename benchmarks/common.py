"""What the benchmarks share: objects, true views and scores, perturbed views, timing, settings."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from kornia.filters import gaussian_blur2d
from torch import Tensor

from hi3d.assets.load import load_object
from hi3d.cameras import Cameras, orbit_cameras
from hi3d.errors import InputError
from hi3d.evaluation.mesh_metrics import chamfer_distance, inside_grid, seen_chamfer_distance
from hi3d.files import write_json
from hi3d.mesh import SurfaceMesh
from hi3d.views import Views

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


def check_objects(paths: list[Path]) -> None:
    """Refuse files that are not there, and two of one name.

    Raises:
        InputError: one of these.
    """
    for path in paths:
        if not path.is_file():
            raise InputError(f"no file {path}: give object files, such as GLB")
    if len({path.stem for path in paths}) < len(paths):
        raise InputError("two objects have the same name: rename one of the files")


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


def perturb(views: Views, warp: float, color_shift: float, generator: torch.Generator) -> Views:
    """Views that no longer agree, each changed for itself, as generated ones are.

    Args:
        views: V views.
        warp: largest displacement as a share of the image's side.
        color_shift: largest change of a channel's gain; half of it of its offset.
        generator: on the CPU.
    """
    num, _, height, width = views.rgb.shape

    def uniform(*shape: int) -> Tensor:
        return 2 * torch.rand(*shape, generator=generator) - 1

    # Displacements at 5 x 5 points, smoothly between; grid_sample's image has a side of 2.
    coarse = 2 * warp * uniform(num, 2, 5, 5)
    flow = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    identity = torch.eye(2, 3).repeat(num, 1, 1)
    grid = torch.nn.functional.affine_grid(identity, [num, 4, height, width], align_corners=False)
    rgba = torch.cat([views.rgb - 1, views.alpha], dim=1)  # 0 beyond the border is white, empty
    rgba = torch.nn.functional.grid_sample(
        rgba, grid + flow.permute(0, 2, 3, 1), align_corners=False
    )
    rgb, alpha = rgba[:, :3] + 1, rgba[:, 3:].clamp(0, 1)
    gain, offset = color_shift * uniform(num, 3, 1, 1), color_shift / 2 * uniform(num, 3, 1, 1)
    rgb = rgb + gain * (rgb - (1 - alpha)) + offset * alpha
    share = 0.5 * torch.rand(num, 1, 1, 1, generator=generator)  # of a blur of 1.5 px
    rgb = 1 + torch.lerp(rgb - 1, gaussian_blur2d(rgb - 1, (11, 11), (1.5, 1.5), "constant"), share)
    return Views(rgb.clamp(0, 1), alpha, views.cameras)
