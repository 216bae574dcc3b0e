"""The video to whose latents the small model's stage 1 adds a difference."""

import torch
import torch.nn.functional as F
from torch import Tensor

from hi3d.cameras import NUM_ORBIT_VIEWS
from hi3d.diffusion.base_orbit import BaseOrbit
from hi3d.nano.grid.predictor import (
    GridPredictor,
    predict_grid,
    render_grid,
    render_hidden,
)


def base_orbit(
    predictor: GridPredictor | None,
    reference: Tensor,
    elevation_deg: Tensor,
    num_frames: int = NUM_ORBIT_VIEWS,
    noise: Tensor | None = None,
    with_free: bool = True,
) -> BaseOrbit:
    """The predicted orbit, or else the reference image, mirrored behind the object.

    Args:
        predictor: None where the model has none.
        reference: [B, 4, H, W] RGB over white and alpha, in [0, 1].
        elevation_deg: [B].
        num_frames: T.
        noise: of `hi3d.nano.grid.certainty.drawn_noise`; None predicts the likeliest object.
        with_free: also say what may differ from it: what is opaque, and not seen by the photo.
    """
    rgb = reference[:, :3]
    if predictor is None:
        return BaseOrbit(repeat_around(rgb, num_frames))
    grid = orbit_grid(predictor, reference, elevation_deg, noise)
    frames, alpha = render_grid(grid, elevation_deg, rgb.shape[-1], num_frames)
    frames[:, 0], alpha[:, 0] = rgb, reference[:, 3:]
    if not with_free:
        return BaseOrbit(frames, alpha)
    free = render_hidden(grid, elevation_deg, rgb.shape[-1], num_frames)
    free[:, 0] = 0
    return BaseOrbit(frames, alpha, free)


def orbit_grid(
    predictor: GridPredictor, reference: Tensor, elevation_deg: Tensor, noise: Tensor | None
) -> Tensor:
    """The grid that the predicted orbit shows. [B, 4, G, G, G] as `predict_grid` gives it

    Args:
        predictor: in evaluation mode.
        reference: [B, 4, H, W] RGB over white and alpha, in [0, 1].
        elevation_deg: [B].
        noise: as `base_orbit`.
    """
    size = predictor.config.resolution
    small = F.interpolate(reference, (size, size), mode="area")
    return predict_grid(predictor, small, elevation_deg, noise)


def repeat_around(reference: Tensor, num_frames: int) -> Tensor:
    """The reference image as a guess of the orbit: as it is in front, mirrored behind.

    From opposite sides an object has the same outline, mirrored (exactly so for parallel rays at
    the horizon), so the mirrored image is nearer to the views from 90 degrees on.

    Args:
        reference: [B, 3, H, W].
        num_frames: T, spread evenly over 360 degrees.

    Returns:
        [B, T, 3, H, W].
    """
    frame = torch.arange(num_frames, device=reference.device)
    behind = (4 * frame >= num_frames) & (4 * frame <= 3 * num_frames)
    return torch.where(
        behind[None, :, None, None, None], reference.flip(-1)[:, None], reference[:, None]
    )
