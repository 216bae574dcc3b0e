"""The rasterizer on CUDA: gsplat, which does projection, colors and compositing in one call."""

import torch
from torch import Tensor

from hi3d.cameras import Cameras
from hi3d.splats import GaussianSplats
from hi3d.splatting.rasterization.projection import DILATION, NEAR_PLANE


def rasterize_gsplat(
    splats: GaussianSplats, cameras: Cameras
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Render with `gsplat.rasterization`.

    Args:
        splats: on a CUDA device.
        cameras: V cameras on the same device.

    Returns:
        rgb [V, 3, H, W] over black, alpha [V, 1, H, W], expected depth [V, 1, H, W], means2d
        [V, N, 2] in pixels (of the graph) and radii [V, N, 2] in pixels.

    Raises:
        ValueError: the splats are not on a CUDA device: gsplat does not rasterize elsewhere.
    """
    if splats.means.device.type != "cuda":
        raise ValueError(f"gsplat needs a CUDA device, the splats are on {splats.means.device}")
    from gsplat import rasterization

    features, alpha, info = rasterization(
        means=splats.means,
        quats=splats.quats,
        scales=splats.scales,
        opacities=splats.opacities,
        colors=splats.sh,
        viewmats=cameras.viewmats,
        Ks=cameras.Ks,
        width=cameras.width,
        height=cameras.height,
        near_plane=NEAR_PLANE,
        eps2d=DILATION,
        sh_degree=splats.sh_degree,
        packed=False,
        render_mode="RGB+ED",
    )
    image = features.permute(0, 3, 1, 2)
    alpha = alpha.permute(0, 3, 1, 2)
    depth = torch.where(alpha > 0, image[:, 3:], torch.zeros_like(alpha))
    return image[:, :3], alpha, depth, info["means2d"], info["radii"]
