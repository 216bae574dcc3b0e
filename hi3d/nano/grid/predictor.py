"""One photo to a field of density and color, by 2D convolutions in the photo's own frustum.

Not in the paper: the small model's guess, from which all views agree.

The network's channels are the depths behind each pixel: a 2D UNet writes, for every pixel, the
density and color of all cells along its ray, at half the photo's resolution; the photo itself adds
its silhouette and colors at full resolution. That spares 3D convolutions, and leaves the world
grid to one resampling.
"""

from dataclasses import dataclass, replace

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional as F

from hi3d.cameras import NUM_ORBIT_VIEWS
from hi3d.nano.grid.certainty import decided, ray_raises, unseen_noise
from hi3d.nano.grid.hidden_color import hidden, with_mirrored_colors
from hi3d.nano.grid.image_features import FEATURE_CHANNELS, ImageFeatures
from hi3d.nano.grid.occupied_rendering import render_occupied
from hi3d.nano.grid.rendering import (
    GRID_SIDE,
    Field,
    cell_centers,
    project,
    sample_grid,
)

NEAREST, FARTHEST = 0.8, 2.2  # depths of the frustum's ends: the object's sphere ends at 0.63, 2.37
EMPTY_LOGIT = -2.0  # density of an untrained network
MEAN_ELEVATION_DEG, ELEVATION_SCALE_DEG = 15.0, 15.0  # of U[-10, 40], about its standard deviation


@dataclass(frozen=True)
class GridPrediction:
    """What the network says of B photos."""

    frustum: Tensor  # [B, 4, D, S/2, S/2]
    """Density and color logits; near to far, rows, columns of the photo."""
    seen: Tensor  # [B, 4, S, S]
    """What the photo adds along each pixel's ray: it empties what lies outside the silhouette, and
    its color is the first guess."""
    elevation_deg: Tensor  # [B]
    """Of the camera, estimated from the photo alone."""


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch normalization, which inference can fold."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to the same shape."""
        return F.relu(x + self.layers(x))


class TokenBlock(nn.Module):
    """A pre-norm transformer block over the cells of the coarsest map.

    Args:
        channels: C, a multiple of `num_heads`.
        num_heads: of the attention.
    """

    def __init__(self, channels: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.qkv, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.mlp = nn.Sequential(
            nn.Linear(channels, 3 * channels), nn.GELU(), nn.Linear(3 * channels, channels)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, N, C] to the same shape."""
        qkv = self.qkv(self.norm1(tokens)).unflatten(-1, (3, self.num_heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        tokens = tokens + self.out(mixed)
        return tokens + self.mlp(self.norm2(tokens))


def downsample(inputs: int, outputs: int) -> nn.Sequential:
    """[B, inputs, H, W] to [B, outputs, H/2, W/2]."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 2, stride=2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class GridPredictor(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Photo to frustum of density and color, and to the camera's elevation.

    Args:
        resolution: side S of the photo in pixels.
        num_depths: cells along each pixel's ray.
        channels: widths at S/2, S/4 and S/8.
        num_token_blocks: transformer blocks at S/8.
        num_blocks: residual blocks per level on each side of the UNet.
        with_image_features: frozen features of the photo join at S/4 and S/8.
    """

    feature_dropout = 0.0
    """Share of the features' channels, and of their values, that training leaves out."""

    @register_to_config
    def __init__(
        self,
        resolution: int = 64,
        num_depths: int = 64,
        channels: tuple[int, int, int] = (64, 128, 256),
        num_token_blocks: int = 3,
        num_blocks: int = 1,
        with_image_features: bool = False,
    ) -> None:
        super().__init__()
        fine, middle, coarse = channels

        def blocks(width: int) -> nn.Sequential:
            return nn.Sequential(*[ResidualBlock(width) for _ in range(num_blocks)])

        self.stem = nn.Sequential(
            nn.Conv2d(4, fine, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(fine),
            nn.ReLU(inplace=True),
        )
        self.encode1 = blocks(fine)
        self.down2, self.encode2 = downsample(fine, middle), blocks(middle)
        self.down3, self.encode3 = downsample(middle, coarse), blocks(coarse)
        self.position = nn.Parameter(torch.randn((resolution // 8) ** 2, coarse) * 0.02)
        self.elevation_head = nn.Sequential(
            nn.Linear(coarse, coarse // 2), nn.ReLU(inplace=True), nn.Linear(coarse // 2, 1)
        )
        self.elevation_embedding = nn.Linear(3, coarse)
        self.tokens = nn.Sequential(
            *[TokenBlock(coarse, coarse // 32) for _ in range(num_token_blocks)]
        )
        self.decode3 = blocks(coarse)
        self.up2, self.decode2 = nn.Conv2d(coarse, middle, 1), blocks(middle)
        self.up1, self.decode1 = nn.Conv2d(middle, fine, 1), blocks(fine)
        self.head = nn.Conv2d(fine, 4 * num_depths, 1)
        nn.init.normal_(self.head.weight, std=0.03)
        density, color = torch.full((num_depths,), EMPTY_LOGIT), torch.zeros(3 * num_depths)
        self.head.bias = nn.Parameter(torch.cat([density, color]))
        self.outside_logit = nn.Parameter(torch.tensor(-6.0))
        self.image_features = ImageFeatures() if with_image_features else None
        if with_image_features:
            self.joins = nn.ModuleList(
                nn.Conv2d(inputs, outputs, 1)
                for inputs, outputs in zip(FEATURE_CHANNELS, (middle, coarse, coarse), strict=True)
            )
            for parameter in self.joins.parameters():
                nn.init.zeros_(parameter)  # at first the features say nothing

    def forward(self, photo: Tensor, elevation_deg: Tensor | None = None) -> GridPrediction:
        """Predict the frustum.

        Args:
            photo: [B, 4, S, S] RGB over white and alpha, in [0, 1].
            elevation_deg: [B] of the camera; None takes the estimate.
        """
        x1 = self.stem((photo * 2 - 1).contiguous(memory_format=torch.channels_last))
        x1 = self.encode1(x1)
        joined2, joined3 = self.joined_features(photo[:, :3])
        x2 = self.encode2(self.down2(x1) + joined2)
        x3 = self.encode3(self.down3(x2) + joined3)
        tokens = x3.flatten(2).transpose(1, 2)
        estimate = self.elevation_head(tokens.mean(1))[:, 0]
        estimated_deg = estimate.float() * ELEVATION_SCALE_DEG + MEAN_ELEVATION_DEG
        given = estimated_deg.detach() if elevation_deg is None else elevation_deg
        angle = torch.deg2rad(given)
        embedding = torch.stack([angle.sin(), angle.cos(), angle], -1)
        tokens = tokens + self.position + self.elevation_embedding(embedding)[:, None]
        tokens = self.tokens(tokens)
        x3 = self.decode3(tokens.transpose(1, 2).unflatten(2, x3.shape[2:]))
        x2 = self.decode2(F.interpolate(self.up2(x3), scale_factor=2.0) + x2)
        x1 = self.decode1(F.interpolate(self.up1(x2), scale_factor=2.0) + x1)
        frustum = self.head(x1).float().contiguous().unflatten(1, (4, -1))
        outside = self.outside_logit * (1 - photo[:, 3:])
        seen = torch.cat([outside, torch.logit(photo[:, :3].clamp(0.02, 0.98))], 1)
        return GridPrediction(frustum, seen, estimated_deg)

    def joined_features(self, rgb: Tensor) -> tuple[Tensor, Tensor]:
        """What the frozen features add at S/4 and at S/8; 0 without them.

        Args:
            rgb: [B, 3, S, S] in [0, 1].
        """
        if self.image_features is None:
            return rgb.new_zeros(()), rgb.new_zeros(())
        double = F.interpolate(rgb, scale_factor=2.0, mode="bicubic").clamp(0, 1)
        features = [
            join(self.with_dropout(x))
            for join, x in zip(self.joins, self.image_features(double), strict=True)
        ]
        return features[0], features[1] + F.interpolate(features[2], scale_factor=2.0)

    def with_dropout(self, features: Tensor) -> Tensor:
        """Features of a training step without some channels and some values. [B, C, H, W]"""
        if not self.training or self.feature_dropout == 0:
            return features
        return F.dropout(F.dropout2d(features, self.feature_dropout), self.feature_dropout)

    def field(self, prediction: GridPrediction, elevation_deg: Tensor) -> Field:
        """Density and color logits anywhere, as `render_field` takes them.

        Args:
            prediction: of B references.
            elevation_deg: [B] of their cameras.
        """
        front = torch.zeros_like(elevation_deg)

        def values(points: Tensor) -> Tensor:
            xy, depths = project(points, front, elevation_deg)
            z = (depths - NEAREST) / (FARTHEST - NEAREST) * 2 - 1
            behind = sample_grid(prediction.frustum, torch.cat([xy, z[..., None]], -1), 1.0)
            seen = F.grid_sample(
                prediction.seen, xy[:, :, None], align_corners=False, padding_mode="border"
            )
            return behind + seen[..., 0]

        return values


@torch.no_grad()
def predict_grid(
    predictor: GridPredictor, rgba: Tensor, elevation_deg: Tensor, noise: Tensor | None = None
) -> Tensor:
    """The grid of logits of the object in each photo, in its frame. [B, 4, G, G, G] (z, y, x)

    Args:
        predictor: in evaluation mode.
        rgba: [B, 4, S, S] RGB over white and alpha, in [0, 1].
        elevation_deg: [B] of the camera.
        noise: of `drawn_noise`, for one of the likely objects; None takes the likeliest.
    """
    prediction = predictor(rgba, elevation_deg)
    raises = ray_raises(
        prediction.frustum[:, 0],
        prediction.seen[:, 0],
        rgba[:, 3],
        elevation_deg,
        (NEAREST, FARTHEST),
        noise,
    )
    seen = torch.cat([prediction.seen[:, :1] + raises[:, None], prediction.seen[:, 1:]], 1)
    field = predictor.field(replace(prediction, seen=seen), elevation_deg)
    points = cell_centers().reshape(1, -1, 3).to(rgba).expand(len(rgba), -1, -1)
    values = field(points)
    density = values[:, :1]
    if noise is not None:
        density = density + unseen_noise(noise, points, elevation_deg)
    grid = torch.cat([decided(density), values[:, 1:]], 1).unflatten(2, (GRID_SIDE,) * 3)
    return with_mirrored_colors(grid, points, elevation_deg)


@torch.no_grad()
def render_grid(
    grid: Tensor, elevation_deg: Tensor, resolution: int, num_frames: int = NUM_ORBIT_VIEWS
) -> tuple[Tensor, Tensor]:
    """The orbit of a grid.

    Args:
        grid: [B, 4, G, G, G] of `predict_grid`.
        elevation_deg: [B] of the orbit.
        resolution: image side S in pixels.
        num_frames: T views, spread evenly over 360 degrees; frame 0 is the reference's.

    Returns:
        rgb [B, T, 3, S, S] over white, alpha [B, T, 1, S, S].
    """
    azimuth_deg = torch.arange(num_frames).to(elevation_deg) * (360 / num_frames)
    orbits = [
        render_occupied(each, azimuth_deg, angle, resolution)
        for each, angle in zip(grid, elevation_deg, strict=True)
    ]
    return torch.stack([rgb for rgb, _ in orbits]), torch.stack([alpha for _, alpha in orbits])


@torch.no_grad()
def render_hidden(
    grid: Tensor, elevation_deg: Tensor, resolution: int, num_frames: int = NUM_ORBIT_VIEWS
) -> Tensor:
    """Opacity, in each view of the orbit, of what the photo does not show.

    Args:
        grid: [B, 4, G, G, G] of `predict_grid`.
        elevation_deg: [B] of the orbit.
        resolution: image side S in pixels.
        num_frames: T views, see `render_grid`.

    Returns:
        [B, T, 1, S, S] in [0, 1], at most the opacity that `render_grid` gives.
    """
    density = grid[:, :1]
    points = cell_centers().reshape(1, -1, 3).to(grid).expand(len(grid), -1, -1)
    share = torch.logit(hidden(density, points, elevation_deg).clamp(0.005, 0.995))
    colored = torch.cat([density, share.expand(-1, 3, -1, -1, -1)], 1)
    over_white, alpha = render_grid(colored, elevation_deg, resolution, num_frames)
    return (over_white[:, :, :1] - (1 - alpha)).clamp_min(0)
