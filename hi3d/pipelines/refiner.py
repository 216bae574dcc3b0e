"""Stage 2 as a diffusers pipeline: orbit to high-resolution orbit (paper, Section 4.3)."""

import torch
import torch.nn.functional as F
from diffusers import (
    DiffusionPipeline,
    EulerDiscreteScheduler,
    UNetSpatioTemporalConditionModel,
)
from torch import Tensor
from transformers import CLIPVisionModelWithProjection, DPTForDepthEstimation

from hi3d.diffusion.conditioning import (
    VAE,
    ElevationEstimator,
    augment_with_noise,
    decode_orbit,
    encode_condition,
    encode_image,
    estimate_depth,
    resize_depth,
    vector_condition,
)
from hi3d.diffusion.guidance import guidance_scales
from hi3d.diffusion.sampling import OrbitCondition, sample_orbit_latents
from hi3d.nano.reference_detail import add_reference_detail
from hi3d.photo.matting import key_white_views
from hi3d.pipelines.sampler import SamplerConfig, sampling_progress, sampling_sigmas
from hi3d.views import ReferenceImage, Views


class RefinerPipeline(DiffusionPipeline):
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
        residual: bool = False,
    ):
        """Args:
        vae: encodes the orbit and decodes the refined one.
        image_encoder: CLIP embedding of the reference image.
        unet: the denoising network.
        scheduler: its config holds the noise levels.
        depth_estimator: depth of the stage-1 views.
        elevation_estimator: not used by this stage; kept where the folder has one.
        resolution: image side that the UNet was trained at.
        residual: the UNet was trained on the difference to the conditioning video, which has
            the photo's detail where both agree (`add_reference_detail`).
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
        self.register_to_config(resolution=resolution, residual=residual)

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
        reference = F.interpolate(image.rgb[None], size, mode="area").to(self.device)
        orbit = F.interpolate(views.rgb, size, mode="bicubic", align_corners=False).clamp(0, 1)
        orbit = torch.cat([reference, orbit[1:].to(self.device)])[None]
        if self.config.residual:
            orbit = add_reference_detail(orbit, reference)
        # 2. Image latents, orbit latents and depth for channel concatenation.
        strength = torch.tensor([sampler.noise_aug_strength])
        image_latents = self._latents(reference[:, None], strength, generator)
        orbit_latents = self._latents(orbit, strength, generator)
        depth = estimate_depth(self.depth_estimator, orbit)
        depth = resize_depth(depth, orbit_latents.shape[-2:])
        concat = torch.cat([image_latents.expand_as(orbit_latents), orbit_latents, depth], dim=2)
        # 3. CLIP embedding for cross-attention, and the elevation.
        elevation = views.cameras.elevation_deg.mean()[None].float()
        condition = OrbitCondition(
            concat,
            encode_image(self.image_encoder, reference),
            vector_condition(elevation.cpu(), strength).to(self.device),
            orbit if self.config.residual else None,
        )
        # 4. Denoise the refined orbit.
        sigmas = sampling_sigmas(sampler, self.scheduler)
        scales = guidance_scales(sampler.guidance, num_views)
        with sampling_progress("stage 2", len(sigmas) - 1) as callback:
            latents = sample_orbit_latents(
                self.unet, condition, sigmas, scales, generator, callback
            )
        # 5. Decode, and take the white background as transparent.
        frames = decode_orbit(self.vae, latents, condition.base, sampler.decode_chunk_size)[0].cpu()
        alpha = key_white_views(frames, sampler.background_tolerance)
        return Views(frames, alpha, views.cameras.resized(size[1], size[0]))

    def _latents(
        self, frames: Tensor, strength: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        return encode_condition(self.vae, augment_with_noise(frames, strength, generator))
