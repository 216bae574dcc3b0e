"""One function over the three rasterizers."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from hi3d.cameras import Cameras
from hi3d.splats import GaussianSplats
from hi3d.splatting.rasterization.cuda import rasterize_gsplat
from hi3d.splatting.rasterization.native import raster_kernel, rasterize_native
from hi3d.splatting.rasterization.native_projection import project_native
from hi3d.splatting.rasterization.projection import (
    evaluate_harmonics,
    leave_out_unusable,
    project_splats,
)
from hi3d.splatting.rasterization.torch_reference import rasterize_reference

SplatBackend = Literal["auto", "gsplat", "native", "torch"]


@dataclass(frozen=True)
class RenderedSplats:
    """What V cameras see."""

    rgb: Tensor  # [V, 3, H, W]
    """Color over the background; not clamped at 1."""
    alpha: Tensor  # [V, 1, H, W]
    """Opacity in [0, 1]."""
    depth: Tensor  # [V, 1, H, W]
    """Mean depth along the camera's z axis, weighted as the colors are; 0 where alpha is 0."""
    means2d: Tensor  # [V, N, 2]
    """Projected centers in pixels: a node of the graph, whose gradient guides densification."""
    radii: Tensor  # [V, N, 2]
    """Half sizes of the Gaussians' boxes in pixels; 0 where one cannot touch a pixel."""

    @property
    def visible(self) -> Tensor:
        """Whether each Gaussian can touch a pixel. [V, N] bool"""
        return (self.radii > 0).all(-1)


def choose_backend(means: Tensor) -> SplatBackend:
    """The fastest rasterizer for Gaussians where `means` lie: gsplat on CUDA, C on the CPU.

    Other devices, other types than float32, and a CPU without a compiler get the torch one.
    """
    if means.dtype != torch.float32:
        return "torch"
    if means.device.type == "cuda":
        return "gsplat"
    return "native" if means.device.type == "cpu" and raster_kernel() is not None else "torch"


def rasterize(
    splats: GaussianSplats,
    cameras: Cameras,
    background: float = 1.0,
    backend: SplatBackend = "auto",
) -> RenderedSplats:
    """Render Gaussians, differentiably (paper, Equations 2 and 3).

    Args:
        splats: N Gaussians. Those with NaN, infinite or absurdly large numbers are left out.
        cameras: V cameras on the same device.
        background: gray level in [0, 1] behind the object; 1 is white.
        backend: "gsplat" (CUDA), "native" (C on the CPU), "torch" (anywhere, slow), or "auto":
            the fastest there is for the splats' device.

    Raises:
        ValueError: an unknown backend, or one that cannot run here.
    """
    if backend not in get_args(SplatBackend):
        raise ValueError(
            f"backend must be one of {', '.join(get_args(SplatBackend))}, got {backend!r}"
        )
    if backend == "auto":
        backend = choose_backend(splats.means)
    splats, usable = leave_out_unusable(splats)
    if backend == "gsplat":
        rgb, alpha, depth, means2d, radii = rasterize_gsplat(splats, cameras)
        radii = radii * usable[:, None]
        return RenderedSplats(rgb + (1 - alpha) * background, alpha, depth, means2d, radii)

    project = project_native if backend == "native" else project_splats
    projected = project(splats.means, splats.quats, splats.scales, splats.opacities, cameras)
    if splats.sh_degree == 0:  # the same from everywhere
        colors = evaluate_harmonics(splats.sh, splats.means).expand(len(cameras), -1, -1)
    else:
        toward = splats.means - cameras.positions[:, None]  # [V, N, 3]
        colors = evaluate_harmonics(splats.sh, torch.nn.functional.normalize(toward, dim=-1))
    features = torch.cat([colors, projected.depths[..., None]], dim=-1)
    composite = rasterize_native if backend == "native" else rasterize_reference
    images, alphas = [], []
    for view in range(len(cameras)):
        image, alpha = composite(
            projected.means2d[view],
            projected.conics[view],
            projected.opacities[view],
            features[view],
            projected.depths[view],
            projected.radii[view],
            cameras.width,
            cameras.height,
        )
        images.append(image)
        alphas.append(alpha)
    image, alpha = torch.stack(images), torch.stack(alphas)[:, None]
    depth = image[:, 3:] / alpha.clamp(min=1e-8)
    return RenderedSplats(
        image[:, :3] + (1 - alpha) * background, alpha, depth, projected.means2d, projected.radii
    )
