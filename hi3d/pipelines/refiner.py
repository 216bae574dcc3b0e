"""Stage 2 as a diffusers pipeline: orbit to high-resolution orbit (paper, Section 4.3)."""

import torch
import torch.nn.functional as F
from diffusers import EulerDiscreteScheduler, UNetSpatioTemporalConditionModel
from torch import Tensor
from transformers import CLIPVisionModelWithProjection, DPTForDepthEstimation

from hi3d.diffusion.conditioning import VAE, decode_orbit
from hi3d.diffusion.edm import BeforeStep
from hi3d.diffusion.elevation import ElevationEstimator
from hi3d.diffusion.guidance import guidance_scales
from hi3d.diffusion.sampling import OrbitCondition, sample_orbit_latents
from hi3d.diffusion.stage2_condition import stage2_condition
from hi3d.photo.view_alpha import views_alpha
from hi3d.pipelines.loading import StagePipeline
from hi3d.pipelines.sampler import SamplerConfig, sampling_progress, sampling_sigmas
from hi3d.views import ReferenceImage, Views


class RefinerPipeline(StagePipeline):
    """Refines a stage-1 orbit to twice its resolution, conditioned on depth and the photo."""

    _optional_components = ["elevation_estimator"]  # noqa: RUF012 - read by diffusers
    model_cpu_offload_seq = "image_encoder->depth_estimator->unet->vae"

    def __init__(
        self,
        vae: VAE,
        image_encoder: CLIPVisionModelWithProjection,
        unet: UNetSpatioTemporalConditionModel,
        scheduler: EulerDiscreteScheduler,
        depth_estimator: DPTForDepthEstimation,
        elevation_estimator: ElevationEstimator | None = None,
        resolution: int = 1024,
    ):
        """Args:
        vae: encodes the orbit and decodes the refined one.
        image_encoder: CLIP embedding of the reference image.
        unet: the denoising network.
        scheduler: its config holds the noise levels.
        depth_estimator: depth of the stage-1 views.
        elevation_estimator: not used by this stage; kept where the folder has one.
        resolution: image side that the UNet was trained at.
        """
        super().__init__()
        self.register_modules(
            vae=vae,
            image_encoder=image_encoder,
            unet=unet,
            scheduler=scheduler,
            depth_estimator=depth_estimator,
            elevation_estimator=elevation_estimator,
        )
        self.register_to_config(resolution=resolution)

    @torch.no_grad()
    def __call__(
        self,
        views: Views,
        image: ReferenceImage,
        sampler: SamplerConfig | None = None,
        generator: torch.Generator | None = None,
    ) -> Views:
        """Refine the orbit.

        Args:
            views: stage 1's orbit; its cameras say the elevation.
            image: the reference image, at this stage's resolution or larger.
            sampler: steps and guidance.
            generator: CPU generator; the same seed gives the same orbit.

        Returns:
            As many views at `resolution`.
        """
        sampler = sampler or SamplerConfig()
        num_views, size = len(views), (self.config.resolution, self.config.resolution)
        # 1. The orbit at the target resolution, its first frame replaced by the photo.
        reference = image.resized(self.config.resolution).rgb[None].to(self.device)
        orbit = F.interpolate(views.rgb, size, mode="bicubic", align_corners=False).clamp(0, 1)
        orbit = torch.cat([reference, orbit[1:].to(self.device)])[None]
        # 2. Image latents, orbit latents and depth for channel concatenation, CLIP embedding for
        # cross-attention, and the elevation.
        orbit, base = self.coarse_orbit(orbit, reference)
        condition = self.condition(
            reference,
            orbit,
            views.cameras.elevation_deg.mean()[None].float().to(self.device),
            torch.tensor([sampler.noise_aug_strength]),
            base,
            generator,
        )
        # 3. Denoise the refined orbit.
        sigmas = sampling_sigmas(sampler, self.scheduler)
        scales = guidance_scales(sampler.guidance, num_views)
        before_step = self.before_step(orbit, sigmas, generator)
        with sampling_progress("stage 2", len(sigmas) - 1) as callback:
            latents = sample_orbit_latents(
                self.unet, condition, sigmas, scales, generator, callback, before_step
            )
        # 4. Decode, and tell the object from the white background.
        frames = decode_orbit(self.vae, latents, condition.base, sampler.decode_chunk_size)[0].cpu()
        alpha = self.view_alpha(frames, image, views)
        return Views(frames, alpha, views.cameras.resized(size[1], size[0]))

    def view_alpha(self, frames: Tensor, image: ReferenceImage, views: Views) -> Tensor:
        """Opacity of the refined frames; that of frame 0 is the reference image's.

        Args:
            frames: [V, 3, H, W] over white, in [0, 1].
            image: the reference image.
            views: stage 1's orbit.

        Returns:
            [V, 1, H, W] in [0, 1].
        """
        cameras = views.cameras.resized(frames.shape[-1], frames.shape[-2])
        return views_alpha(frames, image.alpha, cameras)

    def condition(
        self,
        reference: Tensor,
        orbit: Tensor,
        elevation_deg: Tensor,
        noise_aug_strength: Tensor,
        base: Tensor | None,
        generator: torch.Generator | None,
    ) -> OrbitCondition:
        """What the UNet is told.

        Args:
            reference: [B, 3, H, W] in [0, 1].
            orbit: [B, T, 3, H, W] in [0, 1].
            elevation_deg: [B].
            noise_aug_strength: [B].
            base: [B, T, 3, H, W] in [0, 1], see `OrbitCondition.base`.
            generator: CPU generator of the noise augmentation.
        """
        return stage2_condition(
            self.vae,
            self.image_encoder,
            self.depth_estimator,
            reference,
            orbit,
            elevation_deg,
            noise_aug_strength,
            base,
            generator,
        )

    def before_step(
        self, orbit: Tensor, sigmas: Tensor, generator: torch.Generator | None
    ) -> BeforeStep | None:
        """What changes the latents before each step; None for the paper's refiner.

        Args:
            orbit: [1, T, 3, H, W] in [0, 1].
            sigmas: [num_steps + 1].
            generator: CPU generator.
        """
        return None

    def coarse_orbit(self, orbit: Tensor, reference: Tensor) -> tuple[Tensor, Tensor | None]:
        """What the refiner is given of stage 1, and the video whose difference is diffused.

        Args:
            orbit: [1, T, 3, H, W] in [0, 1], at this stage's resolution.
            reference: [1, 3, H, W] in [0, 1].

        Returns:
            The orbit, and None: the paper's refiner diffuses the latents themselves.
        """
        return orbit, None
