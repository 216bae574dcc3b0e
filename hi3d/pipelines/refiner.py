"""Stage 2 as a diffusers pipeline: orbit to high-resolution orbit (paper, Section 4.3)."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import EulerDiscreteScheduler, UNetSpatioTemporalConditionModel
from torch import Tensor
from transformers import CLIPVisionModelWithProjection, DPTForDepthEstimation

from hi3d.config import check_number
from hi3d.diffusion.conditioning import VAE
from hi3d.diffusion.edm import BeforeStep, Generators
from hi3d.diffusion.elevation import ElevationEstimator
from hi3d.diffusion.guidance import guidance_scales
from hi3d.diffusion.memory.modes import set_parts
from hi3d.diffusion.sampling import OrbitCondition, sample_orbit_latents
from hi3d.diffusion.stage2_condition import stage2_condition
from hi3d.diffusion.unet import stage2_in_channels
from hi3d.errors import InputError
from hi3d.photo.view_alpha import views_alpha
from hi3d.pipelines.loading import StagePipeline
from hi3d.pipelines.sampler import (
    SamplerConfig,
    changed_sampler,
    sampling_sigmas,
    solver_name,
)
from hi3d.pipelines.sampling.inputs import (
    Photos,
    generators_for,
    is_batch,
    reference_images,
    spread,
)
from hi3d.pipelines.sampling.outputs import check_output_type, frames_as
from hi3d.pipelines.sampling.step_end import (
    CallbackOnStepEnd,
    after_steps,
    check_tensor_inputs,
)
from hi3d.views import ReferenceImage, Views


class RefinerPipeline(StagePipeline):
    """Refines a stage-1 orbit to twice its resolution, conditioned on depth and the photo."""

    _optional_components = ["elevation_estimator", "depth_estimator"]  # noqa: RUF012 - diffusers'
    model_cpu_offload_seq = "image_encoder->depth_estimator->unet->vae"

    def __init__(
        self,
        vae: VAE,
        image_encoder: CLIPVisionModelWithProjection,
        unet: UNetSpatioTemporalConditionModel,
        scheduler: EulerDiscreteScheduler,
        depth_estimator: DPTForDepthEstimation | None = None,
        elevation_estimator: ElevationEstimator | None = None,
        resolution: int = 1024,
    ):
        """Args:
        vae: encodes the orbit and decodes the refined one.
        image_encoder: CLIP embedding of the reference image.
        unet: the denoising network.
        scheduler: its config holds the noise levels.
        depth_estimator: depth of the stage-1 views; None for a UNet that takes none.
        elevation_estimator: not used by this stage; kept where the folder has one.
        resolution: image side that the UNet was trained at.

        Raises:
            InputError: the UNet takes depth, and there is no depth model.
        """
        super().__init__()
        without_depth = stage2_in_channels(unet.config.out_channels, depth=False)
        if depth_estimator is None and unet.config.in_channels != without_depth:
            raise InputError("the UNet takes depth and there is no depth_estimator: add the part")
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
        views: Views | Sequence[Views],
        image: Photos,
        sampler: SamplerConfig | None = None,
        generator: Generators = None,
        *,
        num_inference_steps: int | None = None,
        min_guidance_scale: float | None = None,
        max_guidance_scale: float | None = None,
        num_videos_per_prompt: int = 1,
        output_type: str = "views",
        callback_on_step_end: CallbackOnStepEnd | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> Any:
        """Refine an orbit, or several.

        Args:
            views: stage 1's orbit, or a list; the cameras say the elevation.
            image: the photo of it or of each, at this stage's resolution or larger, as for
                `OrbitPipeline`.
            sampler: steps and guidance.
            generator: CPU generator, or one for each orbit: the same seed gives the same orbit.
            num_inference_steps: in place of the sampler's.
            min_guidance_scale: in place of the sampler's.
            max_guidance_scale: in place of the sampler's.
            num_videos_per_prompt: refined orbits of each orbit, which stand together in the list.
            output_type: form of the result, see `sampling.outputs.frames_as`.
            callback_on_step_end: as in diffusers; may change the latents.
            callback_on_step_end_tensor_inputs: what it is given.

        Returns:
            As many views at `resolution`; a list where several orbits are given or asked for.

        Raises:
            InputError: an argument is wrong, or the orbits have different numbers of views.
        """
        sampler = changed_sampler(
            sampler, num_inference_steps, min_guidance_scale, max_guidance_scale
        )
        check_output_type(output_type)
        check_tensor_inputs(callback_on_step_end_tensor_inputs)
        check_number("num_videos_per_prompt", num_videos_per_prompt, 1, 1024)
        photos = reference_images(image, self.config.resolution)
        orbits = spread("views", views, len(photos))
        if len({len(orbit) for orbit in orbits}) > 1:
            raise InputError("orbits of different numbers of views: refine them one by one")
        photos = [photo for photo in photos for _ in range(num_videos_per_prompt)]
        orbits = [orbit for orbit in orbits for _ in range(num_videos_per_prompt)]
        generators = generators_for(generator, len(photos))
        outputs = []
        for some in self.batches(len(photos)):
            with self.products():
                made = self._refined(
                    orbits[some],
                    photos[some],
                    sampler,
                    None if generators is None else generators[some],
                    callback_on_step_end,
                    callback_on_step_end_tensor_inputs,
                )
            outputs += [frames_as(self.finished(each), output_type) for each in made]
        return outputs if is_batch(image) or num_videos_per_prompt > 1 else outputs[0]

    def _refined(
        self,
        orbits: list[Views],
        images: list[ReferenceImage],
        sampler: SamplerConfig,
        generators: list[torch.Generator] | None,
        callback: CallbackOnStepEnd | None,
        tensor_inputs: Sequence[str],
    ) -> list[Views]:
        # 1. The orbits at the target resolution, their first frames replaced by the photos.
        size, device = (self.config.resolution, self.config.resolution), self._execution_device
        small = [image.resized(self.config.resolution).rgb for image in images]
        references = torch.stack(small).to(device)
        orbit = torch.stack([_enlarged(views.rgb, size) for views in orbits]).to(device)
        orbit = torch.cat([references[:, None], orbit[:, 1:]], dim=1)
        # 2. Image latents, orbit latents and depth for channel concatenation, CLIP embedding for
        # cross-attention, and the elevation.
        orbit, base = self.coarse_orbit(orbit, references)
        elevations = [views.cameras.elevation_deg.mean() for views in orbits]
        condition = self.condition(
            references,
            orbit,
            torch.stack(elevations).float().to(device),
            torch.full((len(orbits),), sampler.noise_aug_strength),
            base,
            generators,
        )
        # 3. Denoise the refined orbits.
        sigmas = sampling_sigmas(sampler, self.scheduler)
        scales = guidance_scales(sampler.guidance, orbit.shape[1])
        set_parts(self.unet, self.memory.parts, orbit.shape[1])
        before_step = self.before_step(orbit, sigmas, generators)
        with after_steps(self, "stage 2", sigmas, callback, tensor_inputs) as after_step:
            latents = sample_orbit_latents(
                self.unet,
                condition,
                sigmas,
                scales,
                generators,
                after_step,
                before_step,
                solver_name(sampler, self.scheduler),
                self.memory.sequential,
            )
        # 4. Decode, and tell the object from the white background.
        refined = []
        decoded = self.decode(latents, condition.base, sampler)
        for frames, views, image in zip(decoded, orbits, images, strict=True):
            alpha = self.view_alpha(frames, image, views)
            refined.append(Views(frames, alpha, views.cameras.resized(size[1], size[0])))
        return refined

    def finished(self, views: Views) -> Views:
        """What is done to the refined views last; nothing in the paper's refiner."""
        return views

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
        generator: Generators,
    ) -> OrbitCondition:
        """What the UNet is told.

        Args:
            reference: [B, 3, H, W] in [0, 1].
            orbit: [B, T, 3, H, W] in [0, 1].
            elevation_deg: [B].
            noise_aug_strength: [B].
            base: [B, T, 3, H, W] in [0, 1], see `OrbitCondition.base`.
            generator: CPU generator of the noise augmentation, or one for each.
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
            self.memory.chunk_size,
        )

    def before_step(
        self, orbit: Tensor, sigmas: Tensor, generator: Generators
    ) -> BeforeStep | None:
        """What changes the latents before each step; None for the paper's refiner.

        Args:
            orbit: [B, T, 3, H, W] in [0, 1].
            sigmas: [num_steps + 1].
            generator: CPU generator, or one for each.
        """
        return None

    def coarse_orbit(self, orbit: Tensor, reference: Tensor) -> tuple[Tensor, Tensor | None]:
        """What the refiner is given of stage 1, and the video whose difference is diffused.

        Args:
            orbit: [B, T, 3, H, W] in [0, 1], at this stage's resolution.
            reference: [B, 3, H, W] in [0, 1].

        Returns:
            The orbit, and None: the paper's refiner diffuses the latents themselves.
        """
        return orbit, None


def _enlarged(rgb: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(rgb, size, mode="bicubic", align_corners=False).clamp(0, 1)
