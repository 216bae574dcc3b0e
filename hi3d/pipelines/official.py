"""Both stages with the released networks' own conditions, which differ from the paper's."""

from typing import Any

from diffusers import EulerDiscreteScheduler
from torch import Tensor

from hi3d.diffusion.base_orbit import BaseOrbit
from hi3d.diffusion.conditioning import VAE
from hi3d.diffusion.edm import BeforeStep, Generators
from hi3d.diffusion.official.aesthetic import AestheticScorer
from hi3d.diffusion.official.conditioning import (
    blend_weight,
    blend_with_orbit,
    official_stage1_condition,
    official_stage2_condition,
    sampled_latents,
)
from hi3d.diffusion.sampling import OrbitCondition
from hi3d.pipelines.orbit import OrbitPipeline
from hi3d.pipelines.refiner import RefinerPipeline


class OfficialOrbitPipeline(OrbitPipeline):
    """Stage 1 as released: an aesthetic score in the vector, SVD's resize before CLIP."""

    def __init__(
        self,
        vae: VAE,
        image_encoder: Any,
        unet: Any,
        scheduler: EulerDiscreteScheduler,
        aesthetic_scorer: AestheticScorer,
        elevation_estimator: Any = None,
        resolution: int = 512,
        conditioning: str = "official",
    ):
        """Args:
        vae: as `OrbitPipeline`, and so all but the two below.
        image_encoder: CLIP embedding of the reference image.
        unet: an `OfficialUNet`.
        scheduler: its config holds the noise levels.
        aesthetic_scorer: scores the reference image.
        elevation_estimator: for photos whose elevation is not known.
        resolution: image side that the UNet was trained at.
        conditioning: "official"; kept in the folder for its readers.
        """
        super().__init__(vae, image_encoder, unet, scheduler, elevation_estimator, resolution)
        self.register_modules(aesthetic_scorer=aesthetic_scorer)
        self.register_to_config(conditioning=conditioning)

    def condition(
        self,
        reference: Tensor,
        elevation_deg: Tensor,
        noise_aug_strength: Tensor,
        base: BaseOrbit | None,
        generator: Generators,
    ) -> OrbitCondition:
        """As `OrbitPipeline.condition`, by `official_stage1_condition`."""
        return official_stage1_condition(
            self.vae,
            self.image_encoder,
            self.aesthetic_scorer,
            reference,
            elevation_deg,
            noise_aug_strength,
            self.unet.config.num_frames,
            width=self.unet.config.addition_time_embed_dim,
            generator=generator,
        )


class OfficialRefinerPipeline(RefinerPipeline):
    """Stage 2 as released: folded depth, no image latents, and the blend with stage 1's orbit."""

    def __init__(
        self,
        vae: VAE,
        image_encoder: Any,
        unet: Any,
        scheduler: EulerDiscreteScheduler,
        depth_estimator: Any,
        elevation_estimator: Any = None,
        resolution: int = 1024,
        conditioning: str = "official",
    ):
        """Args:
        vae: as `RefinerPipeline`, and so all but the last.
        image_encoder: CLIP embedding of the reference image.
        unet: an `OfficialUNet`.
        scheduler: its config holds the noise levels.
        depth_estimator: depth of the stage-1 views.
        elevation_estimator: not used by this stage.
        resolution: image side that the UNet was trained at.
        conditioning: "official"; kept in the folder for its readers.
        """
        super().__init__(
            vae, image_encoder, unet, scheduler, depth_estimator, elevation_estimator, resolution
        )
        self.register_to_config(conditioning=conditioning)

    def condition(
        self,
        reference: Tensor,
        orbit: Tensor,
        elevation_deg: Tensor,
        noise_aug_strength: Tensor,
        base: Tensor | None,
        generator: Generators,
    ) -> OrbitCondition:
        """As `RefinerPipeline.condition`, by `official_stage2_condition`."""
        return official_stage2_condition(
            self.vae,
            self.image_encoder,
            self.depth_estimator,
            orbit,
            elevation_deg,
            noise_aug_strength,
            self.unet.config.addition_time_embed_dim,
            generator,
            self.memory.chunk_size,
        )

    def before_step(self, orbit: Tensor, sigmas: Tensor, generator: Generators) -> BeforeStep:
        """As `RefinerPipeline.before_step`: `blend_with_orbit` at each noise level."""
        orbit_latents = sampled_latents(self.vae, orbit, generator, self.memory.chunk_size)
        num_steps = len(sigmas) - 1

        def blend(step: int, latents: Tensor, noise: Tensor) -> Tensor:
            weight = blend_weight(step, num_steps)
            return blend_with_orbit(
                latents, noise, orbit_latents.to(latents), sigmas[step].to(latents), weight
            )

        return blend
