"""Which Gaussians to remove, duplicate, split and move during a fit, as pure functions.

Adaptive density control (Kerbl et al. [23], Section 5.2) and Markov chain Monte Carlo (Kheradmand
et al. 2024); `density_control` says when.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hi3d.splats import GaussianSplats
from hi3d.splatting.rasterization.projection import rotation_matrices

SPLIT_SHRINK = 1.6  # a split Gaussian becomes two, this much smaller (3DGS)
MAX_COPIES = 51  # of one Gaussian that "mcmc" makes at once, as in gsplat


@dataclass
class DensifyConfig:
    """Policy and thresholds."""

    enabled: bool = True
    strategy: Literal["capped", "gsplat", "mcmc"] = "capped"
    """"capped": growth where gradients are largest, up to a number; "gsplat": its
    `DefaultStrategy`; "mcmc": faint Gaussians are moved onto strong ones, and all are jittered."""
    start: float = 0.1
    """Share of the steps before the first change."""
    stop: float = 0.6
    """Share of the steps after which none is added; removal goes on."""
    every: int = 50
    """Steps between changes."""
    grow_gradient: float = 0.0002
    """Mean gradient by the projected centre, in half image sizes, above which one asks for more."""
    split_scale: float = 0.01
    """Gaussians larger than this are split, smaller ones duplicated."""
    min_opacity: float = 0.02
    """Fainter Gaussians are removed."""
    max_scale: float = 0.2
    """Larger Gaussians are removed; the object's longest side is 1."""
    mcmc_growth: float = 0.05
    """Share by which "mcmc" lets the number grow at each change."""
    mcmc_noise: float = 4e4
    """Jitter of "mcmc" per covariance and learning rate of the means: lambda_noise of the paper,
    which takes 5e5 at a learning rate of 1.6e-4."""


class ScreenGradients:
    """The mean screen gradient of each Gaussian since the last change."""

    def __init__(self, num: int, device: torch.device):
        self.sums = torch.zeros(num, device=device)
        self.counts = torch.zeros(num, device=device)

    def add(self, grad_means2d: Tensor, visible: Tensor, width: int, height: int) -> None:
        """Take in one rendering.

        Args:
            grad_means2d: [V, N, 2] gradient of the loss by the projected centres in pixels.
            visible: [V, N] bool.
            width: of the image in pixels.
            height: of the image in pixels.
        """
        half_size = grad_means2d.new_tensor([width / 2, height / 2])
        self.sums += ((grad_means2d * half_size).norm(dim=-1) * visible).sum(0)
        self.counts += visible.sum(0)

    def means(self) -> Tensor:
        """[N]"""
        return self.sums / self.counts.clamp(min=1)


def change_density(
    splats: GaussianSplats,
    gradients: Tensor,
    config: DensifyConfig,
    max_splats: int,
    grow: bool,
    generator: torch.Generator,
) -> tuple[GaussianSplats, Tensor, Tensor]:
    """Remove faint and huge Gaussians; duplicate small and split large ones with large gradients.

    Args:
        splats: N Gaussians.
        gradients: [N] of `ScreenGradients.means`.
        config: thresholds.
        max_splats: no growth beyond this number; those with the largest gradients go first.
        grow: whether to add at all.
        generator: of the splats' device, places the parts of a split Gaussian.

    Returns:
        The new splats; for each the number of the old one it comes from [N'] int64; and whether it
        is new [N'] bool, so that its optimiser state starts at zero.
    """
    sizes = splats.scales.amax(-1)
    keep = (splats.opacities >= config.min_opacity) & (sizes <= config.max_scale)
    wants = keep & (gradients > config.grow_gradient) if grow else torch.zeros_like(keep)
    room = max(0, max_splats - int(keep.sum()))
    chosen = torch.argsort(torch.where(wants, gradients, -1), descending=True)
    chosen = chosen[: min(room, int(wants.sum()))]

    kept = keep.nonzero()[:, 0]
    source = torch.cat([kept, chosen])
    is_new = torch.arange(len(source), device=source.device) >= len(kept)
    tensors = {name: tensor[source].clone() for name, tensor in splats.tensors().items()}
    split_old = torch.zeros_like(keep)
    split_old[chosen] = sizes[chosen] > config.split_scale
    split = split_old[source]  # both parts of each split Gaussian
    normal = torch.randn(len(source), 3, generator=generator, device=source.device)
    offset = rotation_matrices(tensors["quats"]) @ (normal * tensors["log_scales"].exp())[..., None]
    tensors["means"] += torch.where(split[:, None], offset[..., 0], torch.zeros_like(normal))
    tensors["log_scales"] -= split[:, None] * torch.tensor(SPLIT_SHRINK).log().to(normal)
    return GaussianSplats(**tensors), source, is_new | split


def relocate_splats(
    splats: GaussianSplats, config: DensifyConfig, max_splats: int, generator: torch.Generator
) -> tuple[GaussianSplats, Tensor, Tensor]:
    """Move faint Gaussians onto strong ones and add some, without a change of the picture.

    Args:
        splats: N Gaussians.
        config: thresholds.
        max_splats: no growth beyond this number.
        generator: of the splats' device, draws the places in proportion to opacity.

    Returns:
        as `change_density`. Sources of copies count as new: their opacity and size change too.

    Source: Kheradmand et al. 2024, Section 3.3 and Equation 9.
    """
    opacities = splats.opacities
    dead = opacities <= config.min_opacity
    room = max(0, min(int(config.mcmc_growth * len(splats)), max_splats - len(splats)))
    source = torch.arange(len(splats), device=dead.device)
    num_copies = int(dead.sum()) + room
    if num_copies == 0 or bool(dead.all()):
        return splats, source, torch.zeros_like(dead)
    chances = torch.where(dead, torch.zeros_like(opacities), opacities)
    drawn = torch.multinomial(chances, num_copies, replacement=True, generator=generator)
    source[dead] = drawn[room:]
    source = torch.cat([source, drawn[:room]])
    counts = torch.bincount(source, minlength=len(splats))[source]
    tensors = {name: tensor[source].clone() for name, tensor in splats.tensors().items()}
    shared, shrink = share_opacity(opacities[source], counts)
    changed = counts > 1
    limit = torch.finfo(shared.dtype).eps
    logits = torch.logit(shared.clamp(config.min_opacity, 1 - limit))
    tensors["logit_opacities"] = torch.where(changed, logits, tensors["logit_opacities"])
    tensors["log_scales"] += torch.where(changed, shrink.log(), torch.zeros_like(shrink))[:, None]
    return GaussianSplats(**tensors), source, changed


def share_opacity(opacities: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Opacity and size of n equal Gaussians in one place that look like a single one.

    Args:
        opacities: [N] of the single ones.
        counts: [N] int64, n; more than `MAX_COPIES` count as so many.

    Returns:
        opacity [N] of each of the n, and the factor [N] of the standard deviations.

    Source: Kheradmand et al. 2024, Equation 9.
    """
    counts = counts.clamp(1, MAX_COPIES)
    shared = 1 - (1 - opacities.double()) ** (1 / counts)
    total = torch.zeros_like(shared)
    for i in range(1, int(counts.max()) + 1 if len(counts) else 1):
        terms = torch.zeros_like(shared)
        for k in range(i):
            terms += math.comb(i - 1, k) * (-1) ** k / math.sqrt(k + 1) * shared ** (k + 1)
        total += torch.where(i <= counts, terms, 0.0)
    return shared.to(opacities), (opacities / total.clamp(min=1e-12)).to(opacities)


def mcmc_noise(splats: GaussianSplats, scale: float, generator: torch.Generator) -> Tensor:
    """The jitter of the centres: along the Gaussian, for faint ones only (ibid., Equation 8).

    Args:
        splats: N Gaussians.
        scale: learning rate of the means times lambda_noise.
        generator: of the splats' device.

    Returns:
        [N, 3]
    """
    normal = torch.randn(splats.means.shape, generator=generator, device=splats.means.device)
    faint = torch.sigmoid(100 * ((1 - splats.opacities) - 0.995))
    axes = rotation_matrices(splats.quats) * splats.scales[:, None]
    covariance = axes @ axes.transpose(1, 2)
    return (covariance @ (normal * faint[:, None] * scale)[..., None])[..., 0]
