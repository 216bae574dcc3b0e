"""Count invalid meshes among over a hundred GLB files of all kinds; none may be.

Fields (plain shapes, sheets and rods thinner than a voxel, specks, shapes that touch each other or
the box, noise of all strengths) go through extraction and texture; views (true ones of OBJECTS,
odd ones: noise, wrong masks, specks, shapes cut off by the frame, and those of generate.py's runs
below --orbits) through the whole reconstruction with few steps. A run that was ended goes on.
Every file is read back by trimesh and checked: NaN, closed, manifold, oriented, faces without area,
small pieces, UVs, normals. The baseline takes the same fields through
scikit-image's marching cubes and quadric decimation (fast_simplification) as they come.
"""

import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trimesh
from common import keep_settings
from scipy.ndimage import gaussian_filter

from hi3d.assets.load import load_object
from hi3d.cameras import orbit_cameras
from hi3d.command_line import make_parser, parse_arguments, run
from hi3d.config import config_to_dict, load_config
from hi3d.errors import InputError
from hi3d.files import write_json
from hi3d.mesh import SurfaceMesh, save_mesh
from hi3d.pipelines.given_views import load_views
from hi3d.pipelines.views_to_mesh import MeshReconstructionConfig, reconstruct_mesh
from hi3d.progress import console
from hi3d.rendering.rasterizer import render_views
from hi3d.splatting.fit import SplatConfig
from hi3d.surface.grid import GridField
from hi3d.surface.meshing import MeshingConfig, extract_mesh
from hi3d.surface.neus.config import NeusConfig
from hi3d.surface.topology import topology, volume
from hi3d.texture.bake import TextureConfig, bake_texture
from hi3d.views import Views

EXTENT = 0.55
MIN_PIECE = 0.005
"""Pieces of less than this share of the largest one's area are debris."""


def quick() -> MeshReconstructionConfig:
    """Few steps on coarse grids: the kinds of surfaces matter here, not how well they fit."""
    return MeshReconstructionConfig(
        splats=SplatConfig(steps=10, num_initial=500, max_splats=800),
        neus=NeusConfig(
            steps=60, resolutions=[24, 48], resolution_starts=[0.0, 0.5], rays_per_step=512,
            regularized_vertices=4096,
        ),
        meshing=MeshingConfig(target_faces=2000),
        texture=TextureConfig(resolution=128, optimization_steps=0),
    )  # fmt: skip


@dataclass
class ValidityConfig:
    """Settings of the benchmark."""

    resolution: int = 32
    """Vertices a side of the fields' grids."""
    seeds: int = 8
    """Of each random kind of field."""
    views_resolution: int = 64
    """Side of the views in pixels."""
    reconstruction: MeshReconstructionConfig = field(default_factory=quick)


def plain_fields(resolution: int) -> Iterator[tuple[str, np.ndarray]]:
    """Signed distances of shapes, by name."""
    axis = np.linspace(-EXTENT, EXTENT, resolution)
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1)
    voxel = axis[1] - axis[0]
    x, y, z = np.moveaxis(points, -1, 0)

    def ball(center: tuple[float, ...], radius: float) -> np.ndarray:
        return np.linalg.norm(points - center, axis=-1) - radius

    def box(center: tuple[float, ...], half: tuple[float, ...]) -> np.ndarray:
        q = np.abs(points - center) - half
        return np.linalg.norm(q.clip(0), axis=-1) + q.max(-1).clip(max=0)

    yield "ball", ball((0, 0, 0), 0.4)
    yield "box", box((0, 0, 0), (0.4, 0.3, 0.2))
    yield "box on the grid", box((0, 0, 0), (axis[-5], axis[-9], axis[-12]))
    yield "torus", np.hypot(np.hypot(x, y) - 0.3, z) - 0.1
    yield "bowl", np.maximum(np.abs(ball((0, 0, 0), 0.38)) - 0.03, z)
    yield "hollow ball", np.abs(ball((0, 0, 0), 0.35)) - 0.05
    yield "two balls", np.minimum(ball((-0.2, 0, 0), 0.15), ball((0.25, 0, 0), 0.14))
    yield "touching balls", np.minimum(ball((-0.2, 0, 0), 0.2), ball((0.2, 0, 0), 0.2))
    for name, shift in (("corner", 0.2), ("edge", 0.0)):
        low, high = (-0.2, -0.2, -shift), (0.2, 0.2, shift)
        half = (0.2, 0.2, 0.2)
        yield f"cubes that share a {name}", np.minimum(box(low, half), box(high, half))
    yield "ball beyond the box", ball((0, 0, 0), 0.7)
    yield "slab through the box", np.abs(z) - 0.2
    yield "filled box", np.full_like(x, -1.0)
    specks = np.random.default_rng(0).uniform(-0.5, 0.5, (40, 3))
    spread = [ball(tuple(speck), 0.04) for speck in specks]
    yield "ball among specks", np.minimum.reduce([ball((0, 0, 0), 0.3), *spread])
    yield "specks alone", np.minimum.reduce(spread)
    yield "one vertex", np.where(np.arange(x.size).reshape(x.shape) == x.size // 3, -1.0, 1.0)
    for thick in (3.0, 1.5, 1.0, 0.6):
        half_thick = thick * voxel / 2
        yield f"sheet of {thick} voxels", box((0, 0, axis[9]), (0.4, 0.4, half_thick))
        tilted = np.abs(0.6 * x + 0.8 * z) - half_thick
        yield f"tilted sheet of {thick} voxels", np.maximum(tilted, ball((0, 0, 0), 0.45))
        rod = np.hypot(x - axis[9], y - axis[12]) - half_thick
        yield f"rod of {thick} voxels", np.maximum(rod, np.abs(z) - 0.4)
        yield f"speck of {thick} voxels", ball((axis[9], axis[12], axis[7]), thick * voxel)


def random_fields(resolution: int, seeds: int) -> Iterator[tuple[str, np.ndarray]]:
    """Noise, and shapes with noise, by name."""
    axis = np.linspace(-EXTENT, EXTENT, resolution)
    radius = np.linalg.norm(np.meshgrid(axis, axis, axis, indexing="ij"), axis=0)
    voxel = axis[1] - axis[0]
    for seed in range(seeds):
        noise = np.random.default_rng(seed).normal(size=radius.shape)
        smooth = gaussian_filter(noise, 0.8 + seed / 4)
        yield f"ball with noise, {seed}", radius - 0.35 + noise * voxel * (0.5 + seed / 4)
        yield f"ball with dents, {seed}", radius - 0.35 + smooth / smooth.std() * voxel * (1 + seed)
        yield f"noise in a ball, {seed}", np.where(radius < 0.45, noise, 1.0) * voxel
        yield f"smooth noise, {seed}", smooth
        yield f"smooth noise without distances, {seed}", np.where(smooth > 0, voxel, -voxel)


def odd_views(views: Views, seed: int) -> Iterator[tuple[str, Views]]:
    """One object's views as bad inputs have them, by name."""
    generator = torch.Generator().manual_seed(seed)
    rgb, alpha = views.rgb, views.alpha

    def cut_out(mask: torch.Tensor, color: torch.Tensor = rgb) -> Views:
        return replace(views, rgb=1 + (color - 1) * mask, alpha=mask)

    noise = 0.3 * torch.randn(rgb.shape, generator=generator)
    yield "noise in the colors", cut_out(alpha, (rgb + noise).clamp(0, 1))
    yield "colors inverted", cut_out(alpha, 1 - rgb)
    flecks = torch.rand(alpha.shape, generator=generator) < 0.02
    yield "flecks in the masks", cut_out(torch.where(flecks, 1 - alpha, alpha))
    holes = torch.rand(len(views), 1, 8, 8, generator=generator) < 0.2
    holes = torch.nn.functional.interpolate(holes.float(), alpha.shape[-2:])
    yield "holes in the masks", cut_out(alpha * (1 - holes))
    moved = torch.stack([mask.roll((2 * v) % 7 - 3, -1) for v, mask in enumerate(alpha)])
    yield "masks that do not agree", cut_out(moved)
    wide = torch.nn.functional.interpolate(alpha, scale_factor=2.0, mode="bilinear")
    border = (wide.shape[-1] - alpha.shape[-1]) // 2
    size = alpha.shape[-1]
    yield "cut off by the frame", cut_out(wide[..., border : border + size, border : border + size])
    small = torch.nn.functional.interpolate(alpha, scale_factor=0.1, mode="area")
    before = (size - small.shape[-1]) // 2
    after = size - small.shape[-1] - before
    yield "a speck", cut_out(torch.nn.functional.pad(small, (before, after, before, after)))


def file_faults(path: Path) -> dict[str, int]:
    """What is wrong with a written GLB file, and how often."""
    mesh: Any = trimesh.load(path, force="mesh", process=False)
    vertices, faces = np.asarray(mesh.vertices, np.float32), np.asarray(mesh.faces)
    uvs = np.asarray(mesh.visual.uv) if mesh.visual.uv is not None else np.zeros((0, 2))
    lengths = np.linalg.norm(mesh.vertex_normals, axis=1)
    found = {
        "not finite": int((~np.isfinite(vertices)).sum()),
        "without UVs": int(len(uvs) != len(vertices) or not ((uvs >= 0) & (uvs <= 1)).all()),
        "normals not unit": int((abs(lengths - 1) > 1e-3).sum()),
        **mesh_faults(vertices, faces),
    }
    return {name: count for name, count in found.items() if count}


def mesh_faults(vertices: np.ndarray, faces: np.ndarray) -> dict[str, int]:
    """Faults of the surface alone."""
    if len(faces) == 0 or not np.isfinite(vertices).all():
        return {"no surface": 1}
    pieces = trimesh.Trimesh(vertices, faces).split(only_watertight=False)
    areas = np.array([piece.area for piece in pieces])
    inside_out = int(sum(piece.volume <= 0 for piece in pieces))
    counts = {**asdict(topology(vertices, faces)), "pieces inside out": inside_out}
    return counts | {"debris": int((areas < MIN_PIECE * areas.max()).sum())}


def baseline_faults(sdf: np.ndarray, target_faces: int) -> dict[str, int]:
    """What scikit-image and fast_simplification make of a field, unchecked."""
    import fast_simplification
    from skimage.measure import marching_cubes

    try:
        vertices, faces, _, _ = marching_cubes(sdf, 0.0)
    except (ValueError, RuntimeError):
        return {"no surface": 1}
    if volume(vertices, faces) < 0:
        faces = faces[:, ::-1]
    if len(faces) > target_faces:
        vertices, faces = fast_simplification.simplify(
            vertices, faces.astype(np.int32), target_count=target_faces
        )
    return {name: count for name, count in mesh_faults(vertices, faces).items() if count}


def field_meshes(
    config: ValidityConfig, baseline: dict[str, dict[str, int]]
) -> Iterator[tuple[str, Callable[[], SurfaceMesh]]]:
    """By name how each field becomes a mesh; the baseline's faults are added when it is asked."""
    cameras = orbit_cameras(20.0, config.views_resolution)
    grey = torch.full((16, 3, config.views_resolution, config.views_resolution), 0.5)
    solid = Views(grey, torch.ones_like(grey[:, :1]), cameras)
    settings = config.reconstruction

    def make(name: str, sdf: np.ndarray) -> SurfaceMesh:
        baseline[name] = baseline_faults(sdf, settings.meshing.target_faces)
        grid = torch.from_numpy(sdf).float()
        colored = GridField(grid, torch.zeros(*grid.shape, 3), EXTENT)
        mesh = extract_mesh(colored, settings.meshing, cameras)
        return bake_texture(mesh, solid, settings.texture)

    for name, sdf in plain_fields(config.resolution):
        yield name, partial(make, name, sdf)
    for name, sdf in random_fields(config.resolution, config.seeds):
        yield name, partial(make, name, sdf)


def view_meshes(
    config: ValidityConfig, objects: list[Path], orbits: list[Path]
) -> Iterator[tuple[str, Callable[[], SurfaceMesh]]]:
    """By name how views become meshes: true and odd ones of objects, and those of folders."""
    settings = config.reconstruction

    def make(views: Views) -> SurfaceMesh:
        return reconstruct_mesh(views, None, settings, 0)

    cameras = orbit_cameras(20.0, config.views_resolution)
    for path in objects:
        views = render_views(load_object(path), cameras).views
        for kind, changed in [("true views", views), *odd_views(views, seed=0)]:
            yield f"{path.stem}, {kind}", partial(make, changed)
    for folder in orbits:
        yield f"views of {folder.parent.name}/{folder.name}", partial(make, load_views(folder))


def main() -> None:
    parser = make_parser(
        __doc__.split("\n")[0], "benchmarks/mesh_validity.py data/examples/objects --output o"
    )
    parser.add_argument("objects", type=Path, metavar="OBJECTS", help="folder of GLB files")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--num-objects", type=int, default=6, metavar="N", help="first N of them")
    parser.add_argument("--orbits", type=Path, metavar="DIR", help="folder of generate.py's runs")
    arguments = parse_arguments(parser)
    config = load_config(ValidityConfig, arguments.config, arguments.overrides)
    keep_settings(arguments.output, config_to_dict(config))
    warnings.simplefilter("ignore", RuntimeWarning)
    known = arguments.output / "results.json"
    found = json.loads(known.read_text()) if known.is_file() else {"ours": {}, "baseline": {}}
    results, baseline = found["ours"], found["baseline"]
    path = arguments.output / "mesh.glb"
    objects = sorted(arguments.objects.rglob("*.glb"))[: arguments.num_objects]
    orbits = sorted(arguments.orbits.glob("*/*/cameras.json")) if arguments.orbits else []
    views = view_meshes(config, objects, [camera_file.parent for camera_file in orbits])
    for name, make in chain(field_meshes(config, baseline), views):
        if name in results:
            continue
        try:
            save_mesh(make(), path)
            results[name] = file_faults(path)
        except InputError as error:
            results[name] = {"refused": str(error)}
        write_json(known, {"ours": results, "baseline": baseline})
    path.unlink(missing_ok=True)
    report(results, baseline)


def report(results: dict[str, dict], baseline: dict[str, dict]) -> None:
    """Print all faults, and how many meshes have some."""
    refused = [name for name, faults in results.items() if "refused" in faults]
    invalid = {n: faults for n, faults in results.items() if faults and "refused" not in faults}
    for name, faults in invalid.items():
        console.print(f"{name}: {json.dumps(faults)}")
    wrong = sum(bool(baseline[name]) for name in baseline if name not in refused)
    fields = sum(name not in refused for name in baseline)
    console.print(
        f"{len(invalid)} of {len(results) - len(refused)} meshes are invalid; {len(refused)} "
        "inputs without a surface were refused. scikit-image with fast_simplification: "
        f"{wrong} of the {fields} fields"
    )


if __name__ == "__main__":
    run(main)
