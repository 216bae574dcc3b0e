"""Differentiable structural similarity, a part of the splats' loss (Kerbl et al. [23], Eq. 7)."""

import ctypes
import functools

import torch
from torch import Tensor

from hi3d.reconstruction.native.build import load_native, num_threads, pointer

RADIUS, SIGMA = 5, 1.5  # 11x11 Gaussian window (Wang et al. 2004)
C1, C2 = 0.01**2, 0.03**2  # for images in [0, 1]


def ssim(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean structural similarity of images, with zeros beyond the border.

    Args:
        predicted: [V, C, H, W] in [0, 1].
        target: [V, C, H, W] in [0, 1]. Gets no gradient.

    Returns:
        A scalar, at most 1.

    Source: Wang et al. 2004, Equation 13, with an 11x11 Gaussian window.
    """
    target = target.detach()
    mean_y, mean_yy = blur(torch.stack([target, target * target]))
    mean_x, mean_xx, mean_xy = blur(
        torch.stack([predicted, predicted * predicted, predicted * target])
    )
    product, squares = mean_x * mean_y, mean_x * mean_x + mean_y * mean_y
    covariance = mean_xy - product
    variances = mean_xx + mean_yy - squares
    similarity = (2 * product + C1) * (2 * covariance + C2)
    return (similarity / ((squares + C1) * (variances + C2))).mean()


def blur(images: Tensor) -> Tensor:
    """Gaussian blur with zeros beyond the border; C on the CPU where it compiles, else torch.

    Args:
        images: [..., H, W] float32.
    """
    if images.device.type == "cpu" and images.dtype == torch.float32 and _library() is not None:
        return _BlurNative.apply(images)
    return blur_reference(images)


def blur_reference(images: Tensor) -> Tensor:
    """The readable twin of `blur`."""
    kernel = _kernel().to(images)
    planes = images.reshape(-1, 1, *images.shape[-2:])
    planes = torch.nn.functional.conv2d(planes, kernel.view(1, 1, -1, 1), padding=(RADIUS, 0))
    planes = torch.nn.functional.conv2d(planes, kernel.view(1, 1, 1, -1), padding=(0, RADIUS))
    return planes.reshape(images.shape)


@functools.cache
def _kernel() -> Tensor:
    weights = torch.exp(-(torch.arange(-RADIUS, RADIUS + 1).float() ** 2) / (2 * SIGMA**2))
    return weights / weights.sum()


@functools.cache
def _library() -> ctypes.CDLL | None:
    library = load_native("separable_blur")
    if library is not None:
        address, size = ctypes.c_void_p, ctypes.c_int64
        library.separable_blur.restype = None
        library.separable_blur.argtypes = [
            *[address] * 2, *[size] * 4, ctypes.c_int, *[address] * 2
        ]  # fmt: skip
    return library


class _BlurNative(torch.autograd.Function):
    @staticmethod
    def forward(ctx, images: Tensor) -> Tensor:
        return _blur_native(images)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:  # type: ignore[override]
        return _blur_native(grad)  # a symmetric kernel is its own adjoint


def _blur_native(images: Tensor) -> Tensor:
    library = _library()
    assert library is not None
    images = images.contiguous()
    height, width = images.shape[-2:]
    num_planes = images.numel() // (height * width)
    blurred = torch.empty_like(images)
    scratch = torch.zeros(num_planes, width + 2 * RADIUS)
    library.separable_blur(
        pointer(images), pointer(_kernel()), RADIUS, num_planes, height, width, num_threads(),
        pointer(scratch), pointer(blurred),
    )  # fmt: skip
    return blurred
