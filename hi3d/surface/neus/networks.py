"""Signed distance and colour by networks: the original MLP of NeuS, and a hash grid.

The alternatives to the grid of `hi3d.surface.grid`. Both start as a sphere by the
geometric initialisation (arXiv 1911.10414, Section 4.2), as NeuS does.
"""

import math
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor, nn

HASH_PRIMES = (1, 2654435761, 805459861)
"""Of the spatial hash (arXiv 2201.05989, Eq. 4)."""


class FieldKind(Enum):
    """What holds signed distance and colour while NeuS is fitted."""

    grid = "grid"
    """Dense values near the surface, coarse to fine: seconds on a CPU."""
    hash_grid = "hash_grid"
    """Hashed features at many resolutions and a small MLP (arXiv 2201.05989)."""
    mlp = "mlp"
    """The original: a deep MLP on sines and cosines of the position."""


@dataclass
class NetworkConfig:
    """Sizes and learning rates of the networks; NeuS's and instant-ngp's common values."""

    rays_per_step: int = 512
    lr: float = 5e-4
    """Adam step of the MLPs, with a warm-up of 5 % and a cosine to a twentieth."""
    lr_hash: float = 1e-2
    """Adam step of the hashed features."""
    lambda_eikonal: float = 0.1
    cos_anneal_share: float = 0.2
    """Share of the steps over which the slope along the ray becomes the true one."""
    sphere_radius: float = 0.35
    """Of the initial surface, in world units."""
    march_resolution: int = 128
    """Cells a side of the grid that says where rays are sampled, first all of the dilated visual
    hull, later a band around the surface."""
    update_every: int = 100
    """Steps between updates of that grid."""

    mlp_layers: int = 8
    """Hidden layers of the SDF's MLP (`mlp`), with the input again in the middle."""
    mlp_size: int = 256
    num_octaves: int = 6
    """Of sines and cosines (`mlp`)."""

    hash_layers: int = 1
    """Hidden layers behind the hashed features (`hash_grid`)."""
    hash_size: int = 64
    num_levels: int = 14
    features_per_level: int = 2
    table_size_log2: int = 16
    coarsest: int = 16
    """Cells a side of the first level."""
    finest: int = 512
    """Cells a side of the last."""


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


class HashEncoding(nn.Module):
    """Features on grids of rising resolution, trilinear, coarse ones dense and fine ones hashed."""

    def __init__(self, config: NetworkConfig, half_extent: float):
        """Args:
        config: sizes.
        half_extent: the grids span [-half_extent, half_extent].
        """
        super().__init__()
        self.half_extent = half_extent
        levels = config.num_levels
        growth = (config.finest / config.coarsest) ** (1 / max(levels - 1, 1))
        self.resolutions = [int(config.coarsest * growth**level + 1e-6) for level in range(levels)]
        self.table_size = 2**config.table_size_log2
        shape = (levels, self.table_size, config.features_per_level)
        self.tables = nn.Parameter(torch.empty(shape).uniform_(-1e-4, 1e-4))
        self.size = 3 + levels * config.features_per_level

    def forward(self, points: Tensor) -> Tensor:
        """[N, 3] -> [N, 3 + L F]; the first three are the points."""
        unit = ((points + self.half_extent) / (2 * self.half_extent)).clamp(0, 1)
        features = [points]
        offsets = torch.tensor(
            [(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)], device=points.device
        )
        for table, resolution in zip(self.tables, self.resolutions, strict=True):
            position = unit * resolution
            cell = position.detach().floor().clamp_max(resolution - 1)
            fraction = (position - cell)[:, None]  # [N, 1, 3]
            weights = torch.where(offsets.bool(), fraction, 1 - fraction).prod(-1)
            rows = self.row(cell.long()[:, None] + offsets, resolution)
            values = nn.functional.embedding(rows, table)  # [N, 8, F]
            features.append((values * weights[..., None]).sum(1))
        return torch.cat(features, dim=1)

    def row(self, vertices: Tensor, resolution: int) -> Tensor:
        """Row of each integer vertex [..., 3] of a level in its table."""
        if (resolution + 1) ** 3 <= self.table_size:
            strides = vertices.new_tensor([(resolution + 1) ** 2, resolution + 1, 1])
            return (vertices * strides).sum(-1)
        x, y, z = (vertices * vertices.new_tensor(HASH_PRIMES)).unbind(-1)
        return (x ^ y ^ z) % self.table_size


class FieldNetwork(nn.Module):
    """Positions to signed distance and colour; colour does not depend on the view, as in renders
    without highlights and in the texture that is baked later."""

    def __init__(self, kind: FieldKind, config: NetworkConfig, half_extent: float):
        """Args:
        kind: `hash_grid` or `mlp`.
        config: sizes.
        half_extent: points lie in [-half_extent, half_extent].
        """
        super().__init__()
        self.encoding: FrequencyEncoding | HashEncoding
        if kind is FieldKind.hash_grid:
            self.encoding = HashEncoding(config, half_extent)
            layers, size, self.skip = config.hash_layers, config.hash_size, -1
        else:
            self.encoding = FrequencyEncoding(config.num_octaves)
            layers, size = config.mlp_layers, config.mlp_size
            self.skip = layers // 2 if layers >= 4 else -1
        self.activation = nn.Softplus(beta=100)
        inputs = [self.encoding.size, *[size] * (layers - 1)]
        if self.skip > 0:
            inputs[self.skip] += self.encoding.size
        self.hidden = nn.ModuleList(nn.Linear(width, size) for width in inputs)
        self.output = nn.Linear(size, 1 + size)  # signed distance, features of the colour
        self.color = nn.Sequential(
            nn.Linear(size + 6, size),
            nn.ReLU(),
            nn.Linear(size, size),
            nn.ReLU(),
            nn.Linear(size, 3),
        )
        self._start_as_sphere(config.sphere_radius)

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
        """Signed distance [N], its gradient [N, 3] and colour [N, 3] in [0, 1] at [N, 3]."""
        trained = torch.is_grad_enabled()
        with torch.enable_grad():
            points = points.detach().requires_grad_(True)
            sdf, features = self.geometry(points)
            gradients = torch.autograd.grad(sdf.sum(), points, create_graph=trained)[0]
        normals = nn.functional.normalize(gradients, dim=-1)
        rgb = self.color(torch.cat([points, normals, features], dim=1)).sigmoid()
        return (sdf, gradients, rgb) if trained else (sdf.detach(), gradients, rgb)
