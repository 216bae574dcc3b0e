"""Stage 1 as a diffusers pipeline: reference image to orbit (paper, Section 4.2)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from diffusers import EulerDiscreteScheduler, UNetSpatioTemporalConditionModel
from torch import Tensor
from transformers import CLIPVisionModelWithProjection

from hi3d.cameras import NUM_ORBIT_VIEWS, Cameras, orbit_cameras
from hi3d.diffusion.conditioning import VAE, decode_orbit
from hi3d.diffusion.elevation import ElevationEstimator
from hi3d.diffusion.guidance import guidance_scales
from hi3d.diffusion.sampling import OrbitCondition, sample_orbit_latents
from hi3d.diffusion.stage1_condition import stage1_condition
from hi3d.errors import InputError
from hi3d.photo.view_alpha import views_alpha
from hi3d.pipelines.loading import StagePipeline
from hi3d.pipelines.sampler import SamplerConfig, sampling_progress, sampling_sigmas
from hi3d.views import ReferenceImage, Views


@dataclass(frozen=True)
class BaseOrbit:
    """A video whose difference is diffused, for models trained so."""

    rgb: Tensor  # [B, T, 3, H, W]
    """Over white, in [0, 1]."""
    alpha: Tensor | None = None  # [B, T, 1, H, W]
    """In [0, 1]; None where it does not say what is background."""


@dataclass(frozen=True)
class OrbitOutput:
    """What stage 1 returns."""

    views: Views
    """16 views; view 0 is the generated front."""
    elevation_deg: float
    """Given or estimated."""


class OrbitPipeline(StagePipeline):
    """Generates an orbit of 16 views from a reference image and its elevation."""

    _optional_components = ["elevation_estimator"]  # noqa: RUF012 - read by diffusers
    elevation_parts: ClassVar[set[str]] = {"elevation_estimator"}
    """Any one of these parts can say the elevation of a photo."""
    model_cpu_offload_seq = "image_encoder->unet->vae"

    def __init__(
        self,
        vae: VAE,
        image_encoder: CLIPVisionModelWithProjection,
        unet: UNetSpatioTemporalConditionModel,
        scheduler: EulerDiscreteScheduler,
        elevation_estimator: ElevationEstimator | None = None,
        resolution: int = 512,
    ):
        """Args:
        vae: encodes the reference image and decodes the orbit.
        image_encoder: CLIP embedding of the reference image.
        unet: the denoising network.
        scheduler: its config holds the noise levels.
        elevation_estimator: for photos whose elevation is not known.
        resolution: image side that the UNet was trained at.
        """
        super().__init__()
        self.register_modules(
            vae=vae,
            image_encoder=image_encoder,
            unet=unet,
            scheduler=scheduler,
            elevation_estimator=elevation_estimator,
        )
        self.register_to_config(resolution=resolution)

    @torch.no_grad()
    def __call__(
        self,
        image: ReferenceImage,
        elevation_deg: float | None = None,
        sampler: SamplerConfig | None = None,
        generator: torch.Generator | None = None,
    ) -> OrbitOutput:
        """Generate the orbit.

        Args:
            image: square reference image of any size.
            elevation_deg: of the camera that took it; None estimates it.
            sampler: steps and guidance.
            generator: CPU generator; the same seed gives the same orbit.

        Raises:
            InputError: the elevation is not given and this model cannot estimate it, or lies
                outside (-90, 90).
        """
        sampler = sampler or SamplerConfig()
        # 1. The reference image at the model's resolution.
        resolution = self.config.resolution
        small = image.resized(resolution)
        rgba = torch.cat([small.rgb, small.alpha])[None].to(self.device)
        # 2. Image latents for channel concatenation, CLIP embedding for cross-attention, elevation.
        elevation = self._elevation(rgba, elevation_deg)
        elevations = torch.tensor([elevation], device=rgba.device)
        noise_aug_strength = torch.tensor([sampler.noise_aug_strength])
        base = self.base_orbit(rgba, elevations)
        condition = self.condition(rgba[:, :3], elevations, noise_aug_strength, base, generator)
        # 3. Denoise the orbit.
        sigmas = sampling_sigmas(sampler, self.scheduler)
        scales = guidance_scales(sampler.guidance, NUM_ORBIT_VIEWS)
        with sampling_progress("stage 1", len(sigmas) - 1) as callback:
            latents = sample_orbit_latents(
                self.unet, condition, sigmas, scales, generator, callback
            )
        # 4. Decode, and tell the object from the white background.
        frames = decode_orbit(self.vae, latents, condition.base, sampler.decode_chunk_size)[0].cpu()
        cameras = orbit_cameras(elevation, resolution)
        alpha = self.view_alpha(frames, image, cameras, base)
        return OrbitOutput(Views(frames, alpha, cameras), elevation)

    def condition(
        self,
        reference: Tensor,
        elevation_deg: Tensor,
        noise_aug_strength: Tensor,
        base: BaseOrbit | None,
        generator: torch.Generator | None,
    ) -> OrbitCondition:
        """What the UNet is told.

        Args:
            reference: [B, 3, H, W] in [0, 1].
            elevation_deg: [B].
            noise_aug_strength: [B].
            base: of `base_orbit`.
            generator: CPU generator of the noise augmentation.
        """
        return stage1_condition(
            self.vae,
            self.image_encoder,
            reference,
            elevation_deg,
            noise_aug_strength,
            NUM_ORBIT_VIEWS,
            None if base is None else base.rgb,
            generator,
        )

    def base_orbit(self, reference: Tensor, elevation_deg: Tensor) -> BaseOrbit | None:
        """The video whose difference is diffused; None for the paper's model.

        Args:
            reference: [B, 4, H, W] RGB over white and alpha, in [0, 1].
            elevation_deg: [B].
        """
        return None

    def view_alpha(
        self, frames: Tensor, image: ReferenceImage, cameras: Cameras, base: BaseOrbit | None
    ) -> Tensor:
        """Opacity of the decoded frames; that of frame 0 is the reference image's.

        Args:
            frames: [T, 3, H, W] over white, in [0, 1].
            image: the reference image.
            cameras: of the T frames.
            base: of `base_orbit`.

        Returns:
            [T, 1, H, W] in [0, 1].
        """
        return views_alpha(frames, image.alpha, cameras)

    def estimated_elevation_deg(self, reference: Tensor) -> Tensor | None:
        """Of the camera of reference images; None where this model cannot say. [B]

        Args:
            reference: [B, 4, H, W] RGB over white and alpha, in [0, 1].
        """
        if self.elevation_estimator is None:
            return None
        return self.elevation_estimator(reference[:, :3])

    def _elevation(self, reference: Tensor, elevation_deg: float | None) -> float:
        if elevation_deg is None:
            estimate = self.estimated_elevation_deg(reference)
            if estimate is None:
                raise InputError(
                    "this model cannot estimate the camera's elevation: give elevation_deg=NUMBER"
                )
            return round(estimate.clamp(-10, 40).item(), 2)
        if not -90 < elevation_deg < 90:
            raise InputError(f"elevation_deg={elevation_deg}: give degrees between -90 and 90")
        return float(elevation_deg)
