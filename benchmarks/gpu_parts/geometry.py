"""Rasterization, marching, NeuS and a whole reconstruction."""

import tempfile
import time
from pathlib import Path

import torch

from gpu_parts.rows import Row, Size, forget_peak_memory, peak_memory_gb, seconds_of, synchronize
from hi3d.assets.load import load_object
from hi3d.cameras import orbit_cameras
from hi3d.config import load_config
from hi3d.pipelines.views_to_mesh import ReconstructConfig, reconstruct
from hi3d.rendering.rasterizer import render_views
from hi3d.splats import GaussianSplats
from hi3d.splatting.rasterization.render import rasterize
from hi3d.surface.neus.fit import fit_neus
from hi3d.surface.neus.marching import march
from hi3d.surface.neus.rays import Rays
from hi3d.views import Views

ROOT = Path(__file__).parents[2]
ELEVATION_DEG = 20.0
TINY = ["splats.steps=2", "splats.num_initial=50", "neus.steps=2", "neus.image_resolution=32"]
TINY += ["neus.resolutions=[16]", "neus.resolution_starts=[0.0]", "neus.regularized_vertices=256"]
TINY += ["meshing.target_faces=200", "texture.resolution=64"]


def rasterization(size: Size) -> list[Row]:
    """Forward and backward pass of a view: gsplat on CUDA, C on the CPU."""
    count, side = (100, 32) if size.tiny else (100_000, 1024)
    generator = torch.Generator().manual_seed(0)
    splats = GaussianSplats(
        torch.rand(count, 3, generator=generator) - 0.5,
        torch.randn(count, 4, generator=generator),
        torch.full((count, 3), -5.0),
        torch.zeros(count),
        torch.randn(count, 1, 3, generator=generator),
    ).to(size.device)
    leaves = GaussianSplats(**{k: v.requires_grad_() for k, v in splats.tensors().items()})
    cameras = orbit_cameras(ELEVATION_DEG, side, 1).to(size.device)

    def step() -> None:
        rasterize(leaves, cameras).rgb.sum().backward()

    forget_peak_memory()
    seconds = seconds_of(step, 3)
    return [
        Row(f"{count} splats at {side}^2, forward and backward", 1000 * seconds, "ms"),
        Row("peak memory", peak_memory_gb(), "GB"),
    ]


def marching(size: Size) -> list[Row]:
    """Sections of rays in occupied cells: nerfacc on CUDA, torch on the CPU."""
    count, cells = (100, 16) if size.tiny else (65_536, 128)
    generator = torch.Generator().manual_seed(0)
    occupied = (torch.rand(cells, cells, cells, generator=generator) < 0.2).to(size.device)
    directions = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=1)
    ones = torch.ones(count)
    rays = Rays(-1.5 * directions, directions, ones[:, None].expand(-1, 3), ones, ones)
    rays = Rays(**{key: value.to(size.device) for key, value in vars(rays).items()})
    draws = torch.Generator(size.device).manual_seed(0)
    seconds = seconds_of(lambda: march(rays, occupied, 0.5, 1 / cells, draws), 3)
    return [Row(f"{count} rays through {cells}^3 cells", 1000 * seconds, "ms")]


def torch_neus(size: Size) -> list[Row]:
    """Steps of NeuS's networks, without the mesh."""
    steps = 2 if size.tiny else 200
    changed = ["neus.field=mlp", f"neus.steps={steps}"]
    small = ["neus.network.layers=2", "neus.network.size=16", "neus.network.rays_per_step=64"]
    config = reconstruction_config(size, [*changed, *(small if size.tiny else [])])
    views = chair_views(size).to(size.device)
    forget_peak_memory()
    start = time.perf_counter()
    fit_neus(views, config.neus, 0)
    synchronize()
    return [
        Row(f"{steps} steps of NeuS's networks", time.perf_counter() - start, "s"),
        Row("peak memory", peak_memory_gb(), "GB"),
    ]


def chair_views(size: Size) -> Views:
    """16 true views of the example chair."""
    object = load_object(ROOT / "data/examples/objects/chair.glb")
    return render_views(object, orbit_cameras(ELEVATION_DEG, 64 if size.tiny else 1024)).views


def reconstruction_config(size: Size, changed: list[str]) -> ReconstructConfig:
    """Settings for views of 1024^2."""
    settings = [*(TINY if size.tiny else []), *changed]
    return load_config(ReconstructConfig, ROOT / "configs/reconstruct_1024.yaml", settings)


def reconstruction(size: Size) -> list[Row]:
    """True views of the example chair to a textured mesh."""
    config, views = reconstruction_config(size, []), chair_views(size)
    forget_peak_memory()
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        reconstruct(views, config, Path(folder) / "run")
        seconds = time.perf_counter() - start
    side = views.rgb.shape[-1]
    return [
        Row(f"16 views of {side}^2 to a textured mesh", seconds, "s", "<= 60 s"),
        Row("peak memory", peak_memory_gb(), "GB"),
    ]
