"""The terms of the NeuS objective. Each is a pure function, to be scaled by its `lambda_`."""

import torch
from torch import Tensor

COLOR_BETA = 0.01
"""Color differences below this are squared: an L1 loss whose gradient is continuous at zero."""
OPACITY_EPS = 1e-3
"""Opacities are pulled this far from 0 and 1 before the logarithms."""


def loss_color(rgb: Tensor, target_rgb: Tensor, ray_weights: Tensor) -> Tensor:
    """L1 color error (NeuS, Eq. 15), smooth below `COLOR_BETA`.

    Args:
        rgb: [B, 3] rendered color over white.
        target_rgb: [B, 3] the pixel's color over white.
        ray_weights: [B] weight of the ray's view.
    """
    errors = torch.nn.functional.smooth_l1_loss(rgb, target_rgb, reduction="none", beta=COLOR_BETA)
    return (errors.mean(-1) * ray_weights).mean()


def loss_mask(opacity: Tensor, target_alpha: Tensor, ray_weights: Tensor) -> Tensor:
    """Binary cross entropy of the accumulated weights (NeuS, Eq. 17).

    Args:
        opacity: [B] sum of the ray's weights.
        target_alpha: [B] the pixel's alpha.
        ray_weights: [B] weight of the ray's view.
    """
    p = OPACITY_EPS + (1 - 2 * OPACITY_EPS) * opacity
    entropy = -target_alpha * torch.log(p) - (1 - target_alpha) * torch.log(1 - p)
    return (entropy * ray_weights).mean()


def loss_eikonal(gradients: Tensor) -> Tensor:
    """`mean (|gradient| - 1)^2` (NeuS, Eq. 16).

    Args:
        gradients: [N, 3] of the SDF.
    """
    norms = (gradients.square().sum(-1) + 1e-12).sqrt()
    return (norms - 1).square().mean()


def loss_curvature(laplacians: Tensor) -> Tensor:
    """`mean laplacian^2`: a smooth surface where the images say nothing.

    Args:
        laplacians: [N] mean of the six neighbors' SDF minus the SDF, in voxels.
    """
    return laplacians.square().mean()


def loss_bending(wide_laplacians: Tensor) -> Tensor:
    """The same over some voxels: it sees dents and bulges that are too wide for `loss_curvature`.

    Args:
        wide_laplacians: [N] mean of the SDF some voxels away minus the SDF, in voxels; 0 where
            unknown.
    """
    return wide_laplacians.square().mean()


def loss_color_smoothness(laplacians: Tensor) -> Tensor:
    """The same for the color logits, summed over the channels.

    Args:
        laplacians: [N, 3] mean of the six neighbors' logits minus the logits.
    """
    return laplacians.square().sum(-1).mean()
