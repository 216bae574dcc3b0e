"""Views of an object: color, alpha, depth and normals at given cameras."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from hi3d.assets.parts import RenderObject
from hi3d.cameras import Cameras
from hi3d.errors import InputError
from hi3d.progress import console
from hi3d.rendering import embree
from hi3d.rendering.blender import backend as blender
from hi3d.rendering.blender.process import blender_command
from hi3d.rendering.opengl import backend as opengl
from hi3d.rendering.shading import SHADINGS, Drawing, Shading
from hi3d.views import Views

BACKENDS = ("auto", "moderngl", "embreex", "cycles")
ENOUGH_PIXELS = 1024
"""From this size on, 4 samples a pixel are taken for enough (see `render_views`)."""

_warned: set[str] = set()


@dataclass(frozen=True)
class RenderedViews:
    """V rendered images of one object with their depth."""

    rgba8: Tensor  # [V, H, W, 4] uint8
    """sRGB over white, and opacity: the covered share of each pixel."""
    depth: Tensor  # [V, H, W]
    """Camera z of the first surface at each pixel center; 0 where there is none."""
    cameras: Cameras
    """The cameras that were rendered."""
    backend: str
    """What drew: "moderngl", "embreex" or "cycles"."""
    normals: Tensor | None = None  # [V, 3, H, W]
    """Unit normals of the triangles in the world, turned to the camera; 0 where there is none."""

    @cached_property
    def rgb(self) -> Tensor:
        """Color in [0, 1], sRGB, composited over white. [V, 3, H, W]"""
        return self.rgba8[..., :3].permute(0, 3, 1, 2).contiguous().float().div_(255)

    @cached_property
    def alpha(self) -> Tensor:
        """Opacity in [0, 1]. [V, 1, H, W]"""
        return self.rgba8[..., 3].unsqueeze(1).float().div_(255)

    @property
    def views(self) -> Views:
        """The images without depth."""
        return Views(self.rgb, self.alpha, self.cameras)


def render_views(
    object: RenderObject,
    cameras: Cameras,
    backend: str = "auto",
    supersampling: int | None = None,
    shading: Shading = "unlit",
    normals: bool = False,
    cycles: blender.BlenderSettings | None = None,
) -> RenderedViews:
    """Render an object at every camera, from both sides where its parts are not single-sided.

    The object is uploaded once for all views, and nothing of it stays in GL memory. GL contexts do
    not survive a fork: start worker processes with "spawn".

    Args:
        object: what to draw, in world coordinates.
        cameras: V cameras; principal points and focal lengths may be any.
        backend: "moderngl" (OpenGL through EGL), "embreex" (ray casting on the CPU), "cycles"
            (path tracing, see `hi3d.rendering.blender`), or "auto", the first where there is
            OpenGL, else the second with a warning.
        supersampling: S, a pixel is the mean of S x S sub-pixels; "moderngl" takes 4 samples of
            coverage in each of them, "cycles" has its own number of samples. By default 1 for
            images of 1024 pixels and more with "moderngl", else 2.
        shading: "unlit", "uniform" or "key", see `hi3d.rendering.shading`.
        normals: also give normals.
        cycles: how the backend "cycles" renders; by default 128 samples.

    Returns:
        Images, depth and normals on the cameras' device.

    Raises:
        InputError: an unknown backend or shading, or a backend that cannot be used here.
        RuntimeError: Blender failed, died or took too long; it is started anew for the next object.
        ValueError: `supersampling` is below 1.
    """
    if supersampling is not None and supersampling < 1:
        raise ValueError(f"supersampling must be at least 1, got {supersampling}")
    if shading not in SHADINGS:
        raise InputError(f"unknown shading {shading!r}: use {', '.join(SHADINGS)}")
    used = available_backend(backend, cycles.blender_python if cycles else None)
    viewmats = cameras.viewmats.detach().cpu().double().numpy()
    Ks = cameras.Ks.detach().cpu().double().numpy()
    size = cameras.width, cameras.height
    drawing: Drawing
    if used == "cycles":
        drawing = blender.draw(object, viewmats, Ks, *size, cycles, shading, normals)
    elif used == "moderngl":
        factor = supersampling or (1 if min(size) >= ENOUGH_PIXELS else 2)
        drawing = opengl.draw(object, viewmats, Ks, *size, factor, shading, normals)
    else:
        drawing = embree.draw(object, viewmats, Ks, *size, supersampling or 2, shading, normals)
    device = cameras.viewmats.device
    return RenderedViews(
        torch.from_numpy(drawing.rgba8).to(device),
        torch.from_numpy(drawing.depth).to(device),
        cameras,
        used,
        None
        if drawing.normals is None
        else torch.from_numpy(drawing.normals).permute(0, 3, 1, 2).to(device),
    )


def available_backend(backend: str = "auto", blender_python: str | None = None) -> str:
    """The backend that "auto" stands for here, or `backend` itself if it can be used.

    Raises:
        InputError: the backend is unknown or cannot be used here.
    """
    if backend not in BACKENDS:
        raise InputError(f"unknown backend {backend!r}: use {', '.join(BACKENDS)}")
    if backend == "embreex":
        return "embreex"
    if backend == "cycles":
        blender_command(blender_python)
        return "cycles"
    error = opengl.opengl_error()
    if error is None:
        return "moderngl"
    fix = "install libegl1 and libgl1-mesa-dri"
    if backend == "moderngl":
        raise InputError(f"no OpenGL ({error}): {fix}, or use backend=embreex")
    if error not in _warned:
        _warned.add(error)
        console.print(f"no OpenGL ({error}): rendering with embreex; {fix} to render faster")
    return "embreex"
