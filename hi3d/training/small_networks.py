"""Trainings of the networks that Stable Video Diffusion brings and a small model must make itself:
VAE, image encoder with elevation head, and depth model."""

from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLTemporalDecoder
from torch import Tensor, nn
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    DPTConfig,
    DPTForDepthEstimation,
)

from hi3d.diffusion.conditioning import ElevationEstimator, encode_frames, encode_image
from hi3d.training.experiment import (
    DepthConfig,
    DepthExperiment,
    ImageEncoderConfig,
    ImageEncoderExperiment,
    VAEConfig,
    VAEExperiment,
)
from hi3d.training.losses import loss_contrastive, loss_gradient, loss_kl, loss_l1
from hi3d.training.module import Batch, TrainingModule

FAR_DISPARITY, NEAR_DISPARITY = 1 / 2.4, 1 / 0.6
"""Ends of the inverse depth that a depth PNG can hold (16-bit range of the SyncDreamer sets)."""


def build_vae(config: VAEConfig) -> AutoencoderKLTemporalDecoder:
    """A randomly initialised VAE; every level but the last halves the resolution."""
    return AutoencoderKLTemporalDecoder(
        down_block_types=("DownEncoderBlock2D",) * len(config.block_out_channels),
        block_out_channels=tuple(config.block_out_channels),
        layers_per_block=config.layers_per_block,
        latent_channels=config.latent_channels,
        scaling_factor=1.0,
    )


class VAEModule(TrainingModule):
    """Trains `AutoencoderKLTemporalDecoder` on short runs of neighbouring views."""

    experiment: VAEExperiment
    network: AutoencoderKLTemporalDecoder

    def __init__(self, experiment: VAEExperiment):
        """Args: experiment: `vae` says the size and the losses."""
        super().__init__(experiment, build_vae(experiment.vae))
        self.register_buffer("latent_std", torch.ones(()))

    def select_frames(self, rgb: Tensor, whole: bool) -> Tensor:
        """Neighbouring frames, as a crop or resized as a whole.

        Args:
            rgb: [B, V, 3, H, W].
            whole: resize instead of cropping.

        Returns:
            [B, num_frames, 3, crop, crop].
        """
        config = self.experiment.vae
        start = int(torch.randint(rgb.shape[1], ()))
        frames = rgb.roll(-start, 1)[:, : config.num_frames]
        spare = frames.shape[-1] - config.crop
        if whole or spare <= 0:
            size = (config.crop, config.crop)
            return F.interpolate(frames.flatten(0, 1), size, mode="area").unflatten(
                0, frames.shape[:2]
            )
        # The mean of two uniform draws lies near the middle, where the object is.
        y, x = (torch.randint(spare + 1, (2, 2)).float().mean(0).long()).tolist()
        return frames[..., y : y + config.crop, x : x + config.crop]

    def losses(self, frames: Tensor, sample: bool) -> dict[str, Tensor]:
        """Reconstruction and KL losses of [B, T, 3, H, W] frames in [0, 1]."""
        mean, std = encode_frames(self.network, frames)
        latents = mean + std * torch.randn_like(std) if sample else mean
        decoded = self.network.decode(latents.flatten(0, 1), num_frames=frames.shape[1]).sample
        decoded = (decoded / 2 + 0.5).unflatten(0, frames.shape[:2])
        with torch.no_grad():
            self.latent_std.lerp_(mean.float().std(), 0.02)
            mse = (decoded.clamp(0, 1) - frames).square().mean((2, 3, 4))
        return {
            "loss_l1": loss_l1(decoded, frames),
            "loss_gradient": loss_gradient(decoded, frames),
            "loss_kl": loss_kl(mean.float(), std.float()),
            "psnr": -10 * mse.log10().mean(),
        }

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """One step on crops and whole frames in turn."""
        config = self.experiment.vae
        frames = self.select_frames(batch["rgb"], whole=batch_index % 2 == 0)
        losses = self.losses(frames, sample=True)
        self.log_losses("train", losses, len(frames))
        return (
            config.lambda_l1 * losses["loss_l1"]
            + config.lambda_gradient * losses["loss_gradient"]
            + config.lambda_kl * losses["loss_kl"]
        )

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Reconstruction of whole frames."""
        size = self.experiment.vae.crop
        frames = F.interpolate(batch["rgb"].flatten(0, 1), (size, size), mode="area")
        frames = frames.unflatten(0, batch["rgb"].shape[:2])
        self.log_losses("val", self.losses(frames, sample=False), len(frames))

    def export(self, folder: Path) -> None:
        """Write `vae/`, with the scaling factor that gives its latents unit variance."""
        self.network.register_to_config(scaling_factor=1 / self.latent_std.item())
        self.network.save_pretrained(folder / "vae")


class ImageEncoderNetwork(nn.Module):
    """Image encoder and elevation head, trained together."""

    def __init__(self, config: ImageEncoderConfig):
        """Args: config: sizes."""
        super().__init__()
        self.image_encoder = CLIPVisionModelWithProjection(
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
        self.elevation_estimator = ElevationEstimator(config.projection_dim)


class ImageEncoderModule(TrainingModule):
    """Trains the image encoder to know an object from any side, and the head to tell elevation."""

    experiment: ImageEncoderExperiment
    network: ImageEncoderNetwork

    def __init__(self, experiment: ImageEncoderExperiment):
        """Args: experiment: `image_encoder` says the sizes and losses."""
        super().__init__(experiment, ImageEncoderNetwork(experiment.image_encoder))

    def losses(self, first: Tensor, second: Tensor, elevation_deg: Tensor) -> dict[str, Tensor]:
        """Contrastive and elevation losses of two views [B, 3, H, W] of each object."""
        embeds = encode_image(self.network.image_encoder, torch.cat([first, second]))
        estimate = self.network.elevation_estimator(embeds)
        error = estimate - torch.cat([elevation_deg, elevation_deg])
        one, two = embeds[:, 0].float().chunk(2)
        temperature = self.experiment.image_encoder.temperature
        return {
            "loss_contrastive": loss_contrastive(one, two, temperature),
            "loss_elevation": F.smooth_l1_loss(error / 15, torch.zeros_like(error), beta=0.3),
            "elevation_error_deg": error.abs().mean(),
        }

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """One step on two random views of each object."""
        rgb = batch["rgb"]
        pick = torch.rand(rgb.shape[:2]).argsort(1)[:, :2].to(rgb.device)
        rows = torch.arange(len(rgb), device=rgb.device)
        views = [rgb[rows, pick[:, i]] for i in range(2)]
        losses = self.losses(views[0], views[1], batch["elevation_deg"])
        self.log_losses("train", losses, len(rgb))
        config = self.experiment.image_encoder
        return (
            config.lambda_contrastive * losses["loss_contrastive"]
            + config.lambda_elevation * losses["loss_elevation"]
        )

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """The front against the quarter view."""
        rgb = batch["rgb"]
        quarter = rgb.shape[1] // 4
        losses = self.losses(rgb[:, 0], rgb[:, quarter], batch["elevation_deg"])
        self.log_losses("val", losses, len(rgb))

    def export(self, folder: Path) -> None:
        """Write `image_encoder/` and `elevation_estimator/`."""
        self.network.image_encoder.save_pretrained(folder / "image_encoder")
        self.network.elevation_estimator.save_pretrained(folder / "elevation_estimator")


def build_depth_estimator(config: DepthConfig) -> DPTForDepthEstimation:
    """A randomly initialised DPT."""
    width = config.fusion_size
    taps = [config.num_layers * (i + 1) // 4 - 1 for i in range(4)]
    return DPTForDepthEstimation(
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
        target = disparity_target(depth)[:, None]
        target = F.interpolate(target, predicted.shape[-2:], mode="area")
        return {
            "loss_l1": loss_l1(predicted, target),
            "loss_gradient": loss_gradient(predicted, target),
        }

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """One step on a few views of each orbit."""
        config = self.experiment.depth
        views = torch.randperm(batch["rgb"].shape[1])[: config.views_per_orbit]
        rgb, depth = batch["rgb"][:, views], batch["depth"][:, views]
        losses = self.losses(rgb.flatten(0, 1), depth.flatten(0, 1))
        self.log_losses("train", losses, len(rgb))
        return (
            config.lambda_l1 * losses["loss_l1"] + config.lambda_gradient * losses["loss_gradient"]
        )

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Two opposite views."""
        opposite = [0, batch["rgb"].shape[1] // 2]
        rgb, depth = batch["rgb"][:, opposite], batch["depth"][:, opposite]
        self.log_losses("val", self.losses(rgb.flatten(0, 1), depth.flatten(0, 1)), len(rgb))

    def export(self, folder: Path) -> None:
        """Write `depth_estimator/`."""
        self.network.save_pretrained(folder / "depth_estimator")
