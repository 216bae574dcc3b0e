"""Signed distance and color by the original MLP of NeuS, the alternative to the grid.

It starts as a sphere by the geometric initialization (arXiv 1911.10414, Section 4.2).
"""

import math
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor, nn

from hi3d.config import check_number

NUM_OCTAVES = 6  # of the sines and cosines, as in NeuS
SPHERE_RADIUS = 0.35  # of the initial surface, in world units: within most objects


class FieldKind(Enum):
    """What holds signed distance and color while NeuS is fitted."""

    grid = "grid"
    """Dense values near the surface, coarse to fine, from the views' hull on: seconds on a CPU."""
    predicted = "predicted"
    """The same from the object that stage 1 predicts as a whole, where it predicts one."""
    mlp = "mlp"
    """The original: a deep MLP on sines and cosines of the position."""


@dataclass
class NetworkConfig:
    """Sizes and rates of the original MLP; the defaults are NeuS's own."""

    rays_per_step: int = 512
    """1 to 1e6."""
    lr: float = 5e-4
    """Adam step, 1e-8 to 1, with a warm-up of 5 % and a cosine to a twentieth."""
    layers: int = 8
    """Hidden layers of the signed distance, 1 to 64; from 4 on with the input again in the
    middle."""
    size: int = 256
    """Width of the hidden layers, 1 to 4096."""

    def __post_init__(self) -> None:
        for name, most in (("rays_per_step", 1e6), ("layers", 64), ("size", 4096)):
            check_number(f"neus.network.{name}", getattr(self, name), 1, most)
        check_number("neus.network.lr", self.lr, 1e-8, 1)


class FrequencyEncoding(nn.Module):
    """`x, sin(2^k x), cos(2^k x)` for k = 0 ... K - 1 (arXiv 2003.08934, Section 5.1)."""

    def __init__(self, num_octaves: int):
        super().__init__()
        self.num_octaves = num_octaves
        self.size = 3 * (1 + 2 * num_octaves)

    def forward(self, points: Tensor) -> Tensor:
        """[N, 3] -> [N, 3 (1 + 2 K)]; the first three are the points."""
        scales = 2.0 ** torch.arange(self.num_octaves, device=points.device)
        angles = (points[:, None] * scales[:, None]).flatten(1)
        return torch.cat([points, angles.sin(), angles.cos()], dim=1)


class FieldNetwork(nn.Module):
    """Positions to signed distance and color; color does not depend on the view, as in renders
    without highlights and in the texture that is baked later."""

    def __init__(self, layers: int, size: int):
        """Args:
        layers: hidden ones of the signed distance.
        size: of the hidden layers.
        """
        super().__init__()
        self.encoding = FrequencyEncoding(NUM_OCTAVES)
        self.skip = layers // 2 if layers >= 4 else -1
        self.activation = nn.Softplus(beta=100)
        inputs = [self.encoding.size, *[size] * (layers - 1)]
        if self.skip > 0:
            inputs[self.skip] += self.encoding.size
        self.hidden = nn.ModuleList(nn.Linear(width, size) for width in inputs)
        self.output = nn.Linear(size, 1 + size)  # signed distance, features of the color
        self.color = nn.Sequential(
            nn.Linear(size + 6, size),
            nn.ReLU(),
            nn.Linear(size, size),
            nn.ReLU(),
            nn.Linear(size, 3),
        )
        self._start_as_sphere(SPHERE_RADIUS)

    @torch.no_grad()
    def _start_as_sphere(self, radius: float) -> None:
        """`sdf(x)` about `|x| - radius`: only the points themselves count at first."""
        for number, layer in enumerate(self.hidden):
            assert isinstance(layer, nn.Linear)
            nn.init.zeros_(layer.bias)
            nn.init.normal_(layer.weight, 0.0, math.sqrt(2 / layer.out_features))
            if number == 0:
                layer.weight[:, 3:] = 0
            elif number == self.skip:
                layer.weight[:, -(self.encoding.size - 3) :] = 0
        size = self.output.in_features
        nn.init.normal_(self.output.weight, 0.0, 1e-4)
        self.output.weight[0] += math.sqrt(math.pi / size)
        nn.init.zeros_(self.output.bias)
        self.output.bias[0] = -radius

    def geometry(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Signed distance [N] in world units, negative inside, and features [N, F] of [N, 3]."""
        encoded = self.encoding(points)
        x = encoded
        for number, layer in enumerate(self.hidden):
            if number == self.skip:  # points stay first among what is added
                x = torch.cat([x, encoded], dim=1) / math.sqrt(2)
            x = self.activation(layer(x))
        output = self.output(x)
        return output[:, 0], output[:, 1:]

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Signed distance [N], its gradient [N, 3] and color [N, 3] in [0, 1] at [N, 3]."""
        trained = torch.is_grad_enabled()
        with torch.enable_grad():
            points = points.detach().requires_grad_(True)
            sdf, features = self.geometry(points)
            gradients = torch.autograd.grad(sdf.sum(), points, create_graph=trained)[0]
        normals = nn.functional.normalize(gradients, dim=-1)
        rgb = self.color(torch.cat([points, normals, features], dim=1)).sigmoid()
        return (sdf, gradients, rgb) if trained else (sdf.detach(), gradients, rgb)
