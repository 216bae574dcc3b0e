"""Trainings of the networks that a small model cannot take from elsewhere.

VAE, image encoder, elevation estimator and depth model.
"""

from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    DPTConfig,
    DPTForDepthEstimation,
)

from hi3d.diffusion.conditioning import encode_image
from hi3d.diffusion.elevation import ElevationEstimator
from hi3d.diffusion.weights import write_model_index
from hi3d.nano.experiment import (
    DepthConfig,
    DepthExperiment,
    ElevationExperiment,
    ImageEncoderConfig,
    ImageEncoderExperiment,
    VAEExperiment,
)
from hi3d.nano.patch_autoencoder import PatchAutoencoder, patch_second_moment
from hi3d.orbits.decoding import unpack_orbits
from hi3d.progress import console, track
from hi3d.training.losses import loss_contrastive, loss_gradient, loss_l1
from hi3d.training.module import Batch, TrainingModule

DISPARITY_OFFSET = 0.2
"""Added to all targets: DPT ends in a ReLU, which dies where most pixels are background at 0."""
FAR_DISPARITY, NEAR_DISPARITY = 1 / 2.4, 1 / 0.6
"""Ends of the inverse depth that a depth PNG can hold (16-bit range of the SyncDreamer sets)."""


def resize_video(frames: Tensor, side: int) -> Tensor:
    """Average [B, T, 3, H, W] down to [B, T, 3, side, side]."""
    resized = F.interpolate(frames.flatten(0, 1), (side, side), mode="area")
    return resized.unflatten(0, frames.shape[:2])


class VAEModule(TrainingModule):
    """Finds the components of `PatchAutoencoder` and trains its decoder on crops."""

    experiment: VAEExperiment
    network: PatchAutoencoder

    def __init__(self, experiment: VAEExperiment):
        """Args: experiment: `vae` says the size and the losses."""
        config = experiment.vae
        network = PatchAutoencoder(
            config.latent_channels, config.patch_size, config.hidden_channels
        )
        network.encoder.requires_grad_(False)
        super().__init__(experiment, network)

    def on_fit_start(self) -> None:
        """Fit the components to the first training batches, unless a checkpoint brought them."""
        super().on_fit_start()
        if self.trainer.global_step > 0:
            return
        config = self.experiment.vae
        loader = self.trainer.datamodule.train_dataloader()  # type: ignore[attr-defined]
        moments = []
        for batch in track(islice(loader, config.component_batches), "components"):
            for scale in config.scales:
                rgb = unpack_orbits(batch)["rgb"]
                frames = resize_video(rgb, round(rgb.shape[-1] * scale))
                moments.append(patch_second_moment(frames.flatten(0, 1) * 2 - 1, config.patch_size))
        kept = self.network.set_components(torch.stack(moments).mean(0), config.whitening)
        console.print(f"{config.latent_channels} components keep {kept:.2%} of the patches")
        if self.average is not None:  # the average was begun from the random decoder
            self.average.restart()

    def crop(self, rgb: Tensor) -> Tensor:
        """The frames at a random scale, cropped near the middle, where the object is.

        Args:
            rgb: [B, T, 3, H, W].

        Returns:
            [B, T, 3, crop, crop].
        """
        config = self.experiment.vae
        generator = self.generator("crop")
        scale = config.scales[int(torch.randint(len(config.scales), (), generator=generator))]
        side = round(rgb.shape[-1] * scale)
        frames = resize_video(rgb, side)
        spare = max(side - config.crop, 0)
        corner = torch.randint(spare + 1, (2, 2), generator=generator).float().mean(0)
        y, x = corner.long().tolist()
        return frames[..., y : y + config.crop, x : x + config.crop]

    def losses(self, frames: Tensor) -> dict[str, Tensor]:
        """Reconstruction losses of [B, T, 3, H, W] frames in [0, 1]."""
        decoded = self.network(frames.flatten(0, 1) * 2 - 1) / 2 + 0.5
        decoded = decoded.unflatten(0, frames.shape[:2])
        mse = (decoded.clamp(0, 1) - frames).square().mean((2, 3, 4))
        return {
            "loss_mse": F.mse_loss(decoded, frames),
            "loss_l1": loss_l1(decoded, frames),
            "loss_gradient": loss_gradient(decoded, frames),
            "psnr": -10 * mse.clamp_min(1e-6).log10().mean(),
        }

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """One step on crops."""
        config = self.experiment.vae
        losses = self.losses(self.crop(batch["rgb"]))
        self.log_losses("train", losses, len(batch["rgb"]))
        return (
            config.lambda_mse * losses["loss_mse"]
            + config.lambda_l1 * losses["loss_l1"]
            + config.lambda_gradient * losses["loss_gradient"]
        )

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Reconstruction of whole images at the smallest scale."""
        side = round(batch["rgb"].shape[-1] * min(self.experiment.vae.scales))
        losses = self.losses(resize_video(batch["rgb"], side))
        self.log_losses("val", losses, len(batch["rgb"]))

    def export(self, folder: Path, network: Any) -> None:
        """Write `vae/`."""
        network.save_pretrained(folder / "vae")
        write_model_index(folder, {"vae": network})


def build_image_encoder(config: ImageEncoderConfig) -> CLIPVisionModelWithProjection:
    """A randomly initialized CLIP vision tower."""
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=config.hidden_size,
            intermediate_size=4 * config.hidden_size,
            projection_dim=config.projection_dim,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            image_size=config.image_size,
            patch_size=config.patch_size,
            hidden_act="gelu",
        )
    )


class ImageEncoderModule(TrainingModule):
    """Trains the image encoder to know an object from any side."""

    experiment: ImageEncoderExperiment
    network: CLIPVisionModelWithProjection

    def __init__(self, experiment: ImageEncoderExperiment):
        """Args: experiment: `image_encoder` says the size and temperature."""
        super().__init__(experiment, build_image_encoder(experiment.image_encoder))

    def losses(self, first: Tensor, second: Tensor) -> dict[str, Tensor]:
        """Contrastive loss of two views [B, 3, H, W] of each object."""
        one, two = encode_image(self.network, torch.cat([first, second]))[:, 0].float().chunk(2)
        temperature = self.experiment.image_encoder.temperature
        return {"loss_contrastive": loss_contrastive(one, two, temperature)}

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """One step on two random views of each object."""
        rgb = batch["rgb"]
        draws = [torch.rand(rgb.shape[1], generator=g) for g in self.generators("views", len(rgb))]
        pick = torch.stack(draws).argsort(1)[:, :2].to(rgb.device)
        rows = torch.arange(len(rgb), device=rgb.device)
        losses = self.losses(rgb[rows, pick[:, 0]], rgb[rows, pick[:, 1]])
        self.log_losses("train", losses, len(rgb))
        return losses["loss_contrastive"]

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """The front against the quarter view."""
        rgb = batch["rgb"]
        self.log_losses("val", self.losses(rgb[:, 0], rgb[:, rgb.shape[1] // 4]), len(rgb))

    def export(self, folder: Path, network: Any) -> None:
        """Write `image_encoder/`."""
        network.save_pretrained(folder / "image_encoder")
        write_model_index(folder, {"image_encoder": network})


class ElevationModule(TrainingModule):
    """Trains the elevation estimator on rendered views."""

    experiment: ElevationExperiment
    network: ElevationEstimator

    def __init__(self, experiment: ElevationExperiment):
        """Args: experiment: `elevation` says the size."""
        config = experiment.elevation
        super().__init__(experiment, ElevationEstimator(tuple(config.channels), config.image_size))

    def losses(self, rgb: Tensor, elevation_deg: Tensor) -> dict[str, Tensor]:
        """Error of [B, V, 3, H, W] views, all taken from `elevation_deg` [B]."""
        error = self.network(rgb.flatten(0, 1)).unflatten(0, rgb.shape[:2]) - elevation_deg[:, None]
        return {
            "loss_elevation": F.smooth_l1_loss(error / 15, torch.zeros_like(error), beta=0.3),
            "error_deg": error.abs().mean(),
        }

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """One step, mirrored by chance."""
        rgb = batch["rgb"]
        if torch.rand((), generator=self.generator("mirror")) < 0.5:
            rgb = rgb.flip(-1)  # a mirrored object has the same elevation
        losses = self.losses(rgb, batch["elevation_deg"])
        self.log_losses("train", losses, len(rgb))
        return losses["loss_elevation"]

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """The same losses."""
        self.log_losses("val", self.losses(batch["rgb"], batch["elevation_deg"]), 1)

    def export(self, folder: Path, network: Any) -> None:
        """Write `elevation_estimator/`."""
        network.save_pretrained(folder / "elevation_estimator")
        write_model_index(folder, {"elevation_estimator": network})


def build_depth_estimator(config: DepthConfig) -> DPTForDepthEstimation:
    """A randomly initialized DPT, whose last ReLU starts in its linear range."""
    width = config.fusion_size
    taps = [config.num_layers * (i + 1) // 4 - 1 for i in range(4)]
    network = DPTForDepthEstimation(
        DPTConfig(
            hidden_size=config.hidden_size,
            intermediate_size=4 * config.hidden_size,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            image_size=config.image_size,
            patch_size=config.patch_size,
            backbone_out_indices=taps,
            neck_hidden_sizes=[width, width, 2 * width, 2 * width],
            fusion_hidden_size=width,
            use_auxiliary_head=False,
            is_hybrid=False,
        )
    )
    output_layer = next(m for m in reversed(network.head.head) if isinstance(m, nn.Conv2d))
    with torch.no_grad():
        output_layer.bias.fill_(DISPARITY_OFFSET)  # type: ignore[union-attr]
    return network


def disparity_target(depth: Tensor) -> Tensor:
    """Inverse depth scaled to [0, 1]; 0 where there is no surface.

    Args:
        depth: [...] camera z, 0 (or 0.6, the end of the range) where there is no surface.

    Returns:
        [...] in [0, 1].
    """
    covered = depth > 0.6 + 1e-4
    disparity = 1 / depth.clamp_min(0.6)
    disparity = (disparity - FAR_DISPARITY) / (NEAR_DISPARITY - FAR_DISPARITY)
    return torch.where(covered, disparity.clamp(0, 1), torch.zeros_like(disparity))


class DepthModule(TrainingModule):
    """Trains DPT on rendered depth."""

    experiment: DepthExperiment
    network: DPTForDepthEstimation

    def __init__(self, experiment: DepthExperiment):
        """Args: experiment: `depth` says the size and losses."""
        super().__init__(experiment, build_depth_estimator(experiment.depth))

    def losses(self, rgb: Tensor, depth: Tensor) -> dict[str, Tensor]:
        """Losses of [B, 3, H, W] images against [B, H, W] depth."""
        size = self.experiment.depth.image_size
        pixels = F.interpolate(rgb, (size, size), mode="bilinear") * 2 - 1
        predicted = self.network(pixel_values=pixels).predicted_depth[:, None].float()
        target = disparity_target(depth)[:, None] + DISPARITY_OFFSET
        target = F.interpolate(target, predicted.shape[-2:], mode="area")
        return {
            "loss_mse": F.mse_loss(predicted, target),
            "loss_gradient": loss_gradient(predicted, target),
        }

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """One step on the views of each orbit."""
        config = self.experiment.depth
        losses = self.losses(batch["rgb"].flatten(0, 1), batch["depth"].flatten(0, 1))
        self.log_losses("train", losses, len(batch["rgb"]))
        return (
            config.lambda_mse * losses["loss_mse"]
            + config.lambda_gradient * losses["loss_gradient"]
        )

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """The same losses."""
        losses = self.losses(batch["rgb"].flatten(0, 1), batch["depth"].flatten(0, 1))
        self.log_losses("val", losses, len(batch["rgb"]))

    def export(self, folder: Path, network: Any) -> None:
        """Write `depth_estimator/`."""
        network.save_pretrained(folder / "depth_estimator")
        write_model_index(folder, {"depth_estimator": network})
