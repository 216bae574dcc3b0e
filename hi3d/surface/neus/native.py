"""The NeuS objective computed by `neus_grid.c`: one fused forward and backward pass."""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hi3d.native import Kernel, load_kernel, num_threads
from hi3d.surface.grid import BENDING_REACH, ActiveGrid
from hi3d.surface.neus.config import LossWeights
from hi3d.surface.neus.renderer import MIN_TRANSMITTANCE, StepSamples


def native_is_available() -> bool:
    """Whether the kernel is there or can be built."""
    return load_kernel(Path(__file__).with_name("neus_grid.c")) is not None


def native_objective(
    grid: ActiveGrid, samples: StepSamples, inv_s: Tensor, step: float, weights: LossWeights
) -> tuple[Tensor, dict[str, Tensor]]:
    """`renderer.neus_objective` on the CPU: same arguments, same results, gradients to first order.

    Raises:
        ValueError: tensors are not on the CPU or not float32, or there is no compiler.
    """
    objective, *losses = _FusedObjective.apply(
        grid.sdf, grid.rgb_logits, inv_s, grid, samples, step, weights
    )
    names = ("color", "mask", "eikonal", "curvature", "bending", "color_smoothness")
    return objective, {f"loss_{name}": loss for name, loss in zip(names, losses, strict=True)}


class _FusedObjective(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        sdf: Tensor,
        rgb_logits: Tensor,
        inv_s: Tensor,
        grid: ActiveGrid,
        samples: StepSamples,
        step: float,
        weights: LossWeights,
    ) -> tuple[Tensor, ...]:
        threads, num = num_threads(), len(sdf)
        grad_sdf, grad_rgb_logits = torch.empty(num), torch.empty(num, 3)
        values, grads = torch.empty(num, 4), torch.empty(threads, num, 4)
        render_sums = torch.zeros(threads, 4, dtype=torch.float64)
        regularizer_sums = torch.zeros(threads, 4, dtype=torch.float64)
        rays, R = samples.rays, grid.resolution
        kernel = _kernel()
        kernel.neus_pack(sdf.detach(), rgb_logits.detach(), num, threads, values)
        failed = kernel.neus_render(
            values,
            num,
            grid.vertex_index,
            grid.cell_active,
            R,
            grid.half_extent,
            *(rays.origins, rays.directions, samples.t_near, samples.t_far),
            *(rays.rgb, rays.alpha, rays.weights),
            len(rays.origins),
            step,
            inv_s.item(),
            weights.mask,
            MIN_TRANSMITTANCE,
            threads,
            grads,
            render_sums,
        )
        if failed:
            raise MemoryError("no memory for the samples of a ray: use a coarser grid")
        kernel.neus_regularize(
            values,
            num,
            grid.vertex_index,
            R,
            grid.voxel_size,
            samples.vertices,
            len(samples.vertices),
            weights.eikonal,
            weights.curvature,
            weights.bending,
            BENDING_REACH,
            weights.color_smoothness,
            threads,
            *(grads, regularizer_sums, grad_sdf, grad_rgb_logits),
        )
        color, mask, grad_inv_s, _ = render_sums.sum(0).float().unbind()
        losses = [color, mask, *regularizer_sums.sum(0).float().unbind()]
        lambdas = torch.tensor([1.0, *dataclasses.astuple(weights)])
        objective = (torch.stack(losses) * lambdas).sum()
        # Not `save_for_backward`: nothing else may hold them if autograd is to take them uncopied.
        ctx.gradients = [grad_sdf, grad_rgb_logits, grad_inv_s]
        ctx.mark_non_differentiable(*losses)
        return objective, *losses

    @staticmethod
    def backward(ctx: Any, grad_objective: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        gradients, ctx.gradients = ctx.gradients, None
        if grad_objective.item() != 1:
            gradients = [grad_objective * gradient for gradient in gradients]
        return *gradients, None, None, None, None


def _kernel() -> Kernel:
    kernel = load_kernel(Path(__file__).with_name("neus_grid.c"))
    if kernel is None:
        raise ValueError("the native NeuS step needs a C compiler: use backend torch")
    return kernel
