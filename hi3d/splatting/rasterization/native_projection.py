"""The projection on the CPU: autograd around the kernels of `native/splat_projection.c`."""

import ctypes
import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hi3d.cameras import Cameras
from hi3d.native import load_native, num_threads, pointer
from hi3d.splatting.rasterization.projection import ProjectedSplats

_ADDRESS, _SIZE, _INT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int


@functools.cache
def native_library() -> ctypes.CDLL | None:
    """The compiled kernels, or None where there is no compiler."""
    library = load_native(Path(__file__).with_name("splat_projection.c"))
    if library is not None:
        sizes = [*[_SIZE] * 4, _INT, _INT]
        library.splat_project.restype = None
        library.splat_project.argtypes = [*[_ADDRESS] * 6, *sizes, *[_ADDRESS] * 5]
        library.splat_project_backward.restype = None
        library.splat_project_backward.argtypes = [*[_ADDRESS] * 6, *sizes, *[_ADDRESS] * 8]
    return library


def project_native(
    means: Tensor,  # [N, 3]
    quats: Tensor,  # [N, 4] wxyz
    scales: Tensor,  # [N, 3]
    opacities: Tensor,  # [N]
    cameras: Cameras,
    antialiased: bool = False,
) -> ProjectedSplats:
    """The fast twin of `project_splats` for float32 on the CPU. The cameras get no gradient.

    Raises:
        ValueError: wrong dtype or device, or there is no compiler (see `native_library`).
    """
    tensors = (means, quats, scales, opacities, cameras.viewmats, cameras.Ks)
    if any(t.dtype != torch.float32 or t.device.type != "cpu" for t in tensors):
        raise ValueError("splats and cameras must be float32 on the CPU")
    if native_library() is None:
        raise ValueError("the projection is not compiled: use backend='torch'")
    return ProjectedSplats(
        *_ProjectNative.apply(means, quats, scales, opacities, cameras, antialiased)
    )


class _ProjectNative(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        means: Tensor,
        quats: Tensor,
        scales: Tensor,
        opacities: Tensor,
        cameras: Cameras,
        antialiased: bool,
    ) -> tuple[Tensor, ...]:
        library = native_library()
        assert library is not None
        tensors = (means, quats, scales, opacities, cameras.viewmats, cameras.Ks)
        inputs = [tensor.detach().contiguous() for tensor in tensors]
        num_views, num = len(cameras), len(means)
        sizes = (num, num_views, cameras.width, cameras.height, antialiased)
        means2d, conics, radii = (torch.empty(num_views, num, k) for k in (2, 3, 2))
        depths, projected_opacities = (torch.empty(num_views, num) for _ in range(2))
        outputs = (means2d, conics, depths, projected_opacities, radii)
        library.splat_project(*map(pointer, inputs), *sizes, num_threads(), *map(pointer, outputs))
        ctx.save_for_backward(*inputs)
        ctx.sizes = sizes
        ctx.mark_non_differentiable(radii)
        return outputs

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        library = native_library()
        assert library is not None
        inputs = ctx.saved_tensors
        given = [grad.contiguous() for grad in grad_outputs[:4]]
        grads = [torch.empty_like(tensor) for tensor in inputs[:4]]
        library.splat_project_backward(
            *map(pointer, inputs), *ctx.sizes, num_threads(), *map(pointer, (*given, *grads))
        )
        return *grads, None, None
