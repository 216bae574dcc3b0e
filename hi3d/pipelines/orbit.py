"""Stage 1 as a diffusers pipeline: reference image to orbit (paper, Section 4.2)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from diffusers import EulerDiscreteScheduler, UNetSpatioTemporalConditionModel
from torch import Tensor
from transformers import CLIPVisionModelWithProjection

from hi3d.cameras import NUM_ORBIT_VIEWS, Cameras, orbit_cameras
from hi3d.config import check_choice, check_number
from hi3d.diffusion.base_orbit import BaseOrbit
from hi3d.diffusion.conditioning import VAE, scaled_latents
from hi3d.diffusion.edm import Generators
from hi3d.diffusion.elevation import ElevationEstimator
from hi3d.diffusion.elevation_search import ElevationLosses, elevation_losses
from hi3d.diffusion.guidance import guidance_scales
from hi3d.diffusion.memory.modes import set_parts
from hi3d.diffusion.sampling import OrbitCondition, sample_orbit_latents
from hi3d.diffusion.stage1_condition import stage1_condition
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


@dataclass(frozen=True)
class OrbitOutput:
    """What stage 1 returns."""

    views: Views
    """16 views; view 0 is the generated front."""
    elevation_deg: float
    """Given or estimated."""
    frames: Any = None
    """The views in the form of `output_type`."""


class OrbitPipeline(StagePipeline):
    """Generates an orbit of 16 views from a reference image and its elevation."""

    _optional_components = ["elevation_estimator"]  # noqa: RUF012 - read by diffusers
    elevation_parts: ClassVar[set[str]] = {"elevation_estimator"}
    """Any one of these parts can say the elevation of a photo."""
    grid_parts: ClassVar[set[str]] = set()
    """Any one of these parts predicts the whole object, see `predicted_grid`."""
    temperature: float = 1.0
    """Size of the first noise relative to the first noise level. Below 1 samples keep nearer to the
    mean of all orbits that are likely: fewer details, fewer errors."""
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
        image: Photos,
        elevation_deg: float | Sequence[float | None] | None = None,
        sampler: SamplerConfig | None = None,
        generator: Generators = None,
        *,
        elevation_from: str = "regressor",
        num_inference_steps: int | None = None,
        min_guidance_scale: float | None = None,
        max_guidance_scale: float | None = None,
        num_videos_per_prompt: int = 1,
        output_type: str = "views",
        callback_on_step_end: CallbackOnStepEnd | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> Any:
        """Generate the orbit of a photo, or the orbits of several.

        Args:
            image: a photo or several, see `sampling.inputs`; a `ReferenceImage` is taken as it is,
                everything else is cut out and framed.
            elevation_deg: of the camera that took it, or of each; None estimates it.
            sampler: steps and guidance.
            generator: CPU generator, or one for each orbit: the same seed gives the same orbit.
            elevation_from: how it is estimated: `regressor`, by the model's part that was trained
                to; `denoising`, by the UNet, see `elevation_search`.
            num_inference_steps: in place of the sampler's.
            min_guidance_scale: in place of the sampler's.
            max_guidance_scale: in place of the sampler's.
            num_videos_per_prompt: orbits of each photo, which stand together in the list.
            output_type: form of `OrbitOutput.frames`, see `sampling.outputs.frames_as`.
            callback_on_step_end: as in diffusers; may change the latents.
            callback_on_step_end_tensor_inputs: what it is given.

        Returns:
            An `OrbitOutput`; a list where several photos or several orbits are asked for.

        Raises:
            InputError: an argument is wrong, or the elevation is not given and this model cannot
                estimate it, or lies outside (-90, 90).
        """
        sampler = changed_sampler(
            sampler, num_inference_steps, min_guidance_scale, max_guidance_scale
        )
        check_output_type(output_type)
        check_tensor_inputs(callback_on_step_end_tensor_inputs)
        check_number("num_videos_per_prompt", num_videos_per_prompt, 1, 1024)
        photos = reference_images(image, self.config.resolution)
        check_choice("elevation_from", elevation_from, ("regressor", "denoising"))
        elevations = [
            self.photo_elevation_deg(photo, given, elevation_from)
            for photo, given in zip(
                photos, spread("elevation_deg", elevation_deg, len(photos)), strict=True
            )
        ]
        photos = [photo for photo in photos for _ in range(num_videos_per_prompt)]
        elevations = [angle for angle in elevations for _ in range(num_videos_per_prompt)]
        generators = generators_for(generator, len(photos))
        outputs = []
        for some in self.batches(len(photos)):
            with self.products():
                made = self._orbits(
                    photos[some],
                    elevations[some],
                    sampler,
                    None if generators is None else generators[some],
                    callback_on_step_end,
                    callback_on_step_end_tensor_inputs,
                )
            outputs += [replace(each, frames=frames_as(each.views, output_type)) for each in made]
        return outputs if is_batch(image) or num_videos_per_prompt > 1 else outputs[0]

    def _orbits(
        self,
        images: list[ReferenceImage],
        angles: list[float],
        sampler: SamplerConfig,
        generators: list[torch.Generator] | None,
        callback: CallbackOnStepEnd | None,
        tensor_inputs: Sequence[str],
    ) -> list[OrbitOutput]:
        # 1. The reference images at the model's resolution.
        resolution, device = self.config.resolution, self._execution_device
        small = [image.resized(resolution) for image in images]
        rgba = torch.stack([torch.cat([each.rgb, each.alpha]) for each in small]).to(device)
        # 2. Image latents for channel concatenation, CLIP embedding for cross-attention, elevation.
        elevations = torch.tensor(angles, device=device)
        noise_aug_strength = torch.full((len(images),), sampler.noise_aug_strength)
        base = self.base_orbit(rgba, elevations, generators)
        condition = self.condition(rgba[:, :3], elevations, noise_aug_strength, base, generators)
        # 3. Denoise the orbits.
        sigmas = sampling_sigmas(sampler, self.scheduler)
        scales = guidance_scales(sampler.guidance, NUM_ORBIT_VIEWS)
        set_parts(self.unet, self.memory.parts, NUM_ORBIT_VIEWS)
        with after_steps(self, "stage 1", sigmas, callback, tensor_inputs) as after_step:
            latents = sample_orbit_latents(
                self.unet,
                condition,
                sigmas,
                scales,
                generators,
                after_step,
                None,
                solver_name(sampler, self.scheduler),
                self.memory.sequential,
                self.temperature,
            )
        # 4. Decode, and tell the object from the white background.
        frames = self.decode(latents, condition.base, sampler)
        frames = frames if base is None else base.within(frames)
        outputs = []
        for i, (image, angle) in enumerate(zip(images, angles, strict=True)):
            cameras = orbit_cameras(angle, resolution)
            alpha = self.view_alpha(frames[i], image, cameras, None if base is None else base[i])
            views = Views(frames[i], alpha, cameras)
            outputs.append(OrbitOutput(views, angle, views))
        return outputs

    def condition(
        self,
        reference: Tensor,
        elevation_deg: Tensor,
        noise_aug_strength: Tensor,
        base: BaseOrbit | None,
        generator: Generators,
    ) -> OrbitCondition:
        """What the UNet is told.

        Args:
            reference: [B, 3, H, W] in [0, 1].
            elevation_deg: [B].
            noise_aug_strength: [B].
            base: of `base_orbit`.
            generator: CPU generator of the noise augmentation, or one for each.
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
            self.memory.chunk_size,
        )

    def base_orbit(
        self,
        reference: Tensor,
        elevation_deg: Tensor,
        generators: list[torch.Generator] | None = None,
    ) -> BaseOrbit | None:
        """The video whose difference is diffused; None for the paper's model.

        Args:
            reference: [B, 4, H, W] RGB over white and alpha, in [0, 1].
            elevation_deg: [B].
            generators: one for each orbit, on the CPU, where it depends on the seed.
        """
        return None

    def predicted_grid(
        self, image: ReferenceImage, elevation_deg: float, generator: torch.Generator
    ) -> tuple[Tensor, float] | None:
        """The whole object, for models whose views are pictures of it.

        Args:
            image: the reference image.
            elevation_deg: of its camera.
            generator: seeded as that of the orbit.

        Returns:
            [4, G, G, G] (z, y, x) logits of what is solid, 0 at the surface, and of color, at the
            centers of cells, and half the side of their cube; None for other models.
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

    @torch.no_grad()
    def elevation_losses(self, reference: Tensor) -> ElevationLosses:
        """How well the UNet denoises the photo's orbit, told one elevation after another.

        Args:
            reference: [1, 4, H, W] RGB over white and alpha, in [0, 1].
        """
        rgb, device = reference[:, :3], reference.device
        strength = torch.zeros(1)

        def condition_at(angle: float) -> tuple[OrbitCondition, Tensor]:
            elevation = torch.tensor([angle], device=device)
            base = self.base_orbit(reference, elevation)
            first = scaled_latents(self.vae, rgb[:, None])[:, 0]
            if base is not None:
                first = first - scaled_latents(self.vae, base.rgb[:, :1])[:, 0]
            return self.condition(rgb, elevation, strength, base, None), first

        sigma_max = self.scheduler.config.get("sigma_max") or 700.0
        return elevation_losses(self.unet, condition_at, sigma_max)

    @torch.no_grad()
    def photo_elevation_deg(
        self,
        image: ReferenceImage,
        elevation_deg: float | None = None,
        elevation_from: str = "regressor",
    ) -> float:
        """Of the camera that took a photo, as given or else estimated.

        Args:
            image: the photo, cut out and framed.
            elevation_deg: above -90 and below 90; None estimates it.
            elevation_from: how, see `__call__`.

        Raises:
            InputError: it is out of range, or this model cannot estimate it.
        """
        if elevation_deg is not None:
            if not -90 < elevation_deg < 90:
                raise InputError(f"elevation_deg={elevation_deg}: give degrees between -90 and 90")
            return float(elevation_deg)
        small = image.resized(self.config.resolution)
        reference = torch.cat([small.rgb, small.alpha])[None].to(self._execution_device)
        if elevation_from == "denoising":
            losses = self.elevation_losses(reference)
            return round(losses.best_deg(losses.orbit), 2)
        estimate = self.estimated_elevation_deg(reference)
        if estimate is None:
            raise InputError(
                "this model has no part that estimates the camera's elevation: give "
                "elevation_deg=NUMBER, or elevation_from=denoising"
            )
        return round(estimate.clamp(-10, 40).item(), 2)
