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
