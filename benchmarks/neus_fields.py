"""The fields of NeuS side by side: grid and MLP, given the same time.

    python benchmarks/neus_fields.py OBJECT [OBJECT ...] [seconds=60 key=value ...]

Renders 16 views of each object at elevation 20 and fits each field to them. The grid takes its
default steps; each network as many as fit into `seconds`, found by timing a few. Prints seconds
and Chamfer distances (whole surface; seen from the orbit), and their ratios to the grid's. This
says which field suits the device it is run on.
"""

import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from reconstruction import ELEVATION_DEG, SEEN_RESOLUTION, ground_truth

from hi3d.assets.load import load_object
from hi3d.cameras import orbit_cameras
from hi3d.command_line import make_parser, parse_arguments, run
from hi3d.config import load_config
from hi3d.errors import InputError
from hi3d.evaluation.mesh_metrics import chamfer_distance, seen_chamfer_distance
from hi3d.evaluation.tables import Results, markdown_table, mean_over_objects
from hi3d.progress import console
from hi3d.rendering.rasterizer import render_views
from hi3d.surface.meshing import MeshingConfig, extract_mesh
from hi3d.surface.neus.config import NeusConfig
from hi3d.surface.neus.fit import fit_neus
from hi3d.surface.neus.networks import FieldKind
from hi3d.views import Views

TIMED_STEPS = 12
SCORES = ("seconds", "Chamfer", "seen Chamfer")


@dataclass
class FieldsConfig:
    """Settings of the benchmark."""

    resolution: int = 256
    """Side of the views in pixels."""
    seconds: float = 60.0
    """For each network."""
    seed: int = 0
    neus: NeusConfig = field(default_factory=NeusConfig)
    meshing: MeshingConfig = field(default_factory=MeshingConfig)


def steps_within(views: Views, config: NeusConfig, seconds: float, seed: int) -> int:
    """Steps of a fit that take so long."""

    def timed(steps: int) -> float:
        start = time.perf_counter()
        fit_neus(views, replace(config, steps=steps), seed)
        return time.perf_counter() - start

    timed(1)
    fixed = timed(1)
    per_step = max((timed(1 + TIMED_STEPS) - fixed) / TIMED_STEPS, 1e-6)
    return max(1, int((seconds - fixed) / per_step))


def measure(path: Path, kind: FieldKind, config: FieldsConfig) -> dict[str, float]:
    """Fit one field to one object and score it."""
    cameras = orbit_cameras(ELEVATION_DEG, config.resolution)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    views = render_views(load_object(path), cameras).views.to(device)
    neus = replace(config.neus, field=kind)
    if kind is not FieldKind.grid:
        neus = replace(neus, steps=steps_within(views, neus, config.seconds, config.seed))
    start = time.perf_counter()
    fitted = fit_neus(views, neus, config.seed)
    seconds = time.perf_counter() - start
    mesh = extract_mesh(fitted, config.meshing, views.cameras).to("cpu")
    truth = ground_truth(path)
    seen = cameras.resized(SEEN_RESOLUTION, SEEN_RESOLUTION)
    return {
        "steps": neus.steps,
        "seconds": seconds,
        "Chamfer": chamfer_distance(mesh, truth),
        "seen Chamfer": seen_chamfer_distance(mesh, truth, seen),
    }


def main() -> None:
    parser = make_parser(__doc__.split("\n")[0], "benchmarks/neus_fields.py object.glb seconds=60")
    parser.add_argument("objects", nargs="+", type=Path, metavar="OBJECT")
    arguments = parse_arguments(parser)
    config = load_config(FieldsConfig, arguments.config, arguments.overrides)
    for path in arguments.objects:
        if not path.is_file():
            raise InputError(f"no file {path}: give GLB files")
    rows: Results = {}
    for kind in FieldKind:
        scores = {path.stem: measure(path, kind, config) for path in arguments.objects}
        rows[kind.value] = mean_over_objects(scores)
    console.print(markdown_table(rows, 4, "mean"))
    for name, scores in rows.items():
        ratios = [f"{key} {scores[key] / rows['grid'][key]:.2f}x" for key in SCORES]
        console.print(f"{name} against grid: {', '.join(ratios)}")


if __name__ == "__main__":
    run(main)
