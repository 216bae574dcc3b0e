"""Differentiable structural similarity, a part of the splats' loss (Kerbl et al. [23], Eq. 7)."""

import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hi3d.native import Kernel, load_kernel, num_threads

RADIUS, SIGMA = 5, 1.5  # 11x11 Gaussian window (Wang et al. 2004)
C1, C2 = 0.01**2, 0.03**2  # for images in [0, 1]


def loss_ssim(predicted: Tensor, target: Tensor) -> Tensor:
    """1 - the mean structural similarity of images, with zeros beyond the border.

    Computed by C on the CPU where it compiles, else by `loss_ssim_reference`.

    Args:
        predicted: [V, C, H, W] in [0, 1].
        target: [V, C, H, W] in [0, 1]. Gets no gradient.

    Returns:
        A scalar, at least 0.

    Source: Wang et al. 2004, Equation 13, with an 11x11 Gaussian window.
    """
    on_cpu = predicted.device.type == target.device.type == "cpu"
    if on_cpu and predicted.dtype == target.dtype == torch.float32 and _kernel() is not None:
        return 1 - _SsimNative.apply(predicted, target)
    return loss_ssim_reference(predicted, target)


def loss_ssim_reference(predicted: Tensor, target: Tensor) -> Tensor:
    """The readable twin of `loss_ssim`."""
    target = target.detach()
    mean_y, mean_yy = blur(torch.stack([target, target * target]))
    mean_x, mean_xx, mean_xy = blur(
        torch.stack([predicted, predicted * predicted, predicted * target])
    )
    product, squares = mean_x * mean_y, mean_x * mean_x + mean_y * mean_y
    covariance = mean_xy - product
    variances = mean_xx + mean_yy - squares
    similarity = (2 * product + C1) * (2 * covariance + C2)
    return 1 - (similarity / ((squares + C1) * (variances + C2))).mean()


def blur(images: Tensor) -> Tensor:
    """The Gaussian window's means, with zeros beyond the border.

    Args:
        images: [..., H, W] floating point.
    """
    window = _window().to(images)
    planes = images.reshape(-1, 1, *images.shape[-2:])
    planes = torch.nn.functional.conv2d(planes, window.view(1, 1, -1, 1), padding=(RADIUS, 0))
    planes = torch.nn.functional.conv2d(planes, window.view(1, 1, 1, -1), padding=(0, RADIUS))
    return planes.reshape(images.shape)


@functools.cache
def _window() -> Tensor:
    weights = torch.exp(-(torch.arange(-RADIUS, RADIUS + 1).float() ** 2) / (2 * SIGMA**2))
    return weights / weights.sum()


def _kernel() -> Kernel | None:
    return load_kernel(Path(__file__).with_name("ssim.c"))


class _SsimNative(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, predicted: Tensor, target: Tensor) -> Tensor:
        kernel = _kernel()
        assert kernel is not None
        if predicted.shape != target.shape:
            raise ValueError(f"images of {list(predicted.shape)} and {list(target.shape)}")
        predicted, target = predicted.detach().contiguous(), target.detach().contiguous()
        height, width = predicted.shape[-2:]
        num_planes = predicted.numel() // (height * width)
        gradients = torch.empty_like(predicted)
        derivatives = torch.empty(3, *predicted.shape)
        totals = torch.empty(num_planes, height, dtype=torch.float64)
        failed = kernel.ssim(
            predicted, target, _window(), RADIUS, num_planes, height, width,
            num_threads(), derivatives, totals, gradients,
        )  # fmt: skip
        if failed:
            raise MemoryError("no memory for a few rows of an image")
        ctx.save_for_backward(gradients)
        return (totals.sum() / predicted.numel()).float()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (gradients,) = ctx.saved_tensors
        return gradients * (grad / gradients.numel()), None
