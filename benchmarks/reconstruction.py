"""Views to mesh against the visual hull of the same views.

    python benchmarks/reconstruction.py OBJECT [OBJECT ...] --output DIR [key=value ...]

Renders 16 views of each object at elevation 20, reconstructs them (splats, 16 interpolated views,
NeuS, texture), and scores the mesh and the visual hull against the object: Chamfer distance on
100,000 points, volume IoU at 64^3 over [-1, 1]^3, and the PSNR of the re-rendered textured mesh at
16 unseen views between the given ones. Prints a table and the ratio of the Chamfer distances.
"""

import time
from pathlib import Path

import torch

from hi3d.cameras import between_views, orbit_cameras
from hi3d.command_line import make_parser, parse_arguments, run
from hi3d.config import config_to_dict, load_config
from hi3d.evaluation.mesh_metrics import score_mesh
from hi3d.evaluation.tables import mean_over_objects, write_results
from hi3d.evaluation.view_metrics import psnr
from hi3d.pipelines.pictures import render_mesh
from hi3d.pipelines.run_folder import RunFolder
from hi3d.pipelines.views_to_mesh import MeshReconstructionConfig, reconstruct_mesh
from hi3d.progress import console
from hi3d.reconstruction.meshing import extract_mesh
from hi3d.reconstruction.neus.fields import GridField
from hi3d.reconstruction.splats import fit_splats, render_between_views
from hi3d.reconstruction.visual_hull import hull_sdf
from hi3d.rendering.objects import load_object
from hi3d.rendering.rasterizer import render_views
from hi3d.surface_mesh import SurfaceMesh

ELEVATION_DEG = 20.0
RESOLUTION = 128


def ground_truth(path: str) -> SurfaceMesh:
    """The normalised object as one mesh, without colours."""
    vertices, faces, count = [], [], 0
    for part in load_object(path).parts:
        vertices.append(torch.as_tensor(part.vertices, dtype=torch.float32))
        faces.append(torch.as_tensor(part.faces, dtype=torch.int64) + count)
        count += len(part.vertices)
    return SurfaceMesh(torch.cat(vertices), torch.cat(faces), torch.zeros(count, 3))


def main() -> None:
    parser = make_parser(
        __doc__.split("\n")[0], "benchmarks/reconstruction.py cup.glb --output out"
    )
    parser.add_argument("objects", nargs="+", metavar="OBJECT")
    parser.add_argument("--output", required=True, metavar="DIR")
    arguments = parse_arguments(parser)
    config = load_config(MeshReconstructionConfig, arguments.config, arguments.overrides)
    results: dict[str, dict[str, float]] = {}
    for path in arguments.objects:
        name = Path(path).stem
        cameras = orbit_cameras(ELEVATION_DEG, RESOLUTION)
        between = between_views(cameras, 16)
        views = render_views(load_object(path), cameras).views
        unseen = render_views(load_object(path), between).views
        truth = ground_truth(path)
        output = Path(arguments.output) / name
        start = time.perf_counter()
        run_folder = RunFolder(output, {"object": name}, config_to_dict(config), 0, resume=False)
        mesh = reconstruct_mesh(views, run_folder, config, seed=0)
        seconds = time.perf_counter() - start
        sdf = hull_sdf(views, 128, config.neus.half_extent)
        hull = extract_mesh(
            GridField(sdf, torch.zeros(*sdf.shape, 3), config.neus.half_extent), config.meshing
        )
        ours, baseline = score_mesh(mesh, truth), score_mesh(hull, truth)
        splats = fit_splats(views, config.splats)
        splat_views = render_between_views(splats, cameras, 16)
        results[name] = {
            "hull Chamfer": baseline.chamfer_distance,
            "Chamfer": ours.chamfer_distance,
            "hull IoU": baseline.volume_iou,
            "IoU": ours.volume_iou,
            "splats PSNR": psnr(splat_views.rgb, unseen.rgb).mean().item(),
            "mesh PSNR": psnr(render_mesh(mesh, between).rgb, unseen.rgb).mean().item(),
            "seconds": seconds,
        }
        scores = ", ".join(f"{key} {value:.4f}" for key, value in results[name].items())
        console.print(f"{name}: {scores}", soft_wrap=True)
    mean = mean_over_objects(results)
    ratio = mean["hull Chamfer"] / mean["Chamfer"]
    console.print(f"Chamfer of the visual hull over ours: {ratio:.2f}x")
    write_results(Path(arguments.output) / "scores.json", results)


if __name__ == "__main__":
    run(main)
