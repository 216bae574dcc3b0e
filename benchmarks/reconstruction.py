"""Views to mesh against the visual hull and against what the same views can give at best.

    python benchmarks/reconstruction.py OBJECTS --output DIR [--only NAME ...] [key=value ...]

OBJECTS is a folder of GLB files; those in objects/reconstruction.yaml are used. For each, 16 views
at elevation 20 are rendered and reconstructed, and 8 views between them are kept for testing.
Beside our mesh stand the visual hull of the views and the ceiling: fusion of the true depth, closed
by the same rule. Every object has its own process; a run that was stopped goes on where it was, and
several runs may share the work with an --only list each.
Writes `results.json`, `results.md` and per object a sheet of pictures. Objects with cavities, which
no orbit sees well, are averaged apart.
"""

import json
import math
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch
from common import ELEVATION_DEG, truth_of
from omegaconf import OmegaConf
from PIL import Image, ImageDraw

from hi3d.assets.load import load_object
from hi3d.cameras import between_views, cameras_at, orbit_cameras
from hi3d.command_line import make_parser, parse_arguments, run
from hi3d.config import config_to_dict, load_config
from hi3d.errors import InputError
from hi3d.evaluation.tables import Results, markdown_table, mean_over_objects
from hi3d.evaluation.view_metrics import psnr
from hi3d.files import atomic_path, write_json
from hi3d.mesh import SurfaceMesh
from hi3d.pipelines.pictures import render_mesh, render_shape, to_pixels
from hi3d.pipelines.run_folder import RunFolder
from hi3d.pipelines.views_to_mesh import MeshReconstructionConfig, reconstruct_mesh
from hi3d.progress import console
from hi3d.rendering.rasterizer import render_views
from hi3d.splats import GaussianSplats
from hi3d.splatting.fit import render_between_views
from hi3d.surface.grid import GridField
from hi3d.surface.meshing import extract_mesh
from hi3d.surface.tsdf import fuse_depth
from hi3d.surface.visual_hull import HALF_EXTENT, hull_sdf

NUM_UNSEEN = 8
GRIDS = ("IoU64", "IoU128")
OBJECT_LIST = Path(__file__).with_name("objects") / "reconstruction.yaml"
SHEET_CELL = 256
SHEET_AZIMUTHS_DEG, SHEET_ELEVATIONS_DEG = (30.0, 150.0, 270.0), (20.0, 45.0, -30.0)


@dataclass
class BenchmarkConfig(MeshReconstructionConfig):
    """Settings of the reconstruction, and of the benchmark around it."""

    resolution: int = 256
    """Side of the rendered views in pixels."""
    seed: int = 0


def measure(path: Path, output: Path, config: BenchmarkConfig) -> dict[str, float]:
    """Reconstruct one object and score the result; writes `output/sheet.png`."""
    cameras = orbit_cameras(ELEVATION_DEG, config.resolution)
    unseen = between_views(cameras, NUM_UNSEEN)
    object = load_object(path)
    rendered = render_views(object, cameras)
    views, truth = rendered.views, truth_of(path, GRIDS)
    unseen_rgb = render_views(object, unseen).rgb

    run_folder = RunFolder(output, {"object": path.stem}, config_to_dict(config), config.seed, True)
    mesh = reconstruct_mesh(views, run_folder, config, config.seed)
    ceiling = extract_mesh(fuse_depth(views, rendered.depth), config.meshing, cameras)
    sdf = hull_sdf(views, 128, HALF_EXTENT)
    hull_field = GridField(sdf, torch.zeros(*sdf.shape, 3), HALF_EXTENT)
    # Without the closing rule: the plain baseline, with its cone below.
    hull = extract_mesh(hull_field, replace(config.meshing, flatten_unseen_side=False))

    scores: dict[str, float] = {}
    for label, candidate in (("", mesh), ("ceiling ", ceiling), ("hull ", hull)):
        found = truth.score(candidate, GRIDS)
        scores |= {f"{label}{name}": value for name, value in found.items()}
    splats = GaussianSplats.load_ply(output / "splats.ply")
    splat_views = render_between_views(splats, cameras, NUM_UNSEEN)
    scores["splats PSNR"] = psnr(splat_views.rgb, unseen_rgb).mean().item()
    scores["mesh PSNR"] = psnr(render_mesh(mesh, unseen).rgb, unseen_rgb).mean().item()
    for step, facts in run_folder.report.content["steps"].items():
        for fact in ("seconds", "cpu_seconds", "peak_memory_gb"):
            if fact in facts:
                scores[f"{step} {fact}"] = facts[fact]
    steps = run_folder.report.content["steps"].values()
    for fact in ("seconds", "cpu_seconds"):
        if all(fact in facts for facts in steps):  # a step's cost is lost if it was stopped there
            scores[fact] = sum(facts[fact] for facts in steps)
    write_sheet(output / "sheet.png", path, truth.mesh, mesh, ceiling)
    return scores


def write_sheet(
    path: Path, source: Path, truth: SurfaceMesh, mesh: SurfaceMesh, ceiling: SurfaceMesh
) -> None:
    """Ground truth, ours and ceiling from three sides: from the orbit, above and below."""
    cameras = cameras_at(
        torch.tensor(SHEET_AZIMUTHS_DEG), torch.tensor(SHEET_ELEVATIONS_DEG), SHEET_CELL
    )
    columns = {
        "ground truth": render_views(load_object(source), cameras).rgb,
        "ours": render_mesh(mesh, cameras).rgb,
        "ground truth, shape": render_shape(truth, cameras).rgb,
        "ours, shape": render_shape(mesh, cameras).rgb,
        "ceiling, shape": render_shape(ceiling, cameras).rgb,
    }
    sheet = Image.new("RGB", (SHEET_CELL * len(columns), SHEET_CELL * len(cameras) + 16), "white")
    draw = ImageDraw.Draw(sheet)
    for column, (label, pictures) in enumerate(columns.items()):
        draw.text((column * SHEET_CELL + 4, 2), label, fill="black")
        for row, pixels in enumerate(to_pixels(pictures)):
            sheet.paste(Image.fromarray(pixels), (column * SHEET_CELL, row * SHEET_CELL + 16))
    with atomic_path(path) as partial:
        sheet.save(partial)


def summarise(output: Path, kinds: dict[str, list[str]]) -> dict[str, Results]:
    """Read the scores that are there, write the tables, and return the scores by kind."""
    found: dict[str, Results] = {}
    for kind, names in kinds.items():
        paths = {name: output / name / "scores.json" for name in names}
        rows = {n: json.loads(p.read_text())["scores"] for n, p in paths.items() if p.is_file()}
        if rows:
            found[kind] = rows
    means = {f"mean of {len(rows)} {kind}": mean_over_objects(rows) for kind, rows in found.items()}
    finite = {
        label: {name: value if math.isfinite(value) else None for name, value in mean.items()}
        for label, mean in means.items()
    }
    write_json(output / "results.json", {"objects": found, "means": finite})
    tables = [markdown_table({**rows}, 4) for rows in found.values()]
    tables.append(markdown_table(means, 4, "mean"))
    with atomic_path(output / "results.md") as partial:
        partial.write_text("\n".join(tables))
    for label, mean in means.items():
        chamfer, ceiling = mean["Chamfer"], mean["ceiling Chamfer"]
        console.print(
            f"{label}: Chamfer {chamfer:.4f} = {chamfer / ceiling:.2f}x the ceiling, hull "
            f"{mean['hull Chamfer'] / chamfer:.2f}x ours; IoU128 {mean['IoU128']:.3f} = "
            f"{mean['IoU128'] / mean['ceiling IoU128']:.3f}x the ceiling; splats "
            f"{mean['splats PSNR']:.1f} dB, mesh {mean['mesh PSNR']:.1f} dB; "
            f"{mean['cpu_seconds']:.0f} CPU seconds, {mean['seconds']:.0f} s"
        )
    return found


def main() -> None:
    parser = make_parser(
        __doc__.split("\n")[0],
        "benchmarks/reconstruction.py objects --output outputs/reconstruction",
    )
    parser.add_argument("objects", type=Path, metavar="OBJECTS", help="folder of GLB files")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these objects of the list")
    parser.add_argument("--in-process", action="store_true", help="do one object here")
    arguments = parse_arguments(parser)
    config = load_config(BenchmarkConfig, arguments.config, arguments.overrides)
    kinds = cast(dict[str, list[str]], OmegaConf.to_object(OmegaConf.load(OBJECT_LIST)))
    listed = [name for names in kinds.values() for name in names]
    names = arguments.only or listed
    for name in names:
        if not (arguments.objects / f"{name}.glb").is_file():
            raise InputError(f"no {name}.glb in {arguments.objects}: give the folder of objects")
    if not set(names) <= set(listed):  # objects of the user's own
        kinds["others"] = [name for name in names if name not in listed]
    if arguments.in_process:
        (name,) = names
        folder = arguments.output / name
        scores = measure(arguments.objects / f"{name}.glb", folder, config)
        write_json(folder / "scores.json", {"config": config_to_dict(config), "scores": scores})
        return
    settings = [*(["--config", arguments.config] if arguments.config else []), *arguments.overrides]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends the object's process as well
    failed = []
    for name in names:
        done = arguments.output / name / "scores.json"
        if done.is_file():
            if json.loads(done.read_text())["config"] != json.loads(
                json.dumps(config_to_dict(config))
            ):
                raise InputError(f"{done.parent} has other settings: choose another --output")
            continue
        words = [str(arguments.objects), "--output", str(arguments.output), "--only", name]
        command = [sys.executable, __file__, *words, "--in-process", "--quiet", *settings]
        if subprocess.run(command).returncode != 0:
            failed.append(name)
        summarise(arguments.output, kinds)
    summarise(arguments.output, kinds)
    if failed:
        raise InputError(f"{len(failed)} objects failed ({', '.join(failed)}): see above")


if __name__ == "__main__":
    run(main)
