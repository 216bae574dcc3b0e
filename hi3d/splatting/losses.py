"""What a fit of Gaussians minimizes (Kerbl et al. [23], Equation 7, and the same for alpha)."""

from torch import Tensor

from hi3d.splatting.ssim import loss_ssim

LAMBDA_SSIM = 0.2  # of 1 - SSIM against L1, as in 3DGS
LAMBDA_ALPHA = 0.5  # of the L1 of alpha: what the views call empty is to stay empty


def loss_l1(predicted: Tensor, target: Tensor) -> Tensor:
    """The mean absolute difference of images of the same shape."""
    return (predicted - target).abs().mean()


def loss_color(predicted: Tensor, target: Tensor) -> Tensor:
    """(1 - lambda) L1 + lambda (1 - SSIM) of images (Kerbl et al. [23], Equation 7).

    Args:
        predicted: [V, 3, H, W]
        target: [V, 3, H, W] in [0, 1].
    """
    structure = loss_ssim(predicted, target)
    return (1 - LAMBDA_SSIM) * loss_l1(predicted, target) + LAMBDA_SSIM * structure


def loss_view(rgb: Tensor, alpha: Tensor, target_rgb: Tensor, target_alpha: Tensor) -> Tensor:
    """The whole loss of V renderings: of color, and of opacity.

    Args:
        rgb: [V, 3, H, W] over white.
        alpha: [V, 1, H, W]
        target_rgb: [V, 3, H, W] over white, in [0, 1].
        target_alpha: [V, 1, H, W] in [0, 1].
    """
    return loss_color(rgb, target_rgb) + LAMBDA_ALPHA * loss_l1(alpha, target_alpha)
