"""The projection on the CPU: autograd around the kernels of `splat_projection.c`."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hi3d.cameras import Cameras
from hi3d.native import Kernel, load_kernel, num_threads
from hi3d.splatting.rasterization.projection import ProjectedSplats


def projection_kernel() -> Kernel | None:
    """The compiled kernel, or None where there is no compiler."""
    return load_kernel(Path(__file__).with_name("splat_projection.c"))


def project_native(
    means: Tensor,  # [N, 3]
    quats: Tensor,  # [N, 4] wxyz
    scales: Tensor,  # [N, 3]
    opacities: Tensor,  # [N]
    cameras: Cameras,
) -> ProjectedSplats:
    """The fast twin of `project_splats` for float32 on the CPU. The cameras get no gradient.

    Raises:
        ValueError: wrong dtype or device, or there is no compiler (see `projection_kernel`).
    """
    tensors = (means, quats, scales, opacities, cameras.viewmats, cameras.Ks)
    if any(t.dtype != torch.float32 or t.device.type != "cpu" for t in tensors):
        raise ValueError("splats and cameras must be float32 on the CPU")
    if projection_kernel() is None:
        raise ValueError("the projection is not compiled: use backend='torch'")
    return ProjectedSplats(*_ProjectNative.apply(means, quats, scales, opacities, cameras))


class _ProjectNative(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        means: Tensor,
        quats: Tensor,
        scales: Tensor,
        opacities: Tensor,
        cameras: Cameras,
    ) -> tuple[Tensor, ...]:
        kernel = projection_kernel()
        assert kernel is not None
        tensors = (means, quats, scales, opacities, cameras.viewmats, cameras.Ks)
        inputs = [tensor.detach().contiguous() for tensor in tensors]
        num_views, num = len(cameras), len(means)
        sizes = (num, num_views, cameras.width, cameras.height)
        means2d, conics, radii = (torch.empty(num_views, num, k) for k in (2, 3, 2))
        depths, projected_opacities = (torch.empty(num_views, num) for _ in range(2))
        outputs = (means2d, conics, depths, projected_opacities, radii)
        kernel.splat_project(*inputs, *sizes, num_threads(), *outputs)
        ctx.save_for_backward(*inputs)
        ctx.sizes = sizes
        ctx.mark_non_differentiable(radii)
        return outputs

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        kernel = projection_kernel()
        assert kernel is not None
        inputs = ctx.saved_tensors
        given = [grad.contiguous() for grad in grad_outputs[:4]]
        grads = [torch.empty_like(tensor) for tensor in inputs[:4]]
        kernel.splat_project_backward(*inputs, *ctx.sizes, num_threads(), *given, *grads)
        return *grads, None
