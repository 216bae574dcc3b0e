"""The typed configs of the small model's trainings."""

from dataclasses import dataclass, field

from hi3d.config import check_number
from hi3d.training.experiment import (
    DiffusionConfig,
    Experiment,
    Stage1Experiment,
    Stage2Experiment,
)


@dataclass
class VAEConfig:
    """`PatchAutoencoder` and its losses."""

    latent_channels: int = 24
    patch_size: int = 8
    hidden_channels: int = 32
    component_batches: int = 60
    """Training batches from which the components are found."""
    whitening: float = 0.67
    """How far latents are brought to one size, 0 to 1, see `PatchAutoencoder.set_components`. At
    two thirds the differences that the stages diffuse are of about one size in all channels."""
    crop: int = 32
    """Side of the training crops in pixels."""
    scales: list[float] = field(default_factory=lambda: [1.0, 0.5])
    """Frames are resized by one of these before cropping: both stages use the autoencoder."""
    lambda_mse: float = 10.0
    lambda_l1: float = 0.3
    lambda_gradient: float = 0.3
    """Differences between neighboring pixels, which keep edges sharp."""

    def __post_init__(self) -> None:
        check_number("vae.whitening", self.whitening, 0, 1)


@dataclass
class VAEExperiment(Experiment):
    """Training of the small autoencoder."""

    vae: VAEConfig = field(default_factory=VAEConfig)


@dataclass
class ImageEncoderConfig:
    """`CLIPVisionModelWithProjection` and the temperature of its contrastive loss."""

    image_size: int = 64
    patch_size: int = 8
    hidden_size: int = 128
    num_layers: int = 4
    num_heads: int = 4
    projection_dim: int = 128
    temperature: float = 0.1


@dataclass
class ImageEncoderExperiment(Experiment):
    """Training of the small image encoder: two views of one object are a pair."""

    image_encoder: ImageEncoderConfig = field(default_factory=ImageEncoderConfig)


@dataclass
class ElevationConfig:
    """`ElevationEstimator`."""

    image_size: int = 64
    """Pixels a side to which images are resized."""
    channels: list[int] = field(default_factory=lambda: [32, 64, 96, 128])
    """Of the convolutions, each of which halves the image."""


@dataclass
class ElevationExperiment(Experiment):
    """Training of the elevation estimator."""

    elevation: ElevationConfig = field(default_factory=ElevationConfig)


@dataclass
class DepthConfig:
    """`DPTForDepthEstimation` on a small ViT."""

    image_size: int = 64
    """Pixels a side to which images are resized."""
    patch_size: int = 8
    hidden_size: int = 96
    num_layers: int = 4
    num_heads: int = 4
    fusion_size: int = 32
    lambda_mse: float = 1.0
    """Squared, since an absolute error is at rest where every pixel is predicted background."""
    lambda_gradient: float = 0.1


@dataclass
class DepthExperiment(Experiment):
    """Training of the small depth model on rendered depth."""

    depth: DepthConfig = field(default_factory=DepthConfig)


@dataclass
class NanoDiffusionConfig(DiffusionConfig):
    """Noise levels and conditions of the small stages, which diffuse the difference to a video.

    Stage 1: to the grid predictor's, or else to the reference image, mirrored behind the object.
    Stage 2: to the coarse orbit, with the reference image's detail where both agree. Not in the
    paper.
    """

    relative_floor: float | None = None
    """Weigh each frame by how little it differs from its base, at most by 1 / relative_floor (see
    `hi3d.training.losses.relative_weights`); None weighs all alike."""
    mirror_probability: float = 0.0
    """Share of orbits trained as the mirrored object's: frames flipped, order reversed."""
    permute_colors_probability: float = 0.0
    """Share of orbits trained with red, green and blue exchanged in a random order."""


@dataclass
class NanoStage1Experiment(Stage1Experiment):
    """Stage 1 of the small model."""

    grid_predictor: str | None = None
    """Model folder of the grid predictor."""
    diffusion: NanoDiffusionConfig = field(default_factory=NanoDiffusionConfig)


@dataclass
class NanoStage2Experiment(Stage2Experiment):
    """Stage 2 of the small model."""

    stage1_cross_fitted: list[str] = field(default_factory=list)
    """Model folders of grid predictors that replace `stage1`'s own: number k was trained with
    `data.held_out_fold=k` and is run on the orbits of that fold. A predictor's outputs on orbits
    that it was trained on are better than any it gives at inference, and teach stage 2 to leave
    its input alone."""
    diffusion: NanoDiffusionConfig = field(default_factory=NanoDiffusionConfig)
