"""A second look at the photo: the whole object's shape from frozen features, coarsely.

Not in the paper. The convolutions of the grid predictor see a neighborhood; how deep an object is
can be told from what it is. A transformer over the photo's features writes the occupancy of the
whole object as a sum of learned shapes, and the camera's elevation. It sees a few tokens in place
of pixels and renders nothing, so that it learns from many photos in little time.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hi3d.nano.grid.image_features import FEATURE_CHANNELS
from hi3d.nano.grid.tokens import TokenBlock, elevation_inputs

SHAPE_SIDE = 24  # cells of the coarse grid along the cube
SHAPE_STRIDE = 16  # pixels of the photo along a token: the features are of its double size
ALPHA_SIDE = 4  # silhouette values along a token
SHAPE_SIZES = ("shape_channels", "num_shape_blocks", "num_shapes")
"""Settings of `GridPredictor` that say its coarse shape's size."""
HEAD_CHANNELS = 32
DROPOUT = 0.1  # share of inputs and of shapes' weights, while training
EXPANSION = 4  # of the blocks' hidden layers
NUM_ELEVATION_BLOCKS = 2  # after which the elevation is estimated and told to the others
EMPTY_LOGIT = -1.5  # of an untrained network
MEAN_ELEVATION_DEG, ELEVATION_SCALE_DEG = 15.0, 15.0  # of U[-10, 40], about its standard deviation
TOKEN_CHANNELS = 4 * FEATURE_CHANNELS[1] + FEATURE_CHANNELS[2] + ALPHA_SIDE**2


class ShapePredictor(nn.Module):
    """Frozen features of a photo to coarse occupancy and elevation.

    Args:
        num_tokens: cells of the features at stride 32.
        channels: width, a multiple of 32.
        num_blocks: transformer blocks, at least 2.
        num_shapes: learned shapes that are summed.
    """

    def __init__(
        self, num_tokens: int, channels: int = 160, num_blocks: int = 4, num_shapes: int = 128
    ) -> None:
        super().__init__()
        heads = channels // HEAD_CHANNELS
        blocks = [TokenBlock(channels, heads, EXPANSION) for _ in range(num_blocks)]
        self.embed = nn.Linear(TOKEN_CHANNELS, channels)
        self.position = nn.Parameter(torch.randn(num_tokens, channels) * 0.02)
        self.first = nn.Sequential(*blocks[:NUM_ELEVATION_BLOCKS])
        self.elevation_head = nn.Sequential(
            nn.LayerNorm(channels),
            nn.Linear(channels, channels // 2),
            nn.GELU(),
            nn.Linear(channels // 2, 1),
        )
        self.elevation_embedding = nn.Linear(3, channels)
        self.last = nn.Sequential(*blocks[NUM_ELEVATION_BLOCKS:], nn.LayerNorm(channels))
        self.weights = nn.Sequential(nn.Linear(num_tokens * channels, num_shapes), nn.GELU())
        self.shapes = nn.Linear(num_shapes, SHAPE_SIDE**3)
        nn.init.normal_(self.shapes.weight, std=0.01)
        nn.init.constant_(self.shapes.bias, EMPTY_LOGIT)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(
        self, features: Sequence[Tensor], alpha: Tensor, elevation_deg: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Predict the shape.

        Args:
            features: of `ImageFeatures`, of the photo at S x S pixels.
            alpha: [B, 1, H, W] of the photo, in [0, 1].
            elevation_deg: [B] of the camera; None takes the estimate.

        Returns:
            occupancy logits [B, 1, G, G, G] (z, y, x) over the cube of cells, G = `SHAPE_SIDE`, in
            the photo's frame; estimated elevation in degrees [B].
        """
        _, middle, coarse = features
        side = ALPHA_SIDE * coarse.shape[-1]
        silhouette = F.pixel_unshuffle(F.adaptive_avg_pool2d(alpha, side), ALPHA_SIDE)
        inputs = torch.cat([coarse, F.pixel_unshuffle(middle, 2), silhouette], 1)
        tokens = self.embed(self.dropout(inputs.flatten(2).transpose(1, 2))) + self.position
        tokens = self.first(tokens)
        estimate = self.elevation_head(tokens.mean(1))[:, 0].float()
        estimated_deg = estimate * ELEVATION_SCALE_DEG + MEAN_ELEVATION_DEG
        given = estimated_deg.detach() if elevation_deg is None else elevation_deg
        tokens = tokens + self.elevation_embedding(elevation_inputs(given))[:, None]
        logits = self.shapes(self.dropout(self.weights(self.last(tokens).flatten(1)))).float()
        return logits.unflatten(1, (1, SHAPE_SIDE, SHAPE_SIDE, SHAPE_SIDE)), estimated_deg
