"""The typed configs of all trainings."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from hi3d.config import load_config, peek
from hi3d.degradation.draws import DegradationConfig
from hi3d.diffusion.unet import UNetConfig
from hi3d.errors import InputError


@dataclass
class DataConfig:
    """Orbits to train and validate on."""

    train: str = MISSING
    """Folder of orbits or of shards; with `streaming` also URLs of shards or of their index.json,
    such as `https://host/orbits-{000000..000123}.tar` or `pipe:aws s3 cp s3://... -`."""
    val: str | None = None
    """The same for validation; None trains without."""
    resolution: int = 512
    """Images are resized to this side, antialiased."""
    batch_size: int = 2
    """Orbits per device and step."""
    num_workers: int = 4
    """Loader processes per device."""
    random_start: bool = False
    """Rotate the ring so that any view is the reference (the released code); the paper's reference
    is the first frame."""
    num_views: int | None = None
    """Take only so many neighbouring views of each orbit: for networks that see single images."""
    cache_in_memory: bool = False
    """Keep decoded orbits: for small data sets and long trainings."""
    held_out_fold: int | None = None
    """Train without the orbits of this fold, counted from 0, so that a network can be run on
    training orbits that it has not seen (cross-fitting). Which orbits these are follows from their
    names."""
    num_folds: int = 2
    """Folds of about equal size that `held_out_fold` counts."""
    streaming: bool = False
    """Read shards from end to end, from disks or URLs: for collections larger than a disk cache."""
    shuffle_buffer: int = 64
    """Orbits among which each worker of a stream shuffles, beside the order of the shards. Those of
    remote shards wait in memory, not decoded."""
    drop_last: bool = True
    """Leave out the few orbits that do not fill a step on all processes, others in every epoch;
    false trains on a smaller last batch."""
    strict: bool = False
    """An orbit that cannot be read is an error; otherwise it is counted and the next one is taken
    in its place."""

    def __post_init__(self) -> None:
        for name in ("resolution", "batch_size", "num_folds"):
            if getattr(self, name) < 1:
                raise InputError(f"data.{name}={getattr(self, name)}: give a number of at least 1")
        if self.num_workers < 0:
            raise InputError(f"data.num_workers={self.num_workers}: give 0 or more")


@dataclass
class OptimConfig:
    """AdamW with warm-up, a schedule and an exponential moving average."""

    lr: float = 1e-5
    """Peak learning rate."""
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    weight_decay: float = 0.01
    warmup_steps: int = 0
    """Optimiser steps over which the learning rate rises from 0."""
    schedule: str = "constant"
    """constant, or cosine to zero at `trainer.max_steps`."""
    grad_clip: float = 1.0
    """Largest norm of the gradient; 0 does not clip."""
    ema_decay: float = 0.0
    """0 keeps no moving average."""


@dataclass
class TrainerConfig:
    """How long, on what, and what is written when."""

    output: str = MISSING
    """Folder of checkpoints, logs and of the exported `model/`."""
    max_steps: int = 80_000
    """Optimiser steps."""
    max_minutes: float | None = None
    """Stop early after this wall-clock time."""
    devices: str = "auto"
    """Lightning's: auto, a number, or a list such as 0,1."""
    num_nodes: int = 1
    strategy: str = "auto"
    """Lightning's: auto, ddp, fsdp, deepspeed_stage_2, ..."""
    precision: str = "bf16-mixed"
    """Lightning's: bf16-mixed, 16-mixed, 32-true, ..."""
    accumulate: int = 1
    """Batches whose gradients make one optimiser step."""
    val_every: int = 1000
    """Optimiser steps between validations."""
    val_batches: int | None = None
    """Validate on the first batches only; None takes all."""
    checkpoint_every: int = 1000
    """Optimiser steps between checkpoints."""
    log_every: int = 20
    """Optimiser steps between lines of the log."""
    num_threads: int | None = None
    """CPU threads of torch; None leaves torch's default."""

    def __post_init__(self) -> None:
        for name in ("max_steps", "num_nodes", "accumulate", "val_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise InputError(
                    f"trainer.{name}={getattr(self, name)}: give a number of at least 1"
                )


@dataclass
class Experiment:
    """What every training has."""

    task: str = MISSING
    """What is trained: a name from `EXPERIMENTS`."""
    seed: int = 0
    resume: str | None = None
    """`last`, or the path of a checkpoint."""
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)


@dataclass
class VAEConfig:
    """`PatchAutoencoder` and its losses."""

    latent_channels: int = 24
    patch_size: int = 8
    hidden_channels: int = 32
    component_batches: int = 60
    """Training batches from which the components are found."""
    crop: int = 32
    """Side of the training crops in pixels."""
    scales: list[float] = field(default_factory=lambda: [1.0, 0.5])
    """Frames are resized by one of these before cropping: both stages use the autoencoder."""
    lambda_mse: float = 10.0
    lambda_l1: float = 0.3
    lambda_gradient: float = 0.3
    """Differences between neighbouring pixels, which keep edges sharp."""


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
class OrbitPredictorConfig:
    """`OrbitPredictor`, its loss and its data."""

    hidden_size: int = 1024
    num_blocks: int = 2
    rank: int = 384
    dropout: float = 0.1
    starts_per_orbit: int = 4
    """Views of each orbit that a step takes as the reference."""
    basis_batches: int = 20
    """Training batches from which the first patterns are found."""
    error_floors: list[float] = field(default_factory=lambda: [1e-3, 1e-5])
    """Added to a view's mean squared error before the logarithm, at the start and at the end of
    the training, and in between on a logarithmic scale. 1e-5 is 50 dB."""
    mirror_probability: float = 0.5
    permute_colours_probability: float = 0.3
    """See `hi3d.nano.augmentation.augment_orbits`."""


@dataclass
class OrbitPredictorExperiment(Experiment):
    """Training of the orbit predictor."""

    vae: str = MISSING
    """Model folder of the VAE."""
    orbit_predictor: OrbitPredictorConfig = field(default_factory=OrbitPredictorConfig)


@dataclass
class DiffusionConfig:
    """Noise levels and conditions of both stages."""

    sigma_log_mean: float = 1.0
    sigma_log_std: float = 1.6
    """ln sigma ~ N(1.0, 1.6^2): Hi3D's released code."""
    noise_aug_log_mean: float = -3.0
    noise_aug_log_std: float = 0.5
    """ln noise_aug_strength ~ N(-3, 0.5^2): SVD."""
    residual: bool = False
    """Diffuse the difference to a video, whose latents are then the condition. Stage 1: the orbit
    predictor's, or else the reference image, mirrored behind the object. Stage 2: the coarse
    orbit, with the reference image's detail where both agree. Not in the paper: an untrained
    network then repeats its input, which helps a small model that is trained for an hour."""
    relative_floor: float | None = None
    """With `residual`: weigh each frame by how little it differs from its base, at most by
    1 / relative_floor (see `hi3d.training.losses.relative_weights`); None weighs all alike."""
    mirror_probability: float = 0.0
    """Share of orbits trained as the mirrored object's: frames flipped, order reversed."""
    permute_colours_probability: float = 0.0
    """Share of orbits trained with red, green and blue exchanged in a random order."""
    drop_image_embeds: float = 0.1
    drop_image_latents: float = 0.1
    """Share of videos trained without the condition, for classifier-free guidance."""


@dataclass
class Stage1Experiment(Experiment):
    """Stage 1: reference image to orbit."""

    init_from: str | None = None
    """Model folder with SVD's networks, or an orbit pipeline to go on from."""
    vae: str | None = None
    """Model folder of the VAE, where `init_from` has none."""
    image_encoder: str | None = None
    """Model folder of the image encoder, where `init_from` has none."""
    elevation_estimator: str | None = None
    """Model folder of the elevation estimator, which is only passed on to the exported folder."""
    orbit_predictor: str | None = None
    """Model folder of the orbit predictor; needs `diffusion.residual`."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: slower, much less memory."""
    unet: UNetConfig = field(default_factory=UNetConfig)
    """Size of a UNet trained from scratch; unused with `init_from`."""
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)


@dataclass
class Stage2Experiment(Stage1Experiment):
    """Stage 2: low-resolution orbit to high-resolution orbit."""

    depth_estimator: str | None = None
    """Model folder of the depth model (DPT)."""
    stage1: str | None = None
    """Model folder of a trained stage 1, to train on its outputs too (paper, Section 4.3)."""
    stage1_cross_fitted: list[str] = field(default_factory=list)
    """Model folders of orbit predictors that replace `stage1`'s own: number k was trained with
    `data.held_out_fold=k` and is run on the orbits of that fold. A predictor's outputs on orbits
    that it was trained on are better than any it gives at inference, and teach stage 2 to leave
    its input alone."""
    stage1_share: float = 0.0
    """Share of steps on stage-1 outputs; the others see degraded true orbits."""
    stage1_resolution: int = 512
    stage1_steps: int = 25
    stage1_sigma_max: float = 700.0
    noise_aug_inference: float = 0.02
    """Noise augmentation with which stage 1 is run."""
    degradation: DegradationConfig = field(default_factory=DegradationConfig)


EXPERIMENTS: dict[str, type[Experiment]] = {
    "vae": VAEExperiment,
    "image_encoder": ImageEncoderExperiment,
    "elevation": ElevationExperiment,
    "depth": DepthExperiment,
    "orbit_predictor": OrbitPredictorExperiment,
    "stage1": Stage1Experiment,
    "stage2": Stage2Experiment,
}


def load_experiment(path: str | Path, overrides: list[str] | None = None) -> Any:
    """Read a training config; its `task` chooses the schema.

    Raises:
        InputError: as `load_config`, or the task is missing or unknown.
    """
    task = peek(path, "task", overrides or [])
    if task not in EXPERIMENTS:
        raise InputError(f"{path}: task is '{task}': choose one of {', '.join(EXPERIMENTS)}")
    return load_config(EXPERIMENTS[task], path, overrides or [])
