"""What the trainings of both stages share: a video UNet that learns to denoise orbits."""

from abc import abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import UNetSpatioTemporalConditionModel
from torch import Tensor

from hi3d.diffusion.conditioning import decode_orbit, encode_frames, scaled_latents
from hi3d.diffusion.edm import karras_sigmas, loss_denoising, randn, sample_sigma
from hi3d.diffusion.equal_forms import use_equal_forms
from hi3d.diffusion.sampling import OrbitCondition, conditioned_network, sample_orbit_latents
from hi3d.diffusion.unet import build_unet
from hi3d.diffusion.weights import (
    load_network,
    load_networks,
    load_unet,
    svd_scheduler,
    write_model_index,
)
from hi3d.errors import InputError
from hi3d.training.average import whole
from hi3d.training.experiment import DiffusionExperiment
from hi3d.training.module import Batch, TrainingModule
from hi3d.training.scaling.latent_cache import LatentCache, cache_key
from hi3d.training.scaling.trainable import LORA, choose_trainable, merged, save_adapter

VALIDATION_SIGMAS = (0.3, 1.0, 3.0, 10.0, 40.0)
"""Noise levels at which the validation loss is measured, so that its curve is not noise."""


class DiffusionModule(TrainingModule):
    """Trains a UNet to denoise orbits under a condition, which each stage makes its own way."""

    experiment: DiffusionExperiment
    network: UNetSpatioTemporalConditionModel
    pipeline: ClassVar[tuple[str, str]]
    """Module and class of the pipeline that reads the exported folder."""

    def __init__(self, experiment: DiffusionExperiment):
        """Args:
        experiment: says where the frozen networks are and how large the UNet is.

        Raises:
            InputError: a model folder is missing or broken.
        """
        frozen = self.load_frozen(experiment)
        latent_channels = frozen["vae"].config.latent_channels
        network = self.build_network(experiment, latent_channels)
        choose_trainable(network, experiment.trainable, experiment.lora)
        use_equal_forms(network, trained=True)
        super().__init__(experiment, network)
        self.adapters: dict[str, Tensor] = {}
        self.losses_of_videos: dict[str, Tensor] = {}
        self.freeze(**frozen)
        self.latents = self.open_latents()
        if experiment.gradient_checkpointing:
            self.network.enable_gradient_checkpointing()

    def open_latents(self) -> LatentCache | None:
        """The cached latents, if there are any.

        Raises:
            InputError: they are of other networks or sizes, or orbits are augmented.
        """
        experiment = self.experiment
        if experiment.latents is None:
            return None
        if type(self).augmented is not DiffusionModule.augmented:
            raise InputError(f"latents: task {experiment.task} augments orbits, leave it out")
        key = cache_key(self.frozen["vae"], experiment.data.resolution, experiment.data.num_views)
        return LatentCache(experiment.latents, key)

    def load_frozen(self, experiment: DiffusionExperiment) -> dict[str, Any]:
        """The networks that are used and not trained, the optional one if given."""
        frozen = load_networks(
            experiment.init_from, vae=experiment.vae, image_encoder=experiment.image_encoder
        )
        if experiment.elevation_estimator is not None:
            name = "elevation_estimator"
            frozen[name] = load_network(experiment.elevation_estimator, name)
        return frozen

    def build_network(
        self, experiment: DiffusionExperiment, latent_channels: int
    ) -> UNetSpatioTemporalConditionModel:
        """The UNet, from scratch or from the networks of `init_from`."""
        in_channels = self.in_channels(experiment, latent_channels)
        if experiment.init_from is not None:
            return load_unet(experiment.init_from, in_channels)
        return build_unet(experiment.unet, in_channels, latent_channels)

    @abstractmethod
    def in_channels(self, experiment: Any, latent_channels: int) -> int:
        """Input channels of this stage's UNet."""

    @abstractmethod
    def condition(self, batch: Batch) -> OrbitCondition:
        """What the UNet is told, without dropout."""

    def augmented(self, batch: Batch) -> Batch:
        """The batch that a step is trained on."""
        return batch

    def loss_weights(self, latents: Tensor) -> Tensor | float:
        """Weights of the squared error, to be broadcast to the target latents [B, T, C, h, w]."""
        return 1.0

    @torch.no_grad()
    def target_latents(self, batch: Batch, condition: OrbitCondition) -> Tensor:
        """Samples of the posterior of the true orbit, scaled, less the condition's base.

        Returns:
            [B, T, C, h, w].
        """
        vae = self.frozen["vae"]
        if self.latents is not None and all(uid in self.latents for uid in batch["uid"]):
            mean, std = (value.to(batch["rgb"]) for value in self.latents.posterior(batch["uid"]))
        else:
            mean, std = encode_frames(vae, batch["rgb"], self.experiment.frames_per_pass)
        noise = randn(std.shape, self.generators("posterior", len(std))).to(std)
        latents = (mean + std * noise) * vae.config.scaling_factor
        if condition.base is None:
            return latents
        return latents - scaled_latents(vae, condition.base, self.experiment.frames_per_pass)

    def noise_aug_strength(self, batch_size: int) -> Tensor:
        """ln noise_aug_strength ~ N(mean, std^2), one per video. [B]"""
        config = self.experiment.diffusion
        return sample_sigma(
            batch_size,
            config.noise_aug_log_mean,
            config.noise_aug_log_std,
            self.generators("noise_aug_strength", batch_size),
            self.device,
        )

    def drop_conditions(self, condition: OrbitCondition) -> OrbitCondition:
        """Drop the embedding, and independently the latents, of some videos (guidance)."""
        config = self.experiment.diffusion
        batch_size, num_frames = condition.concat.shape[:2]
        num_draws = 1 + (num_frames if config.drop_latents_per_frame else 1)
        generators = self.generators("drop_conditions", batch_size)
        draws = torch.stack([torch.rand(num_draws, generator=item) for item in generators])
        keep_embeds = draws[:, :1, None] >= config.drop_image_embeds
        keep_latents = draws[:, 1:, None, None, None] >= config.drop_image_latents
        return replace(
            condition,
            concat=condition.concat * keep_latents.to(condition.concat),
            image_embeds=condition.image_embeds * keep_embeds.to(condition.image_embeds),
        )

    def noise(self, latents: Tensor) -> Tensor:
        """The noise of a step, drawn on the CPU. As `latents`."""
        return randn(latents.shape, self.generators("noise", len(latents))).to(latents)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Paper Eq. 4 (stage 1) or Eq. 5 (stage 2)."""
        config = self.experiment.diffusion
        batch = self.augmented(batch)
        condition = self.drop_conditions(self.condition(batch))
        latents = self.target_latents(batch, condition)
        sigma = sample_sigma(
            len(latents),
            config.sigma_log_mean,
            config.sigma_log_std,
            self.generators("sigma", len(latents)),
            self.device,
        )
        network = conditioned_network(self.network, condition)
        noise = self.noise(latents)
        weights = self.loss_weights(latents)
        losses = loss_denoising(network, latents, noise, sigma, weights)
        self.losses_of_videos = {"sigma": sigma, "loss": losses.detach()}
        loss = losses.mean()
        self.log_losses("train", {"loss_denoising": loss}, len(latents))
        return loss

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """The loss at fixed noise levels with fixed noise."""
        condition = self.condition(batch)
        latents = self.target_latents(batch, condition)
        network = conditioned_network(self.network, condition)
        noise = self.noise(latents)
        losses: dict[str, Any] = {}
        for sigma in VALIDATION_SIGMAS:
            sigmas = torch.full((len(latents),), sigma, device=self.device)
            loss = loss_denoising(network, latents, noise, sigmas).mean()
            losses[f"loss_sigma_{sigma:g}"] = loss
        losses["loss_denoising"] = torch.stack(list(losses.values())).mean()
        self.log_losses("val", losses, len(latents))

    @torch.no_grad()
    def sample(self, batch: Batch, steps: int, sigma_max: float) -> Tensor:
        """Sample the orbits of a batch, without guidance.

        Args:
            batch: of true orbits, of which the condition is made.
            steps: of the sampler.
            sigma_max: first noise level.

        Returns:
            [B, T, 3, H, W] in [0, 1].
        """
        condition = self.condition(batch)
        sigmas = karras_sigmas(steps, sigma_max=sigma_max)
        scales = torch.ones(batch["rgb"].shape[1])
        generators = self.generators("samples", len(batch["rgb"]))
        latents = sample_orbit_latents(self.network, condition, sigmas, scales, generators)
        chunk_size = self.experiment.frames_per_pass
        return decode_orbit(self.frozen["vae"], latents, condition.base, chunk_size)

    def exported_network(self) -> Any:
        """As any, with adapters merged; where there are some, `export` also writes them alone."""
        if self.experiment.trainable != LORA:
            return super().exported_network()
        state = {name: whole(value) for name, value in self.network.state_dict().items()}
        self.adapters = {name: value for name, value in state.items() if ".lora_" in name}
        return self.rebuilt(merged(state, self.experiment.lora))

    def export(self, folder: Path, network: Any) -> None:
        """Write a model folder that the stage's pipeline reads."""
        if self.adapters:
            save_adapter(self.adapters, self.experiment.lora, folder / "adapter")
        parts = {**self.frozen, "unet": network, "scheduler": svd_scheduler()}
        for name, part in parts.items():
            part.save_pretrained(folder / name)
        write_model_index(folder, parts, self.pipeline, resolution=self.experiment.data.resolution)
