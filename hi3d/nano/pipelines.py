"""Both stages of the small model, which diffuse the difference to a video."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hi3d.cameras import Cameras
from hi3d.diffusion.base_orbit import BaseOrbit
from hi3d.nano.base_orbit import base_orbit, orbit_grid
from hi3d.nano.crisp_edges import crisp_but_first
from hi3d.nano.grid.certainty import drawn_noise, surface_logits
from hi3d.nano.grid.predictor import GridPredictor
from hi3d.nano.grid.rendering import CUBE_HALF
from hi3d.nano.reference_detail import add_reference_detail
from hi3d.pipelines.orbit import OrbitPipeline
from hi3d.pipelines.refiner import RefinerPipeline
from hi3d.pipelines.sampler import SamplerConfig
from hi3d.views import ReferenceImage, Views

DIFFERENCE_SHARE = 0.5
"""Of stage 2's difference that is added. It is the mean of all that are likely, and so blurs: the
half has nearly all of its decibels (three quarters where it is right) and most of the detail."""


class NanoOrbitPipeline(OrbitPipeline):
    """Stage 1 that adds to a predicted orbit, or else to the photo, mirrored behind the object."""

    _optional_components = ["elevation_estimator", "grid_predictor"]  # noqa: RUF012
    elevation_parts = {"elevation_estimator", "grid_predictor"}  # noqa: RUF012
    grid_parts = {"grid_predictor"}  # noqa: RUF012
    temperature = 0.5  # at 1 the small UNet's samples have blotches

    def __init__(
        self,
        vae: Any,
        image_encoder: Any,
        unet: Any,
        scheduler: Any,
        elevation_estimator: Any = None,
        grid_predictor: GridPredictor | None = None,
        resolution: int = 64,
    ):
        """Args:
        vae: as `OrbitPipeline`, and so all but `grid_predictor`.
        image_encoder: CLIP embedding of the reference image.
        unet: the denoising network.
        scheduler: its config holds the noise levels.
        elevation_estimator: for photos whose elevation is not known; the grid predictor's own
            estimate goes before it.
        grid_predictor: renders the video to whose latents the UNet adds a difference.
        resolution: image side that the UNet was trained at.
        """
        super().__init__(vae, image_encoder, unet, scheduler, elevation_estimator, resolution)
        self.register_modules(grid_predictor=grid_predictor)

    def base_orbit(
        self,
        reference: Tensor,
        elevation_deg: Tensor,
        generators: list[torch.Generator] | None = None,
    ) -> BaseOrbit:
        """The orbit of one of the likely objects with its alpha, or the photo around."""
        noise = None if generators is None else drawn_noise(generators).to(reference.device)
        return base_orbit(self.grid_predictor, reference, elevation_deg, noise=noise)

    @torch.no_grad()
    def predicted_grid(
        self, image: ReferenceImage, elevation_deg: float, generator: torch.Generator
    ) -> tuple[Tensor, float] | None:
        """The object that the base orbit of the same generator shows, if there is a predictor."""
        if self.grid_predictor is None:
            return None
        small = image.resized(self.config.resolution)
        reference = torch.cat([small.rgb, small.alpha])[None].to(self._execution_device)
        elevation = torch.tensor([elevation_deg], device=reference.device)
        noise = drawn_noise([generator]).to(reference.device)
        grid = orbit_grid(self.grid_predictor, reference, elevation, noise)
        return surface_logits(grid)[0].cpu(), CUBE_HALF

    def view_alpha(
        self, frames: Tensor, image: ReferenceImage, cameras: Cameras, base: BaseOrbit | None
    ) -> Tensor:
        """The predicted orbit's, if there is one."""
        if base is None or base.alpha is None:
            return super().view_alpha(frames, image, cameras, base)
        return base.alpha[0].cpu()

    def estimated_elevation_deg(self, reference: Tensor) -> Tensor | None:
        """The grid predictor's estimate, if there is one."""
        if self.grid_predictor is None:
            return super().estimated_elevation_deg(reference)
        size = self.grid_predictor.config.resolution
        photo = F.interpolate(reference, (size, size), mode="area")
        return self.grid_predictor(photo).elevation_deg


class NanoRefinerPipeline(RefinerPipeline):
    """Stage 2 that adds to the coarse orbit with the photo's detail where both agree."""

    def decode(self, latents: Tensor, base: Tensor | None, sampler: SamplerConfig) -> Tensor:
        """As any, of a share of the difference: see `DIFFERENCE_SHARE`."""
        return super().decode(latents * DIFFERENCE_SHARE, base, sampler)

    def finished(self, views: Views) -> Views:
        """The rim of haze around the generated views made an edge."""
        return Views(*crisp_but_first(views.rgb, views.alpha), views.cameras)

    def coarse_orbit(self, orbit: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        """The orbit with the reference's detail, twice."""
        detailed = add_reference_detail(orbit, reference)
        return detailed, detailed

    def view_alpha(self, frames: Tensor, image: ReferenceImage, views: Views) -> Tensor:
        """Stage 1's, enlarged: it comes from a whole object rather than from whiteness."""
        size = frames.shape[-2:]
        alpha = F.interpolate(views.alpha, size, mode="bilinear", align_corners=False)
        front = image.resized(self.config.resolution).alpha[None]
        return torch.cat([front, alpha[1:]])
