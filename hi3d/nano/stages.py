"""Trainings of the small model's stages, which diffuse the difference to a video."""

from typing import Any

import torch
import torch.nn.functional as F
from diffusers import UNetSpatioTemporalConditionModel
from torch import Tensor

from hi3d.data.epoch_order import fold_of
from hi3d.diffusion.base_orbit import BaseOrbit
from hi3d.diffusion.weights import load_network, read_model_index
from hi3d.errors import InputError
from hi3d.nano.augmentation import augment_orbits
from hi3d.nano.base_orbit import base_orbit
from hi3d.nano.experiment import NanoDiffusionConfig, NanoStage1Experiment, NanoStage2Experiment
from hi3d.nano.grid.certainty import drawn_noise
from hi3d.nano.grid.predictor import GridPredictor
from hi3d.nano.reference_detail import add_reference_detail
from hi3d.training.diffusion_module import DiffusionModule
from hi3d.training.losses import relative_weights
from hi3d.training.module import Batch, take_orbits
from hi3d.training.stage1 import Stage1Module
from hi3d.training.stage2 import Stage2Module


class DifferenceModule(DiffusionModule):
    """What both small stages add: other objects from each orbit, and losses relative to the base.

    An untrained network repeats its base, which helps a small model that is trained for an hour.
    """

    @property
    def nano(self) -> NanoDiffusionConfig:
        """The small model's settings of the diffusion."""
        config = self.experiment.diffusion
        assert isinstance(config, NanoDiffusionConfig)
        return config

    def build_network(self, experiment: Any, latent_channels: int) -> Any:
        """A UNet that begins as no difference."""
        unet: UNetSpatioTemporalConditionModel = super().build_network(experiment, latent_channels)
        if experiment.init_from is None:
            for parameter in unet.conv_out.parameters():
                torch.nn.init.zeros_(parameter)
        return unet

    def augmented(self, batch: Batch) -> Batch:
        """Mirrored and recolored orbits."""
        config = self.nano
        return augment_orbits(
            batch,
            config.mirror_probability,
            config.permute_colors_probability,
            self.generators("augmentation", len(batch["rgb"])),
        )

    def loss_weights(self, latents: Tensor) -> Tensor | float:
        """Each frame weighs by how little it differs from its base."""
        floor = self.nano.relative_floor
        return 1.0 if floor is None else relative_weights(latents, floor)


class NanoStage1Module(DifferenceModule, Stage1Module):
    """Stage 1 that adds to the grid predictor's orbit."""

    experiment: NanoStage1Experiment
    pipeline = ("hi3d.nano.pipelines", "NanoOrbitPipeline")

    def load_frozen(self, experiment: NanoStage1Experiment) -> dict[str, Any]:  # type: ignore[override]
        """Stage 1's networks and the grid predictor, if given."""
        frozen = super().load_frozen(experiment)
        if experiment.grid_predictor is not None:
            name = "grid_predictor"
            frozen[name] = load_network(experiment.grid_predictor, name)
        return frozen

    def base_video(self, batch: Batch) -> Tensor:
        """Frames of `NanoOrbitPipeline.base_orbit`, each of another of the likely objects."""
        predictor = getattr(self.frozen, "grid_predictor", None)
        frames = batch["rgb"].shape[1]
        noise = drawn_noise(self.generators("base", len(batch["rgb"]))).to(batch["rgb"])
        first, elevation_deg = first_views(batch), batch["elevation_deg"]
        return base_orbit(predictor, first, elevation_deg, frames, noise, with_free=False).rgb


class NanoStage2Module(DifferenceModule, Stage2Module):
    """Stage 2 that adds to the coarse orbit, and learns from predictors that have not seen it."""

    experiment: NanoStage2Experiment

    pipeline = ("hi3d.nano.pipelines", "NanoRefinerPipeline")

    def __init__(self, experiment: NanoStage2Experiment):
        """Args:
        experiment: as stage 2, with the cross-fitted grid predictors.

        Raises:
            InputError: a model folder is missing or broken, or stage 1 has no grid predictor that
                the cross-fitted ones could stand for.
        """
        self.predictors: list[GridPredictor] = []
        super().__init__(experiment)

    def load_stage1(self, folder: str) -> dict[str, Any]:
        """Stage 1's UNet and grid predictor, and the predictors of the folds."""
        networks = super().load_stage1(folder)
        name = "grid_predictor"
        if name in read_model_index(folder):
            networks[name] = load_network(folder, name).requires_grad_(False)
        if self.experiment.stage1_cross_fitted and name not in networks:
            raise InputError(
                f"stage1_cross_fitted needs a grid predictor in stage1={folder}: "
                "leave it out, or give another stage 1"
            )
        self.predictors = [
            load_network(fold, name).requires_grad_(False)
            for fold in self.experiment.stage1_cross_fitted
        ]
        return networks

    def coarse_and_base(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The coarse orbit with the reference's detail, twice."""
        detailed = add_reference_detail(self.coarse_orbit(batch), batch["rgb"][:, 0])
        return detailed, detailed

    def stage1_orbit(self, batch: Batch, generators: list[torch.Generator]) -> Tensor:
        """Run stage 1, each orbit with the predictor that was trained without its fold."""
        if self.predictors and len(generators) > 1:
            singles = [
                self.stage1_orbit(take_orbits(batch, [i]), [generator])
                for i, generator in enumerate(generators)
            ]
            return torch.cat(singles)
        return super().stage1_orbit(batch, generators)

    def stage1_base(
        self,
        reference: Tensor,
        batch: Batch,
        networks: dict[str, Any],
        generators: list[torch.Generator],
    ) -> BaseOrbit:
        """`NanoOrbitPipeline.base_orbit` of the batch's fold."""
        predictor = networks.get("grid_predictor")
        if self.predictors:
            fold = fold_of(batch["uid"][0], len(self.predictors))
            predictor = self.predictors[fold].to(self.device)
        first = F.interpolate(first_views(batch), reference.shape[-2:], mode="area")
        frames, noise = batch["rgb"].shape[1], drawn_noise(generators).to(first)
        return base_orbit(predictor, first, batch["elevation_deg"], frames, noise)


def first_views(batch: Batch) -> Tensor:
    """The reference images with alpha. [B, 4, H, W]"""
    return torch.cat([batch["rgb"][:, 0], batch["alpha"][:, 0]], 1)
