"""Stage 2: low-resolution orbit to high-resolution orbit (paper, Section 4.3)."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hi3d.data.epoch_order import fold_of
from hi3d.degradation.pipeline import degrade
from hi3d.diffusion.conditioning import (
    augment_with_noise,
    decode_orbit,
    encode_condition,
    encode_image,
    estimate_depth,
    resize_depth,
    vector_condition,
)
from hi3d.diffusion.edm import karras_sigmas
from hi3d.diffusion.sampling import OrbitCondition, sample_orbit_latents
from hi3d.diffusion.stage1_condition import stage1_condition
from hi3d.diffusion.unet import stage2_in_channels
from hi3d.diffusion.weights import load_network, load_networks, read_model_index
from hi3d.errors import InputError
from hi3d.nano.orbit_predictor import OrbitPredictor
from hi3d.nano.reference_detail import add_reference_detail
from hi3d.training.experiment import Stage2Experiment
from hi3d.training.module import Batch
from hi3d.training.stage1 import Stage1Module


class Stage2Module(Stage1Module):
    """Trains the refiner to denoise a sharp orbit given a degraded one, its depth and the photo."""

    experiment: Stage2Experiment
    pipeline_class = "RefinerPipeline"

    @property
    def is_residual(self) -> bool:
        """Whether the difference to the coarse orbit is diffused."""
        return self.experiment.diffusion.residual

    def in_channels(self, latent_channels: int) -> int:
        """Noisy, image and orbit latents, and depth."""
        return stage2_in_channels(latent_channels)

    def load_frozen(self, experiment: Stage2Experiment) -> dict[str, Any]:  # type: ignore[override]
        """Stage 1's networks and the depth model."""
        frozen = super().load_frozen(experiment)
        depth = load_networks(experiment.init_from, depth_estimator=experiment.depth_estimator)
        return {**frozen, **depth}

    def __init__(self, experiment: Stage2Experiment):
        """Args:
        experiment: as stage 1, with degradation, depth model and the share of stage-1 outputs.

        Raises:
            InputError: a model folder is missing or broken, or stage 1 has no orbit predictor that
                the cross-fitted ones could stand for.
        """
        super().__init__(experiment)
        # In a dict so that it is neither trained, nor saved with the pipeline.
        self.stage1: dict[str, Any] = {}
        self.predictors: list[OrbitPredictor] = []
        if experiment.stage1 is not None and experiment.stage1_share > 0:
            index = read_model_index(experiment.stage1)
            for name in ("unet", "orbit_predictor"):
                if name in index:
                    network = load_network(experiment.stage1, name)
                    self.stage1[name] = network.requires_grad_(False)
            self.stage1_is_residual = index.get("residual", False)
            if experiment.stage1_cross_fitted and "orbit_predictor" not in self.stage1:
                raise InputError(
                    f"stage1_cross_fitted needs an orbit predictor in stage1={experiment.stage1}: "
                    "leave it out, or give another stage 1"
                )
            self.predictors = [
                load_network(folder, "orbit_predictor").requires_grad_(False)
                for folder in experiment.stage1_cross_fitted
            ]

    @torch.no_grad()
    def coarse_orbit(self, batch: Batch) -> Tensor:
        """What stage 2 will see at inference: a degraded orbit, or one that stage 1 made.

        Returns:
            [B, V, 3, H, W] in [0, 1]; frame 0 is the clean reference.
        """
        rgb = batch["rgb"]
        seed = int(torch.randint(2**31, ()))
        generator = torch.Generator().manual_seed(seed)
        share = self.experiment.stage1_share if self.stage1 else 0.0
        if torch.rand((), generator=generator) < share:
            orbit = self.stage1_orbit(batch, generator)
        else:
            orbit = degrade(rgb, batch["alpha"], self.experiment.degradation, generator)
        return add_reference_detail(orbit, rgb[:, 0]) if self.is_residual else orbit

    def stage1_orbit(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Run stage 1 on the reference images, resized to this stage's resolution."""
        if self.predictors and len(batch["rgb"]) > 1:  # orbits of several folds
            orbits = [self.stage1_orbit(orbit, generator) for orbit in single_orbits(batch)]
            return torch.cat(orbits)
        networks = {name: network.to(self.device) for name, network in self.stage1.items()}
        if self.predictors:
            fold = fold_of(batch["uid"][0], len(self.predictors))
            networks["orbit_predictor"] = self.predictors[fold].to(self.device)
        rgb, size = batch["rgb"], self.experiment.stage1_resolution
        small = F.interpolate(rgb[:, 0], (size, size), mode="area")
        noise_aug = torch.full((len(rgb),), self.experiment.noise_aug_inference, device=self.device)
        condition = stage1_condition(
            self.frozen["vae"],
            self.frozen["image_encoder"],
            small,
            batch["elevation_deg"],
            noise_aug,
            rgb.shape[1],
            self.stage1_is_residual,
            networks.get("orbit_predictor"),
            generator,
        )
        sigmas = karras_sigmas(
            self.experiment.stage1_steps, sigma_max=self.experiment.stage1_sigma_max
        )
        scales = torch.ones(rgb.shape[1])
        latents = sample_orbit_latents(networks["unet"], condition, sigmas, scales, generator)
        orbit = decode_orbit(self.frozen["vae"], latents, condition.base)
        orbit = F.interpolate(orbit.flatten(0, 1), rgb.shape[-2:], mode="bicubic").clamp(0, 1)
        orbit = orbit.unflatten(0, rgb.shape[:2])
        return torch.cat([rgb[:, :1], orbit[:, 1:]], dim=1)

    @torch.no_grad()
    def condition(self, batch: Batch) -> OrbitCondition:
        """Image latents, orbit latents, depth, embedding, elevation, without dropout."""
        reference = batch["rgb"][:, :1]
        coarse = self.coarse_orbit(batch)
        noise_aug = self.noise_aug_strength(len(reference))
        vae = self.frozen["vae"]
        image_latents = encode_condition(vae, augment_with_noise(reference, noise_aug))
        orbit_latents = encode_condition(vae, augment_with_noise(coarse, noise_aug))
        depth = estimate_depth(self.frozen["depth_estimator"], coarse)
        depth = resize_depth(depth, orbit_latents.shape[-2:])
        return OrbitCondition(
            torch.cat([image_latents.expand_as(orbit_latents), orbit_latents, depth], dim=2),
            encode_image(self.frozen["image_encoder"], reference[:, 0]),
            vector_condition(batch["elevation_deg"].float(), noise_aug),
            coarse if self.is_residual else None,
        )


def single_orbits(batch: Batch) -> list[Batch]:
    """The orbits of a batch, each as a batch of one."""
    count = len(batch["rgb"])
    return [{name: value[i : i + 1] for name, value in batch.items()} for i in range(count)]
