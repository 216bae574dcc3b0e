"""Stage 1: reference image to orbit (paper, Section 4.2)."""

import torch
from torch import Tensor

from hi3d.diffusion.sampling import OrbitCondition
from hi3d.diffusion.stage1_condition import stage1_condition
from hi3d.diffusion.unet import stage1_in_channels
from hi3d.training.diffusion_module import DiffusionModule
from hi3d.training.experiment import Stage1Experiment
from hi3d.training.module import Batch


class Stage1Module(DiffusionModule):
    """Trains the UNet to denoise orbits given the reference image and the elevation."""

    experiment: Stage1Experiment
    pipeline = ("hi3d.pipelines.orbit", "OrbitPipeline")

    def in_channels(self, experiment: Stage1Experiment, latent_channels: int) -> int:
        """Noisy latents and image latents."""
        return stage1_in_channels(latent_channels)

    @torch.no_grad()
    def condition(self, batch: Batch) -> OrbitCondition:
        """Image latents, embedding and elevation, without dropout."""
        reference, elevation_deg = batch["rgb"][:, 0], batch["elevation_deg"]
        noise_aug_strength = self.noise_aug_strength(len(reference))
        return stage1_condition(
            self.frozen["vae"],
            self.frozen["image_encoder"],
            reference,
            elevation_deg,
            noise_aug_strength,
            batch["rgb"].shape[1],
            self.base_video(batch),
            self.generators("noise_aug", len(reference)),
            self.experiment.frames_per_pass,
        )

    def base_video(self, batch: Batch) -> Tensor | None:
        """Frames [B, T, 3, H, W] of `OrbitPipeline.base_orbit`: None for the paper's model."""
        return None
