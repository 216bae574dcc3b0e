"""Elevation of the camera that took a photo."""

import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn


class ElevationEstimator(ModelMixin, ConfigMixin):
    """Elevation of the camera that took the reference image: a small convolutional network.

    The paper takes the elevation as given; a photo does not say it.
    """

    @register_to_config
    def __init__(self, channels: tuple[int, ...] = (32, 64, 96, 128), image_size: int = 64):
        """Args:
        channels: of the layers, each of which halves the resolution; divisible by 8.
        image_size: side that images are resized to.
        """
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in zip((3, *channels[:-1]), channels, strict=True):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(8, after)]
            layers += [nn.SiLU(), nn.Conv2d(after, after, 3, padding=1), nn.SiLU()]
        self.features = nn.Sequential(*layers)
        side = image_size // 2 ** len(channels)
        self.head = nn.Linear(channels[-1] * side * side, 1)

    def forward(self, rgb: Tensor) -> Tensor:
        """Estimate the elevation.

        Args:
            rgb: [B, 3, H, W] in [0, 1], over white.

        Returns:
            [B] degrees.
        """
        size = (self.config.image_size, self.config.image_size)
        pixels = F.interpolate(rgb, size, mode="bilinear", antialias=True).to(self.dtype) * 2 - 1
        # The paper draws elevations from U[-10, 40] degrees: mean 15, standard deviation 14.4.
        return self.head(self.features(pixels).flatten(1))[:, 0] * 15 + 15
