"""Views of an object: unlit base colour, alpha and depth at given cameras."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hi3d.cameras import Cameras
from hi3d.errors import InputError
from hi3d.progress import console
from hi3d.rendering import opengl, ray_casting
from hi3d.rendering.objects import RenderObject
from hi3d.views import Views

_warned: set[str] = set()


@dataclass(frozen=True)
class RenderedViews:
    """V rendered images of one object with their depth."""

    rgb: Tensor  # [V, 3, H, W]
    """Unlit base colour in [0, 1], sRGB, composited over white."""
    alpha: Tensor  # [V, 1, H, W]
    """Opacity in [0, 1]: the covered share of each pixel."""
    depth: Tensor  # [V, H, W]
    """Camera z of the first surface at each pixel centre; 0 where there is none."""
    cameras: Cameras
    """The cameras that were rendered."""
    backend: str
    """What drew: "moderngl" or "embreex"."""

    @property
    def views(self) -> Views:
        """The images without depth."""
        return Views(self.rgb, self.alpha, self.cameras)


def render_views(
    object: RenderObject, cameras: Cameras, backend: str = "auto", supersampling: int = 2
) -> RenderedViews:
    """Render an object, unlit and double-sided, at every camera.

    The object is uploaded once for all views, and nothing of it stays in GL memory. GL contexts do
    not survive a fork: start worker processes with "spawn".

    Args:
        object: what to draw, in world coordinates.
        cameras: V cameras; principal points and focal lengths may be any.
        backend: "moderngl" (OpenGL through EGL), "embreex" (ray casting on the CPU), or "auto", the
            first where there is OpenGL, else the second with a warning.
        supersampling: S, a pixel is the mean of S x S sub-pixels; "moderngl" takes 4 samples of
            coverage in each of them.

    Returns:
        Images and depth on the cameras' device.

    Raises:
        InputError: an unknown backend, or "moderngl" without OpenGL.
        ValueError: `supersampling` is below 1.
    """
    if supersampling < 1:
        raise ValueError(f"supersampling must be at least 1, got {supersampling}")
    used = available_backend(backend)
    module = opengl if used == "moderngl" else ray_casting
    premultiplied, depth = module.draw(
        object,
        cameras.viewmats.detach().cpu().double().numpy(),
        cameras.Ks.detach().cpu().double().numpy(),
        cameras.width,
        cameras.height,
        supersampling,
    )
    rgba = torch.from_numpy(np.ascontiguousarray(premultiplied.transpose(0, 3, 1, 2)))
    alpha = rgba[:, 3:].clamp(0, 1)
    rgb = (rgba[:, :3] + 1 - alpha).clamp(0, 1)
    device = cameras.viewmats.device
    return RenderedViews(
        rgb.to(device), alpha.to(device), torch.from_numpy(depth).to(device), cameras, used
    )


def available_backend(backend: str = "auto") -> str:
    """The backend that "auto" stands for here, or `backend` itself if it can be used.

    Raises:
        InputError: the backend is unknown or cannot be used here.
    """
    if backend == "embreex":
        return "embreex"
    if backend not in ("auto", "moderngl"):
        raise InputError(f"unknown backend {backend!r}: use auto, moderngl or embreex")
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
