"""Scoring views and meshes against a loop over the protocol's steps, with the differences.

    python benchmarks/evaluation.py --output DIR [OBJECT ...] [--objects 30] [--methods 3]

Each object is a mesh of primitives (or OBJECT in turn) with views of its own; each method's output
is the truth, blurred and moved a little. The loop goes view by view, as the published script does:
torchmetrics' SSIM, LPIPS of whole images, Embree's depth through trimesh, points sorted into voxels
by numpy, SciPy's KD-tree, winding numbers at 64^3; nothing is kept between methods. Both run on one
thread in one process; CPU seconds are printed, and what two processes would take.
"""

from functools import partial
from pathlib import Path

import igl
import numpy as np
import torch
import trimesh
from common import timed
from scipy.spatial import cKDTree
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from hi3d.assets.surface_mesh import load_mesh, surface_mesh_to_object
from hi3d.command_line import make_parser, parse_arguments, run
from hi3d.errors import InputError
from hi3d.evaluation.mesh_files import normalised
from hi3d.evaluation.protocols.depth_points import syncdreamer_cameras
from hi3d.evaluation.protocols.protocol import SYNCDREAMER
from hi3d.evaluation.protocols.scores import score_object
from hi3d.files import write_json
from hi3d.images.lpips import Lpips
from hi3d.mesh import SurfaceMesh
from hi3d.rendering.rasterizer import render_views

SIZE, FOCAL, DISTANCE = 256, 280.0, 1.5
NEAR, FAR = 0.6, 2.4
VALID = (0.63, 2.37)
VOXEL = 0.01
CORES = 2

Output = tuple[Tensor, SurfaceMesh]


def primitive(number: int) -> SurfaceMesh:
    """A few boxes, balls and rings side by side, longest side 1."""
    draw = np.random.default_rng(number)
    makers = [
        lambda: trimesh.creation.box(draw.uniform(0.2, 0.8, 3)).subdivide_to_size(0.1),
        lambda: trimesh.creation.icosphere(4, draw.uniform(0.2, 0.4)),
        lambda: trimesh.creation.torus(draw.uniform(0.3, 0.5), draw.uniform(0.05, 0.15)),
        lambda: trimesh.creation.cylinder(draw.uniform(0.1, 0.3), draw.uniform(0.4, 1.0)),
    ]
    parts = []
    for maker in draw.permutation(len(makers))[:2]:
        part = makers[maker]()
        parts.append(part.apply_translation(draw.uniform(-0.3, 0.3, 3)))
    vertices = torch.cat([torch.tensor(part.vertices, dtype=torch.float32) for part in parts])
    starts = np.cumsum([0, *(len(part.vertices) for part in parts)])
    faces = [
        torch.tensor(part.faces) + int(start) for part, start in zip(parts, starts, strict=False)
    ]
    rgb = torch.sin(9 * vertices + number).mul(0.4).add(0.5)
    return normalised(SurfaceMesh(vertices, torch.cat(faces), rgb))[0]


def truth_of(mesh: SurfaceMesh) -> Output:
    """Views of the protocol's cameras, and the mesh."""
    rendered = render_views(surface_mesh_to_object(mesh), syncdreamer_cameras())
    return rendered.rgb, mesh


def output_of(truth: Output, method: int) -> Output:
    """What a method might have made: views blurred, the mesh moved."""
    views, mesh = truth
    blurred = 1 - torch.nn.functional.avg_pool2d(1 - views, 2 * method + 3, 1, method + 1)
    moved = mesh.vertices + 0.01 * (method + 1) * torch.sin(7 * mesh.vertices.flip(1))
    return blurred.clamp(0, 1), SurfaceMesh(moved, mesh.faces, mesh.vertex_rgb)


def loop_scores(output: Output, truth: Output, lpips: Lpips) -> dict[str, float]:
    """The protocol's steps one after the other."""
    psnrs, ssims, distances = [], [], []
    for view, true in zip(*(views for views, _ in (output, truth)), strict=True):
        psnrs.append(-10 * float(((view - true).double() ** 2).mean().log10()))
        similarity = structural_similarity_index_measure(view[None], true[None])
        assert isinstance(similarity, Tensor)
        ssims.append(similarity.item())
        distances.append(lpips(view[None], true[None]).item())
    clouds = [
        loop_points(mesh, rendered) for (_, mesh), rendered in ((output, False), (truth, True))
    ]
    there = cKDTree(clouds[1]).query(clouds[0])[0].mean()
    back = cKDTree(clouds[0]).query(clouds[1])[0].mean()
    first, second = (loop_inside(mesh) for _, mesh in (output, truth))
    return {
        "psnr": float(np.mean(psnrs)),
        "ssim": float(np.mean(ssims)),
        "lpips": float(np.mean(distances)),
        "chamfer": float(there + back) / 2,
        "iou64": float((first & second).sum() / (first | second).sum()),
    }


def loop_points(mesh: SurfaceMesh, rendered: bool) -> np.ndarray:
    """Points seen by the 16 cameras, one a voxel. [N, 3]"""
    from trimesh.ray.ray_pyembree import RayMeshIntersector

    solid = trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), process=False)
    caster, elevation, points = RayMeshIntersector(solid), np.deg2rad(30), []
    inverse = np.linalg.inv(np.array([[FOCAL, 0, SIZE / 2], [0, FOCAL, SIZE / 2], [0, 0, 1]]))
    y, x = np.mgrid[:SIZE, :SIZE].reshape(2, -1)
    for azimuth in np.deg2rad(np.arange(16) * 22.5):
        ca, sa, ce, se = np.cos(azimuth), np.sin(azimuth), np.cos(elevation), np.sin(elevation)
        rotation = np.array([[-sa, ca, 0], [ca * se, sa * se, -ce], [-ca * ce, -sa * ce, -se]])
        center = np.array([ca * ce, sa * ce, se]) * DISTANCE
        rays = np.stack([x + 0.5, y + 0.5, np.ones(len(x))], 1) @ inverse.T @ rotation
        place, ray, face = caster.intersects_location(
            np.tile(center, (len(x), 1)), rays, multiple_hits=False
        )
        depth = (place - center) @ rotation[2]
        if rendered:
            level = np.round((depth - NEAR) / (FAR - NEAR) * 65535)
            depth = level / 65535 * (FAR - NEAR) + NEAR
        else:  # linear in the image of the triangle
            corners = solid.vertices[solid.faces[face]]
            weights = trimesh.triangles.points_to_barycentric(corners, place)
            z = (corners - center) @ rotation[2]
            depth = (weights * z * z).sum(1) / (weights * z).sum(1)
        pixel = np.stack([x[ray], y[ray], np.ones(len(ray))], 1)
        kept = (depth > VALID[0]) & (depth < VALID[1])
        points.append(((pixel @ inverse.T * depth[:, None]) @ rotation + center)[kept])
    cloud = np.concatenate(points)
    cells = np.floor((cloud - cloud.min(0) + VOXEL / 2) / VOXEL).astype(int)
    _, cell = np.unique(cells, axis=0, return_inverse=True)
    cell = cell.ravel()
    sums = np.stack([np.bincount(cell, cloud[:, axis]) for axis in range(3)], 1)
    return sums / np.bincount(cell)[:, None]


def loop_inside(mesh: SurfaceMesh) -> np.ndarray:
    """Points of a grid of 64^3 over [-1, 1)^3 that lie inside. [64^3]"""
    axis = -1 + 2 * np.arange(64) / 64
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    vertices = mesh.vertices.double().numpy()
    return np.abs(igl.fast_winding_number(vertices, mesh.faces.numpy(), grid)) > 0.5


def main() -> None:
    parser = make_parser(__doc__, "benchmarks/evaluation.py --output outputs/evaluation")
    parser.add_argument("meshes", nargs="*", type=Path, metavar="OBJECT")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR")
    parser.add_argument("--objects", type=int, default=30, metavar="N")
    parser.add_argument("--methods", type=int, default=3, metavar="N", help="scored of each object")
    parser.add_argument("--compared", type=int, default=3, metavar="N", help="objects of the loop")
    arguments = parse_arguments(parser)
    if not 1 <= arguments.compared <= arguments.objects or arguments.methods < 1:
        raise InputError("give --objects and --methods of 1 or more, --compared up to --objects")
    torch.set_num_threads(1)
    lpips, ours, loop, difference = Lpips(), 0.0, 0.0, dict[str, float]()
    for number in range(arguments.objects):
        given = arguments.meshes
        mesh = normalised(load_mesh(given[number]))[0] if number < len(given) else primitive(number)
        truth = truth_of(mesh)
        for method in range(arguments.methods):
            output = output_of(truth, method)
            score = partial(
                score_object, SYNCDREAMER, output[0], truth[0], output[1], truth[1], lpips
            )
            (scores, _), _, seconds = timed(score)
            ours += seconds
            if number < arguments.compared:
                expected, _, seconds = timed(partial(loop_scores, output, truth, lpips))
                loop += seconds
                for name, value in expected.items():
                    error = abs(value - (scores[name] or 0.0))
                    difference[name] = max(difference.get(name, 0.0), error)
    rows, compared = arguments.objects * arguments.methods, arguments.compared * arguments.methods
    each, each_loop = ours / rows, loop / compared
    print(f"{rows} rows: {ours:.0f} CPU s, {ours / CORES:.0f} s on {CORES} cores")
    print(f"a row: {each:.2f} s, the loop {each_loop:.2f} s: {each_loop / each:.1f} times")
    print("largest differences: " + ", ".join(f"{k} {v:.2g}" for k, v in difference.items()))
    facts = {"seconds": ours, "rows": rows, "ratio": each_loop / each, "differences": difference}
    write_json(arguments.output / "evaluation.json", facts)


if __name__ == "__main__":
    run(main)
