"""A call of every script that works, at tiny size, for tests that disturb it."""

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import trimesh
from PIL import Image

from hi3d.cameras import orbit_cameras
from tests.conftest import sphere_views
from tests.diffusion.official_layout import HEAD_CHANNELS, checkpoint, networks, write

ROOT = Path(__file__).parents[2]
STEPS = [
    *("interpolated_views=4", "splats.steps=6", "splats.num_initial=200"),
    *("neus.steps=12", "neus.rays_per_step=128", "neus.resolutions=[16]"),
    *("neus.resolution_starts=[0.0]", "neus.regularized_vertices=64"),
    *("meshing.target_faces=500", "meshing.smoothing_iterations=0", "texture.resolution=64"),
]
"""Of a reconstruction."""


def ablate(inputs: Path, output: Path, models: Path) -> list[object]:
    trimesh.creation.box((0.4, 0.3, 1.0)).export(inputs / "box.glb")
    return [
        *("--config", ROOT / "configs/ablation/m.yaml", "--output", output / "m"),
        *("kind=oracle", "config=null", "key=mesh.interpolated_views", "values=[0,4]"),
        f"overrides=[{','.join(repr(f'mesh.{step}') for step in STEPS)}]",
        *(f"objects={inputs / 'box.glb'}", "num_workers=0"),
    ]


def cache_latents(inputs: Path, output: Path, models: Path) -> list[object]:
    for name in ("a", "b"):
        views, _ = sphere_views(orbit_cameras(10.0, 16, 4))
        views.save(inputs / "orbits" / name)
    return [
        *("--config", ROOT / "configs/stage1.yaml", "--output", output / "latents"),
        *(f"init_from={models / 'svd'}", f"data.train={inputs / 'orbits'}", "data.val=null"),
        *("data.streaming=false", "data.resolution=16", "data.num_views=4"),
        *("data.num_workers=0", f"trainer.output={output / 'run'}"),
    ]


def convert_checkpoint(inputs: Path, output: Path, models: Path) -> list[object]:
    file = write(inputs, checkpoint("svd", networks("svd")), "safetensors")
    return [
        *("--source", "svd", "--input", file, "--output", output / "model"),
        *("--head-channels", HEAD_CHANNELS),
    ]


def evaluate(inputs: Path, output: Path, models: Path) -> list[object]:
    trimesh.creation.box((0.5, 0.5, 0.5)).export(inputs / "box.ply")
    box = inputs / "box.ply"
    return ["mesh", "--pred", box, "--gt", box, "--json", output / "s.json", "num_samples=500"]


def generate(inputs: Path, output: Path, models: Path) -> list[object]:
    y, x = np.mgrid[:64, :64]
    pixels = np.full((64, 64, 4), 200, np.uint8)
    pixels[..., 3] = 255 * ((y - 32) ** 2 + (x - 32) ** 2 < 400)
    Image.fromarray(pixels).save(inputs / "disc.png")
    return [
        *(inputs / "disc.png", "--output", output),
        *(f"stage1={models / 'stage1'}", f"stage2={models / 'stage2'}", "resume=true"),
        *("foreground.resolution=32", "orbit.num_inference_steps=2"),
        *("refiner.num_inference_steps=1", "turntable.num_frames=4", "turntable.resolution=64"),
        *(f"mesh.{step}" for step in STEPS),
    ]


def inspect_data(inputs: Path, output: Path, models: Path) -> list[object]:
    views, _ = sphere_views(orbit_cameras(10.0, 16, 4))
    views.save(inputs / "orbits" / "ball")
    return [inputs / "orbits", "--output", output / "sheets", "--cell", "32", "--seeds", "0"]


def prepare_furniture(inputs: Path, output: Path, models: Path) -> list[object]:
    with zipfile.ZipFile(inputs / "set.sh3f", "w") as archive:
        archive.writestr("PluginFurnitureCatalog.properties", "name#1=A\nmodel#1=/a/a.obj\n")
        archive.writestr("a/a.obj", "v 0 0 0\nv 1 0 0\nv 0 2 0\nf 1 2 3\n" * 300)
    return [inputs / "set.sh3f", "--output", output]


def reconstruct(inputs: Path, output: Path, models: Path) -> list[object]:
    views, _ = sphere_views(orbit_cameras(20, 32, 8))
    views.save(inputs / "views")
    return [inputs / "views", "--output", output, "resume=true", *STEPS]


def render_orbits(inputs: Path, output: Path, models: Path) -> list[object]:
    trimesh.creation.box().export(inputs / "box.glb")
    return [
        *(inputs / "box.glb", "--output", output, "format=folder", "resolution=32"),
        *("num_views=4", "num_workers=0"),
    ]


def render_shards(inputs: Path, output: Path, models: Path) -> list[object]:
    words = render_orbits(inputs, output, models)
    return ["format=shards" if word == "format=folder" else word for word in words]


def train(inputs: Path, output: Path, models: Path) -> list[object]:
    for name in ("a", "b"):
        views, _ = sphere_views(orbit_cameras(10.0, 16, 4))
        views.save(inputs / "orbits" / name)
    return [
        *("--config", ROOT / "configs/nano/vae.yaml", f"data.train={inputs / 'orbits'}"),
        *("data.val=null", f"trainer.output={output / 'run'}", "data.resolution=16"),
        *("data.batch_size=2", "data.num_workers=0", "trainer.max_steps=2"),
        *("trainer.precision=32-true", "trainer.num_threads=1", "vae.crop=8"),
        *("vae.patch_size=4",),
    ]


JOBS: dict[str, Callable[[Path, Path, Path], list[object]]] = {
    "ablate.py": ablate,
    "cache_latents.py": cache_latents,
    "convert_checkpoint.py": convert_checkpoint,
    "evaluate.py": evaluate,
    "generate.py": generate,
    "inspect_data.py": inspect_data,
    "prepare_furniture.py": prepare_furniture,
    "reconstruct.py": reconstruct,
    "render_orbits.py": render_orbits,
    "render_orbits.py shards": render_shards,
    "train.py": train,
}


TIMED = ("report", "index.html", "row.json", "table")


def left_over(folder: Path) -> list[str]:
    """Files that a run should have removed."""
    return [
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if ".part" in path.name or path.name.endswith((".writable", ".lock"))
    ]


def contents(folder: Path) -> dict[str, bytes]:
    """Bytes of all results; reports, pages and tables hold times."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(TIMED)
    }


def clear(folder: Path) -> None:
    """Empty a folder that may be a mount point."""
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
