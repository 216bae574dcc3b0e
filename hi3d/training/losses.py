"""Image losses shared by the small networks' trainings, each a pure function."""

import torch
import torch.nn.functional as F
from torch import Tensor


def loss_l1(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference; any equal shapes. Returns a scalar."""
    return (predicted - target).abs().mean()


def loss_gradient(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of the horizontal and vertical pixel differences.

    Args:
        predicted: [..., H, W].
        target: [..., H, W].

    Returns:
        Scalar.
    """
    error = predicted - target
    return error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()


def relative_weights(residual: Tensor, floor: float) -> Tensor:
    """Weights of frames that make the error of each count relative to its own difference.

    The mean of PSNRs (dB) rewards a relative error: a frame that hardly differs from its base must
    be predicted much better than one that differs much. w = 1 / (r^2 / mean r^2 + floor).

    Args:
        residual: [B, T, C, h, w] difference of each frame to its base.
        floor: largest weight is 1 / floor.

    Returns:
        [B, T, 1, 1, 1].
    """
    squared = residual.square().mean((2, 3, 4), keepdim=True)
    return 1 / (squared / squared.mean().clamp_min(1e-12) + floor)


def loss_contrastive(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Symmetric InfoNCE (arXiv 2103.00020, Figure 3): row i of both is one object.

    Args:
        first: [B, D] embeddings of one view of each object.
        second: [B, D] embeddings of another view.
        temperature: divides the cosine similarities.

    Returns:
        Scalar.
    """
    logits = F.normalize(first, dim=-1) @ F.normalize(second, dim=-1).T / temperature
    labels = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
