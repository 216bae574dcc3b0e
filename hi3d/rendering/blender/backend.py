"""The Cycles backend: a Blender process that stays and is sent one object after another.

Blender's Python module lives in an environment of its own (`bpy` pins its own numpy):

    python3.11 -m venv blender-env && blender-env/bin/pip install bpy==4.5.15
    export HI3D_BLENDER_PYTHON=$PWD/blender-env/bin/python

A `blender` executable (4.2 to 4.5) serves as well. Geometry, base colors, textures and cameras are
the arrays that the other backends draw, so the pictures differ by the renderer alone. What does
differ: Cycles averages a pixel in linear light and the others in sRGB, it does not filter textures
beyond its samples, and with the shadings `uniform` and `key` it shows occlusion and shadows.
"""

import atexit
import json
import multiprocessing
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hi3d.assets.parts import RenderObject
from hi3d.color import srgb_from_linear
from hi3d.config import check_number
from hi3d.errors import InputError
from hi3d.rendering.blender.open_exr import read_exr
from hi3d.rendering.blender.process import BlenderProcess
from hi3d.rendering.material_groups import material_groups
from hi3d.rendering.shading import (
    AMBIENT_SHARE,
    KEY_LIGHT_DIRECTION,
    KEY_LIGHT_SHARE,
    MIN_ALPHA,
    Drawing,
    Shading,
    empty_drawing,
)
from hi3d.workers.pool import WORKER_VARIABLE

NO_SURFACE = 1e9  # Cycles writes 1e10 where a ray meets nothing


@dataclass(frozen=True)
class BlenderSettings:
    """How Cycles renders."""

    blender_python: str | None = None
    """A Python with bpy, or a `blender` executable; None: the variable HI3D_BLENDER_PYTHON."""
    samples: int = 128
    """Paths per pixel."""
    denoise: bool = False
    """Denoise the images with Open Image Denoise."""
    filter: str = "BOX"
    """Pixel filter: BOX, GAUSSIAN or BLACKMAN_HARRIS."""
    filter_width: float = 1.0
    """Of the pixel filter, in pixels. BOX of width 1 is the mean over the pixel."""
    diffuse_bounces: int = 1
    """Diffuse reflections along a path: 0 shows direct light only."""
    transparent_bounces: int = 32
    """See-through surfaces along a path."""
    environment: float = 1.0
    """Radiance of the environment with the shading `uniform`."""
    device: str = "auto"
    """`cpu`, `gpu`, or `auto`: a GPU (OptiX, CUDA, HIP, ...) where Cycles finds one."""
    threads: int = 0
    """CPU threads; 0 for all cores, in one of several worker processes 1."""
    object_timeout_s: float = 1800.0
    """A process that takes longer over the views of one object is killed."""

    def __post_init__(self) -> None:
        for name, least, most in (
            ("samples", 1, 1e6), ("filter_width", 0.01, 10), ("diffuse_bounces", 0, 1024),
            ("transparent_bounces", 0, 1024), ("environment", 0, 1e6), ("threads", 0, 1024),
            ("object_timeout_s", 1e-3, 1e7),
        ):  # fmt: skip
            check_number(f"cycles.{name}", getattr(self, name), least, most)
        if self.filter not in ("BOX", "GAUSSIAN", "BLACKMAN_HARRIS"):
            raise InputError(f"filter={self.filter}: use BOX, GAUSSIAN or BLACKMAN_HARRIS")
        if self.device not in ("auto", "cpu", "gpu"):
            raise InputError(f"device={self.device}: use auto, cpu or gpu")


SYNCDREAMER = BlenderSettings(
    denoise=True,
    filter="BLACKMAN_HARRIS",
    filter_width=0.01,
    transparent_bounces=3,
    environment=0.5,
)
"""Of the SyncDreamer sets, with shading `uniform`: 128 samples, denoised, a pixel filter so narrow
that edges are not smoothed, bounces 1/1/3/3, and a gray environment (0.5). The sets' materials are
the files' own with their gloss; ours are diffuse."""


_processes: dict[int, BlenderProcess] = {}


def draw(
    render_object: RenderObject,
    viewmats: np.ndarray,  # [V, 4, 4]
    Ks: np.ndarray,  # [V, 3, 3]
    width: int,
    height: int,
    settings: BlenderSettings | None = None,
    shading: Shading = "unlit",
    normals: bool = False,
) -> Drawing:
    """Draw all views of one object in this process's Blender, which is started at the first use.

    Args:
        viewmats: [V, 4, 4] world-to-camera, OpenCV axes.
        Ks: [V, 3, 3] in pixels, of square pixels without skew.
        width: of the images.
        height: of the images.
        settings: how Cycles renders.
        shading: see `hi3d.rendering.shading`.
        normals: also draw normals.

    Raises:
        InputError: there is no Blender, or the pixels are not square.
        RuntimeError: Blender failed, died or took too long over this object. The next object gets
            a fresh process.
    """
    settings = settings or BlenderSettings()
    if not np.allclose(Ks[:, 0, 0], Ks[:, 1, 1], rtol=1e-4) or np.any(Ks[:, 0, 1]):
        raise InputError("Cycles renders square pixels without skew: give K with fx = fy")
    process = _process(settings)
    folder = Path(tempfile.mkdtemp(dir=process.start()))
    try:
        job = _camera_job(render_object, viewmats, Ks, width, height)
        job |= _light_job(shading, settings)
        job |= write_geometry(folder, render_object)
        job |= asdict(settings) | {"shading": shading, "normals": normals, "min_alpha": MIN_ALPHA}
        in_a_worker = multiprocessing.parent_process() is not None
        job["threads"] = settings.threads or int(in_a_worker)
        job["worker"] = int(os.environ.get(WORKER_VARIABLE, "0"))
        (folder / "job.json").write_text(json.dumps(job))
        process.ask(folder, settings.object_timeout_s)
        return _read_drawing(folder, len(viewmats), width, height, normals)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _process(settings: BlenderSettings) -> BlenderProcess:
    """The one Blender of this process; another where another Python is asked for."""
    process = _processes.get(os.getpid())
    if process is None or process.blender_python != settings.blender_python:
        if process is not None:
            process.stop()
        process = _processes[os.getpid()] = BlenderProcess(settings.blender_python)
        atexit.register(process.stop)
    return process


def _camera_job(
    render_object: RenderObject, viewmats: np.ndarray, Ks: np.ndarray, width: int, height: int
) -> dict:
    distance = np.linalg.norm(viewmats[:, :3, 3], axis=-1).max()
    far = float(distance + np.abs(render_object.bounds).max() * 3**0.5) * 1.01
    return {
        "camtoworlds": np.linalg.inv(viewmats).tolist(),
        "Ks": Ks.tolist(),
        "width": width,
        "height": height,
        "near": far * 1e-3,
        "far": far,
    }


def _light_job(shading: Shading, settings: BlenderSettings) -> dict:
    # A sun of irradiance pi makes a white diffuse surface that faces it shine with radiance 1.
    return {
        "world_radiance": {"unlit": 0.0, "uniform": settings.environment, "key": AMBIENT_SHARE}[
            shading
        ],
        "sun_irradiance": np.pi * KEY_LIGHT_SHARE if shading == "key" else 0.0,
        "sun_direction": KEY_LIGHT_DIRECTION,
    }


def write_geometry(folder: Path, render_object: RenderObject) -> dict:
    """Write `geometry.npz` and textures; returns the material of each group, for JSON."""
    arrays: dict[str, Any] = {}
    entries: list[dict] = []
    textures: dict[int, str] = {}
    for index, group in enumerate(material_groups(render_object.parts)):
        arrays |= {
            f"vertices{index}": group.vertices,
            f"faces{index}": group.faces,
            f"uvs{index}": group.uvs,
            f"rgba{index}": group.linear_rgba,
        }
        name = None
        if group.texture is not None:
            name = textures.setdefault(id(group.texture), f"{len(textures)}.png")
            if not (folder / name).exists():
                Image.fromarray(group.texture).save(folder / name, compress_level=1)
        entries.append(
            {
                "texture": name,
                "alpha_mode": group.alpha_mode,
                "alpha_cutoff": group.alpha_cutoff,
                "clamped": group.sampler.clamped,
                "nearest": group.sampler.nearest,
                "single_sided": group.single_sided,
            }
        )
    np.savez(folder / "geometry.npz", **arrays)
    return {"groups": entries}


def _read_drawing(folder: Path, num_views: int, width: int, height: int, normals: bool) -> Drawing:
    drawing = empty_drawing(num_views, width, height, normals)
    for view in range(num_views):
        image = _passes(folder / f"{view:03d}.exr")
        rgba = np.stack([image[f"Combined.{c}"] for c in "RGBA"], axis=-1)
        alpha = rgba[..., 3:].clip(0, 1)
        # As the Standard view transform: straight linear light, encoded as sRGB, then over white.
        rgba[..., :3] /= np.maximum(alpha, 1e-6)
        srgb = srgb_from_linear(rgba)[..., :3] * alpha + 1 - alpha
        pixels = np.concatenate([srgb, alpha], axis=-1)
        drawing.rgba8[view] = (pixels.clip(0, 1) * 255).round()
        surface = _passes(folder / f"{view:03d}-surface.exr")
        z = surface["Depth.Z"]
        drawing.depth[view] = np.where(z < NO_SURFACE, z, 0)
        if drawing.normals is not None:
            xyz = np.stack([surface[f"Normal.{c}"] for c in "XYZ"], axis=-1)
            length = np.linalg.norm(xyz, axis=-1, keepdims=True)
            drawing.normals[view] = np.where(z[..., None] < NO_SURFACE, xyz, 0) / np.maximum(
                length, 1e-6
            )
    return drawing


def _passes(path: Path) -> dict[str, np.ndarray]:
    """Channels of an image by pass and channel, without the name of the view layer."""
    return {".".join(name.split(".")[-2:]): values for name, values in read_exr(path).items()}
