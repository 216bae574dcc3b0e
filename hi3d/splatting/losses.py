"""What a fit of Gaussians minimises, also where the views do not quite agree."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from hi3d.evaluation.lpips import Lpips, LpipsConfig
from hi3d.splats import GaussianSplats
from hi3d.splatting.ssim import ssim

PixelLoss = Literal["l1", "charbonnier", "trimmed"]


@dataclass
class SplatLossConfig:
    """Weights and kinds of the losses."""

    pixel: PixelLoss = "l1"
    """Of colour and alpha: "l1"; "charbonnier", quadratic below `charbonnier_eps`; "trimmed", L1
    without the worst pixels."""
    charbonnier_eps: float = 0.03
    trim_share: float = 0.1
    """Share of the pixels of a view that "trimmed" leaves out, in [0, 1)."""
    lambda_ssim: float = 0.2
    """Weight of 1 - SSIM against the pixel loss (3DGS)."""
    lambda_alpha: float = 0.5
    """Weight of the pixel loss of alpha."""
    lambda_lpips: float = 0.0
    """Weight of LPIPS (Zhang et al. 2018), besides the others; 0 does without its network."""
    lpips: LpipsConfig = field(default_factory=LpipsConfig)
    lambda_opacity: float = 0.0
    """Weight of the mean opacity (3DGS-MCMC takes 0.01)."""
    lambda_scale: float = 0.0
    """Weight of the mean standard deviation (3DGS-MCMC takes 0.01)."""


def loss_pixels(predicted: Tensor, target: Tensor, config: SplatLossConfig) -> Tensor:
    """The mean difference of images, without regard to their structure.

    Args:
        predicted: [V, C, H, W]
        target: [V, C, H, W]
        config: which of L1, Charbonnier's sqrt(d^2 + eps^2) - eps (Charbonnier et al. 1994) and
            trimmed L1 (Rousseeuw 1984) it is.
    """
    difference = (predicted - target).abs()
    if config.pixel == "charbonnier":
        eps = config.charbonnier_eps
        return ((difference * difference + eps * eps).sqrt() - eps).mean()
    if config.pixel == "trimmed" and config.trim_share > 0:
        per_pixel = difference.mean(1).flatten(1)  # [V, H W]
        num = per_pixel.shape[1]
        kept = max(1, round((1 - config.trim_share) * num))
        limit = per_pixel.detach().kthvalue(kept, dim=1, keepdim=True).values
        return torch.where(per_pixel <= limit, per_pixel, 0.0).mean()
    return difference.mean()


def loss_color(
    predicted: Tensor, target: Tensor, config: SplatLossConfig, lpips: Lpips | None = None
) -> Tensor:
    """(1 - lambda) pixel loss + lambda (1 - SSIM) of images (Kerbl et al. [23], Eq. 7) + LPIPS.

    Args:
        predicted: [V, 3, H, W]
        target: [V, 3, H, W] in [0, 1].
        config: weights.
        lpips: where its weight is not 0.
    """
    loss = loss_pixels(predicted, target, config)
    if config.lambda_ssim > 0:
        structure = 1 - ssim(predicted, target)
        loss = (1 - config.lambda_ssim) * loss + config.lambda_ssim * structure
    if lpips is not None:
        loss = loss + config.lambda_lpips * lpips(predicted, target).mean()
    return loss


def loss_size(splats: GaussianSplats, config: SplatLossConfig) -> Tensor:
    """Pressure towards few, small Gaussians (Kheradmand et al. 2024, Equation 10)."""
    loss = splats.means.new_zeros(())
    if config.lambda_opacity > 0:
        loss = loss + config.lambda_opacity * splats.opacities.mean()
    if config.lambda_scale > 0:
        loss = loss + config.lambda_scale * splats.scales.mean()
    return loss


class ViewColors:
    """An affine map of colours for each view: what exposure and tint differ between views.

    Only the difference from the mean over the views counts, so the object keeps the mean colours.
    """

    def __init__(self, num_views: int, learning_rate: float, device: torch.device):
        self.maps = torch.zeros(num_views, 3, 4, device=device, requires_grad=True)
        self.optimizer = torch.optim.Adam([self.maps], lr=learning_rate)

    def apply(self, view: int, rgb: Tensor, alpha: Tensor, background: float = 1.0) -> Tensor:
        """What `view` would show of a rendering; the background keeps its colour.

        Args:
            view: number of the view.
            rgb: [1, 3, H, W] over the background.
            alpha: [1, 1, H, W]
            background: grey level.

        Returns:
            [1, 3, H, W]
        """
        own = self.maps[view] - self.maps.mean(0)
        foreground = rgb - (1 - alpha) * background  # times alpha
        changed = torch.einsum("ij,vjhw->vihw", own[:, :3], foreground)
        return rgb + changed + own[:, 3].view(1, 3, 1, 1) * alpha

    def step(self) -> None:
        """One step of the optimiser."""
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


class ViewWeights:
    """Weights of views from how badly each is explained: min(1, (median loss / its loss)^2)."""

    def __init__(self, num_views: int):
        self.losses: list[float | None] = [None] * num_views

    def weight(self, view: int, loss: float) -> float:
        """Take in the loss of a view.

        Returns:
            its weight in (0, 1]; 1 until every view has been seen.
        """
        previous = self.losses[view]
        self.losses[view] = loss if previous is None else 0.5 * (previous + loss)
        known = sorted(value for value in self.losses if value is not None)
        own = self.losses[view]
        if len(known) < len(self.losses) or not own:
            return 1.0
        return min(1.0, (known[len(known) // 2] / own) ** 2)
