"""Our surfaces beside what else one could make of the same views on the same machine.

    python benchmarks/reconstruction_tools.py OBJECT ... --output DIR
        [--open3d PYTHON] [--neus CHECKOUT [--neus-python PYTHON]] [key=value ...]

Each object is rendered from 16 sides at elevation 20. Ours: NeuS with M interpolated views and with
none; the visual hull of the views, not closed by our rule. With
--open3d, an environment that has it: its TSDF fusion and its screened Poisson reconstruction, of
the splats' depth at the given and the interpolated views (what there is without a depth camera),
and of the true depth at the given ones (what they could do at best). With --neus, the authors' own
code for a bounded time (see reconstruction_with_neus.py for what it needs).

Scores are Chamfer distances (whole surface; seen from the orbit) and IoU at 128^3. Seconds go from
views to an untextured mesh and hold the splats where a method needs them. What is there already is
not done again; objects may have different tools. Writes `results.json` and `results.md`.
"""

import json
import os
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from common import ELEVATION_DEG, Truth, keep_settings, timed, truth_of
from torch import Tensor

from hi3d.assets.load import load_object
from hi3d.cameras import orbit_cameras
from hi3d.command_line import make_parser, parse_arguments, run
from hi3d.config import config_to_dict, load_config
from hi3d.errors import InputError
from hi3d.evaluation.tables import Results, mean_over_objects
from hi3d.files import atomic_path, write_json
from hi3d.mesh import SurfaceMesh
from hi3d.pipelines.views_to_mesh import MeshReconstructionConfig, fit_splats_from_hull
from hi3d.progress import console
from hi3d.rendering.rasterizer import render_views
from hi3d.splats import GaussianSplats
from hi3d.splatting.fit import render_between_views
from hi3d.splatting.rasterization.render import rasterize
from hi3d.surface.grid import GridField
from hi3d.surface.meshing import extract_mesh
from hi3d.surface.neus.fit import fit_neus
from hi3d.surface.visual_hull import FOREGROUND_ALPHA, HALF_EXTENT, hull_sdf
from hi3d.views import Views, concatenate_views

OPEN3D_SCRIPT = Path(__file__).parent / "other_tools/reconstruction_with_open3d.py"
NEUS_SCRIPT = Path(__file__).parent / "other_tools/reconstruction_with_neus.py"
OPEN3D_NAMES = {"tsdf": "Open3D TSDF", "poisson": "Open3D Poisson"}
COLUMNS = {
    "CPU s": ".0f",
    "s": ".0f",
    "Chamfer": ".4f",
    "seen Chamfer": ".4f",
    "IoU128": ".3f",
    "steps": ".0f",
}
"""Scores of the table and how they are printed."""
NEUS_RADIUS = 0.9  # of the sphere that is the world of the authors' code; corners are at 0.87


@dataclass
class ToolsConfig(MeshReconstructionConfig):
    """Settings of our reconstruction, and of the benchmark around it."""

    interpolated_views: int = 16
    """M of the methods that have interpolated views, at least 1."""
    resolution: int = 256
    """Side of the rendered views in pixels."""
    seed: int = 0
    neus_minutes: float = 15.0
    """CPU time, or time by the clock with CUDA, for the authors' code."""
    neus_rays: int = 128
    """Of a step; the authors' 512 leave few steps on a CPU."""
    neus_samples: int = 32
    """Along a ray; the authors have 128."""


def measure_ours(path: Path, folder: Path, truth: Truth, config: ToolsConfig) -> Results:
    """Our methods; writes the depth maps that Open3D gets."""
    cameras = orbit_cameras(ELEVATION_DEG, config.resolution)
    rendered = render_views(load_object(path), cameras)
    views = rendered.views
    write_depth(folder / "true depth", views, rendered.depth, 0.0, 0.0)

    def hull() -> SurfaceMesh:
        sdf = hull_sdf(views, 128, HALF_EXTENT)
        grid = GridField(sdf, torch.zeros(*sdf.shape, 3), HALF_EXTENT)
        return extract_mesh(grid, replace(config.meshing, flatten_unseen_side=False))

    def between_views_added() -> tuple[GaussianSplats, Views]:
        splats = fit_splats_from_hull(views, config.splats, config.seed)
        between = render_between_views(splats, cameras, config.interpolated_views)
        return splats, concatenate_views(views, between)

    (splats, all_views), *splats_seconds = timed(between_views_added)
    depth, *depth_seconds = timed(lambda: splat_depth(splats, all_views))
    seconds = [a + b for a, b in zip(splats_seconds, depth_seconds, strict=True)]
    write_depth(folder / "splat depth", all_views, depth, *seconds)

    def neus(inputs: Views) -> SurfaceMesh:
        grid = fit_neus(inputs, config.neus, config.seed)
        return extract_mesh(grid, config.meshing, cameras)

    none = [0.0, 0.0]
    methods = {
        "visual hull": (hull, none),
        "NeuS, M = 0": (lambda: neus(views), none),
        f"NeuS, M = {config.interpolated_views}": (
            lambda: neus(all_views),
            splats_seconds,
        ),
    }
    scores = {}
    for name, (method, before) in methods.items():
        mesh, wall, cpu = timed(method)
        scores[name] = {"CPU s": cpu + before[1], "s": wall + before[0], **truth.score(mesh)}
    return scores


def splat_depth(splats: GaussianSplats, views: Views) -> Tensor:
    """Depth [V, H, W] of splats where the views show the object, else 0."""
    with torch.no_grad():
        maps = [rasterize(splats, views.cameras[view]).depth[0, 0] for view in range(len(views))]
    return torch.where(views.alpha[:, 0] >= FOREGROUND_ALPHA, torch.stack(maps), 0.0)


def write_depth(folder: Path, views: Views, depth: Tensor, wall: float, cpu: float) -> None:
    """Write what `reconstruction_with_open3d.py` reads, and the seconds that it took to get."""
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(
        folder / "views.npz",
        rgb=(views.rgb * 255).round().byte().permute(0, 2, 3, 1).numpy(),
        depth=depth.float().numpy(),
        viewmats=views.cameras.viewmats.double().numpy(),
        Ks=views.cameras.Ks.double().numpy(),
    )
    write_json(folder / "seconds.json", [wall, cpu])


def measure_open3d(folder: Path, truth: Truth, python: str) -> Results:
    """Open3D's methods on both kinds of depth."""
    scores = {}
    kinds = ["splat depth", "true depth"]
    lines = output_of([python, str(OPEN3D_SCRIPT), *(str(folder / kind) for kind in kinds)])
    for kind, line in zip(kinds, lines[-len(kinds) :], strict=True):
        before = json.loads((folder / kind / "seconds.json").read_text())
        for name, (wall, cpu) in json.loads(line).items():
            mesh = read_mesh(folder / kind / f"{name}.npz")
            row = f"{OPEN3D_NAMES[name]}, {kind}"
            scores[row] = {"CPU s": cpu + before[1], "s": wall + before[0], **truth.score(mesh)}
    return scores


def measure_neus(
    path: Path, folder: Path, truth: Truth, config: ToolsConfig, checkout: Path, python: str
) -> Results:
    """The authors' NeuS, for a bounded time."""
    cameras = orbit_cameras(ELEVATION_DEG, config.resolution)
    write_neus_views(folder / "neus" / "data", render_views(load_object(path), cameras).views)
    numbers = [config.neus_minutes, config.neus_rays, config.neus_samples]
    lines = output_of(
        [python, str(NEUS_SCRIPT), str(checkout), str(folder / "neus"), *map(str, numbers)],
        {"PYTHONPATH": os.pathsep.join([str(checkout), os.environ.get("PYTHONPATH", "")])},
    )
    report = json.loads(lines[-1])
    mesh = read_mesh(folder / "neus" / "mesh.npz")
    name = f"the authors' NeuS, {config.neus_minutes:g} min"
    wall, cpu = report["seconds"]
    return {name: {"CPU s": cpu, "s": wall, **truth.score(mesh), "steps": report["steps"]}}


def write_neus_views(folder: Path, views: Views) -> None:
    """Write views in the layout of the authors' code (its readme, "Data Convention")."""
    from PIL import Image

    pixels = (views.rgb * 255).round().byte().permute(0, 2, 3, 1).numpy()
    masks = (views.alpha[:, 0] >= FOREGROUND_ALPHA).byte().numpy() * 255
    arrays = {}
    # Its pixel centers are whole numbers, ours half ones.
    to_centres = np.eye(4)
    to_centres[:2, 2] = -0.5
    for part in ("image", "mask"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for view in range(len(views)):
        Image.fromarray(pixels[view]).save(folder / "image" / f"{view:03d}.png")
        Image.fromarray(masks[view]).save(folder / "mask" / f"{view:03d}.png")
        K = np.eye(4)
        K[:3, :3] = views.cameras.Ks[view].double().numpy()
        viewmat = views.cameras.viewmats[view].double().numpy()
        arrays[f"world_mat_{view}"] = to_centres @ K @ viewmat
        arrays[f"scale_mat_{view}"] = np.diag([NEUS_RADIUS] * 3 + [1.0])
    np.savez(folder / "cameras_sphere.npz", **arrays)


def output_of(command: list[str], environment: dict[str, str] | None = None) -> list[str]:
    """The lines a program prints.

    Raises:
        InputError: it failed.
    """
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, **(environment or {})}
    )
    if done.returncode != 0:
        raise InputError(f"{' '.join(command[:2])} failed: see above")
    return done.stdout.strip().split("\n")


def read_mesh(path: Path) -> SurfaceMesh:
    """A mesh of another program, gray."""
    with np.load(path) as file:
        vertices, faces = torch.from_numpy(file["vertices"]), torch.from_numpy(file["faces"])
    return SurfaceMesh(vertices, faces, torch.full_like(vertices, 0.5))


def summarise(output: Path, paths: list[Path]) -> str:
    """Write and return the table: each method's mean over the objects that have it."""
    rows: dict[str, dict[str, dict[str, float]]] = {}
    for path in paths:
        for file in ("ours", "open3d", "neus"):
            found = output / path.stem / f"{file}.json"
            if found.is_file():
                for method, scores in json.loads(found.read_text()).items():
                    rows.setdefault(method, {})[path.stem] = scores
    means = {method: mean_over_objects(of_objects) for method, of_objects in rows.items()}
    write_json(output / "results.json", {"objects": rows, "means": means})
    lines = [
        f"| method | objects | {' | '.join(COLUMNS)} |",
        "|---" + "|---:" * (len(COLUMNS) + 1) + "|",
    ]
    for method, mean in means.items():
        cells = [
            format(mean[name], style) if name in mean else "–" for name, style in COLUMNS.items()
        ]
        lines.append(f"| {method} | {len(rows[method])} | {' | '.join(cells)} |")
    table = "\n".join(lines) + "\n"
    with atomic_path(output / "results.md") as partial:
        partial.write_text(table)
    return table


def main() -> None:
    parser = make_parser(
        __doc__.split("\n")[0],
        "benchmarks/reconstruction_tools.py cup.glb --output outputs/tools --open3d env/bin/python",
    )
    parser.add_argument("objects", nargs="+", type=Path, metavar="OBJECT")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--open3d", metavar="PYTHON", help="of an environment with Open3D")
    parser.add_argument("--neus", type=Path, metavar="CHECKOUT", help="of the authors' NeuS")
    parser.add_argument("--neus-python", metavar="PYTHON", default="python")
    arguments = parse_arguments(parser)
    config = load_config(ToolsConfig, arguments.config, arguments.overrides)
    if config.interpolated_views < 1:
        raise InputError("interpolated_views must be at least 1: NeuS without is measured anyway")
    settings = config_to_dict(config)
    for name in ("neus_minutes", "neus_rays", "neus_samples"):
        settings.pop(name)
    keep_settings(arguments.output, settings)
    for path in arguments.objects:
        folder = arguments.output / path.stem
        folder.mkdir(exist_ok=True)
        truth = truth_of(path)
        if not (folder / "ours.json").is_file():
            write_json(folder / "ours.json", measure_ours(path, folder, truth, config))
        if arguments.open3d and not (folder / "open3d.json").is_file():
            write_json(folder / "open3d.json", measure_open3d(folder, truth, arguments.open3d))
        if arguments.neus and not (folder / "neus.json").is_file():
            python, checkout = arguments.neus_python, arguments.neus.resolve()
            scores = measure_neus(path, folder, truth, config, checkout, python)
            write_json(folder / "neus.json", scores)
        table = summarise(arguments.output, arguments.objects)
    console.print(table, markup=False)


if __name__ == "__main__":
    run(main)
