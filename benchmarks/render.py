"""Rendering: speed of the default backend beside pyrender and Cycles, and agreement of backends.

    python benchmarks/render.py OBJECT_OR_FOLDER ... [--blender PYTHON] [--pyrender PYTHON]

Speed: views with depth, encoded as PNG, at `--resolution`, by `--workers` processes that share the
objects; loading files is left out, and so is the first object (shaders are compiled). pyrender gets
the same triangles, textures, cameras, PNG encoder and settings of malloc. Cycles renders one view
of one object with 128 samples on as many threads. "CPU" is seconds of one core per view: on an idle
machine the rate is workers / CPU. Best of `--repeats`.

Agreement, at 512 x 512: silhouettes (alpha > 0.5) by intersection over union; depth by the 99th
percentile of the difference where both have a surface, and by the largest difference over settled
pixels: those at which rays through the center and 1/128 pixel beside it, diagonally, hit surfaces
within 5e-4 in depth. At the others the center lies on an edge of a nearer surface, or the surface
is seen edge-on: rounded coordinates decide (OpenGL rounds vertices to 1/256 pixel) what is seen. A
settled pixel without a surface counts with its whole depth.

Quality, at `--resolution`: the error of 4 and 16 samples per pixel against 144. Edges are pixels
that the object covers in part.
"""

import argparse
import json
import multiprocessing
import os
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import torch

from hi3d.assets.load import SUFFIXES, load_object
from hi3d.assets.parts import RenderObject
from hi3d.cameras import Cameras, orbit_cameras
from hi3d.command_line import run
from hi3d.errors import InputError
from hi3d.orbits.encoded_orbit import encode_orbit
from hi3d.rendering.blender import backend as blender
from hi3d.rendering.rasterizer import RenderedViews, available_backend, render_views

AGREEMENT_RESOLUTION = 512
SHIFT = 1 / 128  # pixels; OpenGL rounds vertices to 1/256
SETTLED = 5e-4  # how much depth may change within SHIFT of a pixel's center


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("objects", nargs="+", type=Path)
    parser.add_argument("--limit", type=int, default=10, help="objects, spread evenly")
    parser.add_argument("--resolution", type=int, default=1024)
    parser.add_argument("--views", type=int, default=8, help="of each object")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--pyrender", metavar="PYTHON", help="with pyrender, isal and Pillow")
    parser.add_argument("--blender", metavar="PYTHON", help="with bpy, or a blender executable")
    parser.add_argument("--samples", type=int, default=128, help="of Cycles")
    parser.add_argument("--only", choices=("speed", "agreement", "quality"))
    arguments = parser.parse_args()
    paths = chosen_objects(arguments.objects, arguments.limit)
    torch.set_num_threads(1)
    print(f"{len(paths)} objects: {', '.join(path.stem for path in paths)}", flush=True)
    if arguments.only in (None, "speed"):
        compare_speed(paths, arguments)
    if arguments.only in (None, "agreement"):
        compare_pictures(paths, arguments.blender, arguments.samples)
    if arguments.only in (None, "quality"):
        compare_quality(paths, arguments.resolution)


def chosen_objects(given: list[Path], limit: int) -> list[Path]:
    files: list[Path] = []
    for path in given:
        inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
        files += inside if path.is_dir() else [path]
    if not files:
        raise InputError(f"no objects ({', '.join(SUFFIXES)}) in {given[0]}: give files or folders")
    return [files[i] for i in np.linspace(0, len(files) - 1, min(limit, len(files))).astype(int)]


def compare_speed(paths: list[Path], arguments: argparse.Namespace) -> None:
    size, workers = arguments.resolution, arguments.workers
    cameras = orbit_cameras(20.0, size, arguments.views)
    shares = [paths[i::workers] for i in range(workers) if paths[i::workers]]
    num_views = len(paths) * len(cameras)
    rows: dict[str, tuple[float, float]] = {}
    name = f"hi3d, {available_backend()}"
    for _ in range(arguments.repeats):
        record(rows, name, num_views, time_default_backend(shares, cameras))
        if arguments.pyrender:
            record(rows, "pyrender", num_views, time_pyrender(arguments.pyrender, shares, cameras))
    if not arguments.pyrender:
        print("pyrender is left out: give --pyrender PYTHON")
    if arguments.blender:
        settings = blender.BlenderSettings(
            arguments.blender, arguments.samples, device="cpu", threads=workers
        )
        key = f"Cycles, {arguments.samples} samples"
        record(rows, key, 1, time_cycles(load_object(paths[0]), cameras[0], settings))
    else:
        print("Cycles is left out: give --blender PYTHON")
    print(
        f"\n| {size} x {size}, depth, PNG, {workers} workers | views/s | CPU s/view | CPU ratio |"
    )
    print("|---|---|---|---|")
    for key, (rate, cpu) in rows.items():
        print(f"| {key} | {rate:.3g} | {cpu:.4g} | {cpu / rows[name][1]:.2f} |")
    print(f"rate on {workers} free cores by CPU time: {workers / rows[name][1]:.1f} views/s")
    for key in list(rows)[1:]:
        print(f"{name} is {rows[name][0] / rows[key][0]:.2f}x {key} by the clock", flush=True)


def record(
    rows: dict[str, tuple[float, float]], key: str, views: int, seconds: tuple[float, float]
) -> None:
    """Keep the best rate and the least CPU time of the repeats."""
    best_rate, least_cpu = rows.get(key, (0.0, float("inf")))
    rows[key] = max(best_rate, views / seconds[0]), min(least_cpu, seconds[1] / views)


def time_default_backend(shares: list[list[Path]], cameras: Cameras) -> tuple[float, float]:
    """Wall seconds of the slowest worker and CPU seconds of all."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(len(shares)), context.Queue()
    processes = [
        context.Process(target=default_worker, args=(share, cameras, barrier, results))
        for share in shares
    ]
    for process in processes:
        process.start()
    seconds = [results.get() for _ in processes]
    for process in processes:
        process.join()
    return max(wall for wall, _ in seconds), sum(cpu for _, cpu in seconds)


def default_worker(paths: list[Path], cameras: Cameras, barrier, results) -> None:
    torch.set_num_threads(1)
    objects = [load_object(path) for path in paths]
    render_and_encode(objects[0], cameras)
    barrier.wait()
    wall, cpu = time.perf_counter(), time.process_time()
    for render_object in objects:
        render_and_encode(render_object, cameras)
    results.put((time.perf_counter() - wall, time.process_time() - cpu))


def render_and_encode(render_object: RenderObject, cameras: Cameras) -> None:
    encode_orbit("object", render_views(render_object, cameras), 20.0, "object")


def time_pyrender(python: str, shares: list[list[Path]], cameras: Cameras) -> tuple[float, float]:
    """Wall seconds of the slowest worker and CPU seconds of all."""
    root = Path(__file__).parent.parent
    environment = os.environ | {
        "PYTHONPATH": str(root),
        "PYOPENGL_PLATFORM": "egl",
        "LP_NUM_THREADS": "0",
        "OMP_NUM_THREADS": "1",
        "MALLOC_MMAP_MAX_": "0",  # as opengl.keep_freed_memory
        "MALLOC_TRIM_THRESHOLD_": str(2**30),
    }
    with tempfile.TemporaryDirectory() as temporary:
        processes = []
        for number, share in enumerate(shares):
            folders = [Path(temporary) / f"{number}-{i}" for i in range(len(share))]
            for folder, path in zip(folders, share, strict=True):
                write_job(folder, load_object(path), cameras)
            command = [python, str(root / "benchmarks/other_tools/render_with_pyrender.py")]
            command += map(str, folders)
            processes.append(
                subprocess.Popen(
                    command,
                    env=environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
        for process in processes:
            assert process.stdout
            assert process.stderr
            if process.stdout.readline() != "ready\n":
                lines = process.stderr.read().strip().splitlines()
                raise InputError(f"pyrender does not run with {python}: {lines[-1]}")
        for process in processes:
            assert process.stdin
            process.stdin.write("\n")
            process.stdin.flush()
        seconds = [json.loads(process.communicate()[0]) for process in processes]
    return max(wall for wall, _ in seconds), sum(cpu for _, cpu in seconds)


def write_job(folder: Path, render_object: RenderObject, cameras: Cameras) -> None:
    folder.mkdir()
    job = {"batches": blender.write_geometry(folder, render_object)["batches"]}
    job |= {
        "camtoworlds": cameras.camtoworlds.tolist(),
        "Ks": cameras.Ks.tolist(),
        "width": cameras.width,
        "height": cameras.height,
        "near": 0.1,
        "far": 3.0,
    }
    (folder / "job.json").write_text(json.dumps(job))


def time_cycles(
    render_object: RenderObject, cameras: Cameras, settings: blender.BlenderSettings
) -> tuple[float, float]:
    """Wall and CPU seconds, without the start of Blender."""

    def draw(with_settings: blender.BlenderSettings) -> RenderedViews:
        return render_views(render_object, cameras, "cycles", cycles=with_settings)

    draw(blender.BlenderSettings(settings.blender_python, samples=1, device="cpu"))
    (process,) = (p for p in psutil.Process().children() if "blender_session" in str(p.cmdline()))
    before, start = process.cpu_times(), time.perf_counter()
    encode_orbit("object", draw(settings), 20.0, "object")
    after = process.cpu_times()
    cpu = after.user + after.system - before.user - before.system
    return time.perf_counter() - start, cpu


def compare_pictures(paths: list[Path], blender_python: str | None, samples: int) -> None:
    others = ["embreex"] + (["cycles"] if blender_python else [])
    cameras = orbit_cameras(20.0, AGREEMENT_RESOLUTION, 3)[[1]]
    cycles = blender.BlenderSettings(blender_python, samples, device="cpu")
    print(
        "\n| moderngl against | object | IoU | depth, 99th percentile | largest, settled pixels "
        "| settled |"
    )
    print("|---|---|---|---|---|---|")
    for path in paths:
        render_object = load_object(path)
        ours = render_views(render_object, cameras, "moderngl", 2)
        settled = settled_pixels(render_object, cameras)
        for backend in others:
            factor = 4 if backend == "embreex" else 2
            theirs = render_views(render_object, cameras, backend, factor, cycles=cycles)
            iou, percentile, largest = agreement(ours, theirs, settled)
            share = settled.sum() / (ours.depth > 0).sum()
            print(
                f"| {backend} | {path.stem[:40]} | {iou:.4f} | {percentile:.1e} | {largest:.1e} "
                f"| {share:.1%} |",
                flush=True,
            )


def settled_pixels(render_object: RenderObject, cameras: Cameras) -> torch.Tensor:
    """Pixels at which what is seen does not hang on rounding (see the module). [V, H, W] bool"""
    depths = []
    for dx, dy in ((0, 0), (SHIFT, SHIFT), (SHIFT, -SHIFT), (-SHIFT, SHIFT), (-SHIFT, -SHIFT)):
        Ks = cameras.Ks.clone()
        Ks[:, 0, 2] += dx
        Ks[:, 1, 2] += dy
        moved = Cameras(cameras.viewmats, Ks, cameras.width, cameras.height)
        depths.append(render_views(render_object, moved, "embreex", 1).depth)
    stacked = torch.stack(depths)
    nearest, farthest = stacked.amin(dim=0), stacked.amax(dim=0)
    return (nearest > 0) & (farthest - nearest < SETTLED)


def agreement(
    a: RenderedViews, b: RenderedViews, settled: torch.Tensor
) -> tuple[float, float, float]:
    """IoU of silhouettes, 99th percentile and largest difference of depth (see the module)."""
    ours, theirs = a.alpha > 0.5, b.alpha > 0.5
    iou = ((ours & theirs).sum() / (ours | theirs).sum()).item()
    difference = (a.depth - b.depth).abs()
    both = (a.depth > 0) & (b.depth > 0)
    percentile = np.quantile(difference[both].numpy(), 0.99)
    return iou, float(percentile), difference[settled].max().item()


def compare_quality(paths: list[Path], resolution: int) -> None:
    cameras = orbit_cameras(20.0, resolution, 3)[[1]]
    errors: dict[int, list[list[float]]] = {1: [], 2: []}
    for path in paths:
        render_object = load_object(path)
        truth = render_views(render_object, cameras, "moderngl", 6)
        edge = (truth.alpha > 0) & (truth.alpha < 1)
        for factor, rows in errors.items():
            drawn = render_views(render_object, cameras, "moderngl", factor)
            rgb = (drawn.rgb - truth.rgb).square()
            alpha_rmse = (drawn.alpha - truth.alpha)[edge].square().mean().sqrt().item()
            edge_mse = rgb[edge.expand_as(rgb)].mean()
            rows.append([alpha_rmse, float(edge_mse), float(rgb.mean())])
    print(
        f"\n| samples per pixel at {resolution} x {resolution} | RMS of alpha on edges "
        "| PSNR on edges | PSNR of all pixels |"
    )
    print("|---|---|---|---|")
    for factor, rows in errors.items():
        alpha, edge_mse, mse = np.mean(rows, axis=0)
        print(
            f"| {4 * factor**2} | {alpha:.3f} | {-10 * np.log10(edge_mse):.1f} dB | "
            f"{-10 * np.log10(mse):.1f} dB |",
            flush=True,
        )


if __name__ == "__main__":
    run(main)
