"""Classifier-free guidance whose scale depends on the frame of the orbit."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hi3d.config import check_choice, check_number

SCHEDULES = ("constant", "linear", "triangle")
MAX_SCALE = 100.0


@dataclass
class GuidanceConfig:
    """Guidance scale over the frames of an orbit."""

    schedule: str = "linear"
    """constant: `max_scale` everywhere; linear: from `min_scale` at frame 0 to `max_scale` at the
    last (Hi3D's released code); triangle: up to `max_scale` behind the object and back (SV3D,
    arXiv 2403.12008, Section 3)."""
    min_scale: float = 1.0
    """Scale at frame 0, 0 to 100; 1 means no guidance."""
    max_scale: float = 2.5
    """Largest scale, 0 to 100."""

    def __post_init__(self) -> None:
        check_choice("guidance.schedule", self.schedule, SCHEDULES)
        check_number("guidance.min_scale", self.min_scale, 0, MAX_SCALE)
        check_number("guidance.max_scale", self.max_scale, 0, MAX_SCALE)


def guidance_scales(config: GuidanceConfig, num_frames: int) -> Tensor:
    """The scale of each frame.

    Returns:
        [num_frames].
    """
    low, high = config.min_scale, config.max_scale
    frame = torch.arange(num_frames) / max(num_frames - 1, 1)
    if config.schedule == "constant":
        return torch.full((num_frames,), high)
    if config.schedule == "linear":
        return low + (high - low) * frame
    return low + (high - low) * (1 - (2 * frame - 1).abs())


def guide(conditional: Tensor, unconditional: Tensor, scales: Tensor) -> Tensor:
    """Classifier-free guidance (arXiv 2207.12598), u + scale (c - u), frame by frame.

    Args:
        conditional: [B, T, C, h, w] denoised with the condition.
        unconditional: [B, T, C, h, w] denoised without it.
        scales: [T].

    Returns:
        [B, T, C, h, w].
    """
    scales = scales.to(conditional)[None, :, None, None, None]
    return unconditional + scales * (conditional - unconditional)
