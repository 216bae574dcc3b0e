"""Random pixels of the views, as rays with their target colors."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hi3d.views import Views

MARGIN = 1 / 16
"""Pixels this far from a silhouette, as a share of the image height, are still sampled."""
ANYWHERE_SHARE = 0.1
"""Share of the rays that are drawn from whole images, so that floaters elsewhere are seen."""


@dataclass(frozen=True)
class Rays:
    """B rays with what their pixels show."""

    origins: Tensor  # [B, 3]
    directions: Tensor  # [B, 3]
    """Unit length."""
    rgb: Tensor  # [B, 3]
    """Color of the pixel over white."""
    alpha: Tensor  # [B]
    weights: Tensor  # [B]
    """Weight of the pixel's view."""

    def box_interval(self, bounds: Tensor) -> tuple[Tensor, Tensor]:
        """Where the rays enter and leave a box.

        Args:
            bounds: [2, 3] lowest and highest corner.

        Returns:
            t_near [B], t_far [B]; t_near >= t_far for a ray that misses.
        """
        tiny = 1e-12
        safe = torch.where(self.directions.abs() < tiny, tiny, self.directions)
        t = (bounds[:, None] - self.origins) / safe
        t_near = t.min(0).values.max(-1).values.clamp_min(0)
        return t_near, t.max(0).values.min(-1).values


class PixelSampler:
    """Draws random pixels on and around the silhouettes of the views."""

    def __init__(self, views: Views, view_weights: Tensor | None = None):
        """Args:
        views: V views.
        view_weights: [V] weight of each view in the losses; None = all 1.
        """
        cameras = views.cameras
        self.width, self.num_pixels = cameras.width, cameras.width * cameras.height
        self.rgb = views.rgb.permute(0, 2, 3, 1).reshape(-1, 3)
        self.alpha = views.alpha.reshape(-1)
        self.view_weights = torch.ones(len(views)) if view_weights is None else view_weights
        self.view_weights = self.view_weights.to(views.rgb)
        self.origins = cameras.positions
        self.pixel_to_world = cameras.camtoworlds[:, :3, :3] @ torch.linalg.inv(cameras.Ks)
        margin = max(1, round(MARGIN * cameras.height))
        pool, size = torch.nn.functional.max_pool2d, 2 * margin + 1
        near = pool(views.alpha, (1, size), stride=1, padding=(0, margin))
        near = pool(near, (size, 1), stride=1, padding=(margin, 0))
        self.near_silhouette = (near > 0).flatten().nonzero()[:, 0]

    def sample(self, num_rays: int, generator: torch.Generator) -> Rays:
        """Draw pixels with replacement.

        Args:
            num_rays: B.
            generator: on the views' device.
        """
        device = self.rgb.device
        num_anywhere = round(ANYWHERE_SHARE * num_rays)
        near = torch.randint(
            len(self.near_silhouette),
            (num_rays - num_anywhere,),
            generator=generator,
            device=device,
        )
        anywhere = torch.randint(
            len(self.alpha), (num_anywhere,), generator=generator, device=device
        )
        # Sorted, so that neighboring rays read neighboring parts of the grid.
        pixels = torch.cat([self.near_silhouette[near], anywhere]).sort().values
        view, pixel = pixels // self.num_pixels, pixels % self.num_pixels
        x, y = pixel % self.width + 0.5, pixel // self.width + 0.5
        # Column by column: many small matrix products are slow.
        columns = self.pixel_to_world[view].unbind(-1)
        directions = columns[0] * x[:, None] + columns[1] * y[:, None] + columns[2]
        directions = torch.nn.functional.normalize(directions, dim=-1)
        return Rays(
            self.origins[view].contiguous(),
            directions.contiguous(),
            self.rgb[pixels],
            self.alpha[pixels],
            self.view_weights[view],
        )
