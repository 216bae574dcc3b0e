"""Training of the coarse shape on top of a grid predictor, which stays as it is."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from hi3d.config import check_number
from hi3d.diffusion.weights import load_network, write_model_index
from hi3d.errors import InputError
from hi3d.nano.augmentation import augment_orbits
from hi3d.nano.grid.augmentation import random_gamma, random_stretch, reframed, widened, with_gamma
from hi3d.nano.grid.point_targets import SILHOUETTE_ALPHA, DepthOrbit, occupancy_of
from hi3d.nano.grid.predictor import GridPredictor
from hi3d.nano.grid.rendering import CUBE_HALF, cell_centers, project
from hi3d.nano.grid.shape import ELEVATION_SCALE_DEG, HEAD_CHANNELS, SHAPE_SIDE, SHAPE_SIZES
from hi3d.nano.grid.training import resized, validation_measures
from hi3d.training.experiment import Experiment
from hi3d.training.module import Batch, TrainingModule

OCCUPANCY_SIDE = 32  # cells of the grid in which an orbit's object is carved, once for all photos
RANGES: dict[str, tuple[float, float]] = {
    "channels": (1, 4096),
    "num_blocks": (2, 64),
    "num_shapes": (1, 65536),
    "photos_per_orbit": (1, 1024),
    "lambda_elevation": (0, 1e6),
    **{
        f"{kind}_probability": (0, 1)
        for kind in ("mirror", "permute_colors", "gamma", "reframe", "stretch")
    },
}
"""Least and largest value of each number of `ShapeConfig`."""


@dataclass
class ShapeConfig:
    """`ShapePredictor`, what it is added to, and its augmentation."""

    init_from: str | None = None
    """Model folder of a grid predictor with image features."""
    channels: int = 160
    """Width of the transformer, a multiple of 32."""
    num_blocks: int = 4
    """Of the transformer."""
    num_shapes: int = 128
    """Learned shapes that are summed."""
    photos_per_orbit: int = 16
    """Views of each orbit that a step takes as photos."""
    lambda_elevation: float = 0.3
    mirror_probability: float = 0.5
    permute_colors_probability: float = 0.3
    """See `hi3d.nano.augmentation.augment_orbits`."""
    gamma_probability: float = 0.7
    reframe_probability: float = 0.6
    stretch_probability: float = 0.75
    """See `hi3d.nano.grid.augmentation`."""

    def __post_init__(self) -> None:
        for name, (low, high) in RANGES.items():
            check_number(f"shape.{name}", getattr(self, name), low, high)
        if self.channels % HEAD_CHANNELS:
            raise InputError(
                f"shape.channels is {self.channels}: give a multiple of {HEAD_CHANNELS}, the width "
                "of an attention head"
            )


@dataclass
class ShapeExperiment(Experiment):
    """Training of the coarse shape on orbits with depth."""

    shape: ShapeConfig = field(default_factory=ShapeConfig)


class ShapeModule(TrainingModule):
    """Trains the `ShapePredictor` of a `GridPredictor`."""

    experiment: ShapeExperiment
    network: GridPredictor

    def __init__(self, experiment: ShapeExperiment):
        """Args:
        experiment: `shape` says what to begin with, and the size.

        Raises:
            InputError: `init_from` is no folder of a grid predictor with image features.
        """
        super().__init__(experiment, predictor_with_shape(experiment.shape))

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """One step on many photos of each orbit."""
        losses = self.losses(batch, self.generator("shape"))
        self.log_losses("train", losses, len(batch["rgb"]))
        return torch.stack(list(losses.values())).sum()

    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Each loss, weighted.

        Args:
            batch: B orbits with depth.
            generator: on the CPU, draws photos, colors, stretch and framing.
        """
        config = self.experiment.shape
        batch = augment_orbits(
            batch,
            config.mirror_probability,
            config.permute_colors_probability,
            self.generators("augmentation", len(batch["rgb"])),
        )
        orbit = DepthOrbit(batch["rgb"], batch["alpha"], batch["depth"], batch["elevation_deg"])
        num_views = orbit.rgb.shape[1]
        first = torch.randperm(num_views, generator=generator)[: config.photos_per_orbit]
        views = resized(
            torch.cat([orbit.rgb, orbit.alpha], 2)[:, first], self.network.config["resolution"]
        )
        photo = views.flatten(0, 1)
        elevation_deg = orbit.elevation_deg.repeat_interleave(len(first))
        gamma = random_gamma(len(photo), config.gamma_probability, generator)
        stretch = random_stretch(len(photo), config.stretch_probability, generator).to(photo)
        photo = torch.cat([with_gamma(photo[:, :3], gamma), photo[:, 3:]], 1)
        photo = widened(photo, stretch)
        azimuth_deg = orbit.azimuth_deg[0, first].repeat(len(views))
        solid, weight = shape_targets(orbit, azimuth_deg, stretch)
        weight = weight * in_silhouette(photo[:, 3:], elevation_deg)
        photo = reframed(photo, config.reframe_probability, generator)
        assert self.network.shape is not None
        logits, estimated_deg = self.network.shape(
            self.network.features(photo[:, :3]), photo[:, 3:], elevation_deg
        )
        error = F.binary_cross_entropy_with_logits(logits.flatten(1), solid, reduction="none")
        occupancy = (error * weight).sum(1) / weight.sum(1).clamp_min(1)
        elevation_error = (estimated_deg - elevation_deg) / ELEVATION_SCALE_DEG
        return {
            "loss_occupancy": occupancy.mean(),
            "loss_elevation": config.lambda_elevation
            * F.smooth_l1_loss(elevation_error, torch.zeros_like(elevation_error)),
        }

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """How well the orbit is turned, and the error of the elevation."""
        self.log_losses("val", validation_measures(self.network, batch), len(batch["rgb"]))

    def export(self, folder: Path, network: Any) -> None:
        """Write `grid_predictor/`, the coarse shape in it."""
        network.save_pretrained(folder / "grid_predictor")
        write_model_index(folder, {"grid_predictor": network})


def predictor_with_shape(config: ShapeConfig) -> GridPredictor:
    """A trained grid predictor with a new coarse shape, the one part that requires gradients.

    Raises:
        InputError: `init_from` is no folder of a grid predictor with image features.
    """
    if config.init_from is None:
        raise InputError("shape.init_from is missing: name the model folder of a grid predictor")
    trained = load_network(config.init_from, "grid_predictor")
    if not trained.config["with_image_features"]:
        raise InputError(
            f"the grid predictor of {config.init_from} has no image features: train one with "
            "grid_predictor.image_features"
        )
    settings = {k: v for k, v in trained.config.items() if not k.startswith("_")}
    sizes = (config.channels, config.num_blocks, config.num_shapes)
    network = GridPredictor(**settings | dict(zip(SHAPE_SIZES, sizes, strict=True)))
    state = {k: v for k, v in trained.state_dict().items() if not k.startswith("shape.")}
    network.load_state_dict(state, strict=False)
    network.requires_grad_(False)
    assert network.shape is not None
    network.shape.requires_grad_(True)
    return network


def shape_targets(orbit: DepthOrbit, azimuth_deg: Tensor, stretch: Tensor) -> tuple[Tensor, Tensor]:
    """Occupancy of the coarse grid's cells for several photos of each orbit.

    Args:
        orbit: B orbits.
        azimuth_deg: [B * P] of the photos, P of each orbit in turn.
        stretch: [B * P] by which each photo's object is wider than the orbit's.

    Returns:
        occupancy [B * P, N], 0 or 1; weight [B * P, N] in [0, 1], how sure that is.
    """
    num_photos = len(azimuth_deg) // len(orbit.rgb)
    carved = cell_centers(OCCUPANCY_SIDE).reshape(1, -1, 3).to(orbit.rgb)
    solid, weight = occupancy_of(orbit, carved.expand(len(orbit.rgb), -1, -1))
    grid = torch.stack([solid, 1 - weight], 1).unflatten(2, (OCCUPANCY_SIDE,) * 3)
    x, y, z = cell_centers(SHAPE_SIDE).reshape(-1, 3).to(orbit.rgb).unbind(-1)
    angle = torch.deg2rad(azimuth_deg)[:, None]
    y = y / stretch[:, None]
    turned = [x * angle.cos() - y * angle.sin(), x * angle.sin() + y * angle.cos()]
    place = torch.stack([*turned, z.expand_as(y)], -1) / CUBE_HALF
    values = F.grid_sample(
        grid.repeat_interleave(num_photos, 0),
        place[:, :, None, None],
        mode="nearest",
        align_corners=False,
    )[..., 0, 0]
    return values[:, 0], 1 - values[:, 1]


def in_silhouette(alpha: Tensor, elevation_deg: Tensor) -> Tensor:
    """Which cells of the coarse grid the photo shows within its silhouette, 1 or 0. [B, N]

    Args:
        alpha: [B, 1, S, S] of the photos.
        elevation_deg: [B] of their cameras.
    """
    points = cell_centers(SHAPE_SIDE).reshape(1, -1, 3).to(alpha).expand(len(alpha), -1, -1)
    xy, _ = project(points, torch.zeros_like(elevation_deg), elevation_deg)
    covered = F.grid_sample(alpha, xy[:, :, None], align_corners=False)[:, 0, :, 0]
    return (covered >= SILHOUETTE_ALPHA).float()
