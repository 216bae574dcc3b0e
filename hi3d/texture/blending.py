"""One color for every texel: the weighted mean of the views that see it."""

import torch
from torch import Tensor

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
    """The weighted mean of the colors that views give T texels."""

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

    def colors(self) -> Tensor:
        """The means; 0 for texels that no view sees. [T, 3]"""
        return self._total / self._weight.clamp_min(1e-30)[:, None]
