"""One colour for every texel from the views that see it: their mean, or the best one's detail."""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from hi3d.texture.atlas import sample_image
from hi3d.texture.visibility import Sighting


def sighting_weight(sighting: Sighting, angle_power: float, distance_power: float) -> Tensor:
    """How much a view counts for its N texels, relative to other views. [N]

    Args:
        sighting: how the view sees them.
        angle_power: of the cosine of the angle to the surface normal.
        distance_power: of the pixels per world unit.
    """
    return sighting.trust * sighting.cos**angle_power * sighting.density**distance_power


class WeightedMean:
    """The weighted mean of the colours that views give T texels."""

    def __init__(self, num_texels: int):
        """Args:
        num_texels: T
        """
        self._total = torch.zeros(num_texels, 3)
        self._weight = torch.zeros(num_texels)

    def add(self, sighting: Sighting, weight: Tensor, image: Tensor) -> None:
        """Add one view.

        Args:
            sighting: N texels.
            weight: [N]
            image: [3, H, W]
        """
        texels = sighting.texels.long()  # no texel twice, so that these additions all count
        self._total[texels] += weight[:, None] * sample_image(image, sighting.grid)
        self._weight[texels] += weight

    def colours(self) -> Tensor:
        """The means; 0 for texels that no view sees. [T, 3]"""
        return self._total / self._weight.clamp_min(1e-30)[:, None]


class BestView:
    """For each of T texels the colour of the view with the largest weight."""

    def __init__(self, num_texels: int):
        """Args:
        num_texels: T
        """
        self._colours = torch.zeros(num_texels, 3)
        self._weight = torch.zeros(num_texels)

    def add(self, sighting: Sighting, weight: Tensor, image: Tensor) -> None:
        """Add one view; arguments as of `WeightedMean.add`."""
        better = weight > self._weight[sighting.texels]
        texels = sighting.texels[better]
        self._weight[texels] = weight[better]
        self._colours[texels] = sample_image(image, sighting.grid[better])

    def colours(self) -> Tensor:
        """The best views' colours; 0 for texels that no view sees. [T, 3]"""
        return self._colours


def split_bands(image: Tensor, usable: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Split an image into a smooth part and the detail upon it (Burt and Adelson 1983, two bands).

    Args:
        image: [3, H, W]
        usable: [1, H, W], 0 where the colour means nothing.
        width: of detail, in pixels.

    Returns:
        low: [3, H, W], blurred by two boxes of `2 * width + 1` pixels over usable pixels.
        high: [3, H, W], `image - low`.
    """
    sums = torch.cat([image * usable, usable])[None]
    for _ in range(2):
        sums = avg_pool2d(sums, 2 * width + 1, stride=1, padding=width)
    low = sums[0, :3] / sums[0, 3:].clamp_min(1e-6)
    return low, image - low
