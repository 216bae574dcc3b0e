"""Both stages of the small model, which diffuse the difference to a video."""

from typing import Any

from torch import Tensor

from hi3d.nano.orbit_predictor import OrbitPredictor, base_video
from hi3d.nano.reference_detail import add_reference_detail
from hi3d.pipelines.orbit import OrbitPipeline
from hi3d.pipelines.refiner import RefinerPipeline


class NanoOrbitPipeline(OrbitPipeline):
    """Stage 1 that adds to a predicted orbit, or else to the photo, mirrored behind the object."""

    _optional_components = ["elevation_estimator", "orbit_predictor"]  # noqa: RUF012

    def __init__(
        self,
        vae: Any,
        image_encoder: Any,
        unet: Any,
        scheduler: Any,
        elevation_estimator: Any = None,
        orbit_predictor: OrbitPredictor | None = None,
        resolution: int = 64,
    ):
        """Args:
        vae: as `OrbitPipeline`, and so all but `orbit_predictor`.
        image_encoder: CLIP embedding of the reference image.
        unet: the denoising network.
        scheduler: its config holds the noise levels.
        elevation_estimator: for photos whose elevation is not known.
        orbit_predictor: makes the video to whose latents the UNet adds a difference.
        resolution: image side that the UNet was trained at.
        """
        super().__init__(vae, image_encoder, unet, scheduler, elevation_estimator, resolution)
        self.register_modules(orbit_predictor=orbit_predictor)

    def base_video(self, reference: Tensor, elevation_deg: Tensor) -> Tensor:
        """The predicted orbit, [B, T, 3, H, W]."""
        return base_video(self.vae, self.orbit_predictor, reference, elevation_deg)


class NanoRefinerPipeline(RefinerPipeline):
    """Stage 2 that adds to the coarse orbit with the photo's detail where both agree."""

    def coarse_orbit(self, orbit: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        """The orbit with the reference's detail, twice."""
        detailed = add_reference_detail(orbit, reference)
        return detailed, detailed
