"""Which Gaussians to remove, duplicate and split during a fit (Kerbl et al. [23], Section 5.2)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hi3d.reconstruction.gaussian_splats import GaussianSplats
from hi3d.reconstruction.rasterization.projection import rotation_matrices

SPLIT_SHRINK = 1.6  # a split Gaussian becomes two, this much smaller (3DGS)


@dataclass
class DensifyConfig:
    """Thresholds of adaptive density control."""

    enabled: bool = True
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
