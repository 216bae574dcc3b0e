"""The typed configs of both stages' trainings."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from hi3d.config import check_number
from hi3d.degradation.draws import DegradationConfig
from hi3d.diffusion.guidance import GuidanceConfig
from hi3d.diffusion.unet import UNetConfig
from hi3d.errors import InputError
from hi3d.training.scaling.trainable import LORA, LoraConfig, patterns_of


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
    allow_missing_shards: bool = False
    """Go on without shards that an index names and that are not there, or that a server does not
    give; otherwise they end the training."""

    def __post_init__(self) -> None:
        for name in ("resolution", "batch_size", "num_folds"):
            if getattr(self, name) < 1:
                raise InputError(f"data.{name}={getattr(self, name)}: give a number of at least 1")
        if self.num_workers < 0:
            raise InputError(f"data.num_workers={self.num_workers}: give 0 or more")


@dataclass
class OptimConfig:
    """AdamW with warm-up, a schedule and an exponential moving average."""

    optimizer: str = "adamw"
    """adamw, or adamw_8bit: moments in 8 bits, a quarter of their memory (bitsandbytes)."""
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
    max_skipped: int = 20
    """Steps in a row whose loss or gradient is NaN or infinite, and which are skipped, before the
    training ends with an error."""


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
    """auto, ddp, fsdp (weights cut over the devices), deepspeed_zero2, or another that Lightning
    knows."""
    precision: str = "bf16-mixed"
    """Lightning's: bf16-mixed (also for CPUs with AMX or AVX512-BF16), 16-mixed, 32-true, ..."""
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
    logger: str = "tensorboard"
    """tensorboard (files in `logs/`) or wandb."""
    hardware: str = "A100"
    """Device for which `dry_run` projects the days: one of those that it names."""
    peak_tflops: float | None = None
    """Of one device, 10^12 operations per second, for the log's MFU; None takes a known GPU's."""
    num_threads: int | None = None
    """CPU threads of torch; None leaves torch's default."""

    def __post_init__(self) -> None:
        for name in ("max_steps", "num_nodes", "accumulate", "val_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise InputError(
                    f"trainer.{name}={getattr(self, name)}: give a number of at least 1"
                )
        if self.peak_tflops is not None:
            check_number("trainer.peak_tflops", self.peak_tflops, 1e-3, 1e6)


@dataclass
class Experiment:
    """What every training has."""

    task: str = MISSING
    """What is trained: `stage1`, `stage2`, or a part of the small model."""
    seed: int = 0
    resume: str | None = None
    """`last`, or the path of a checkpoint."""
    dry_run: bool = False
    """Build all, take two steps, tell memory and days, and write nothing else."""
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)

    def __post_init__(self) -> None:
        if self.optim.ema_decay > 0 and self.trainer.strategy.startswith("deepspeed"):
            raise InputError(
                "optim.ema_decay does not go with DeepSpeed: use trainer.strategy=fsdp"
            )


@dataclass
class DiffusionConfig:
    """Noise levels and conditions of both stages."""

    sigma_log_mean: float = 1.0
    sigma_log_std: float = 1.6
    """ln sigma ~ N(1.0, 1.6^2): Hi3D's released code."""
    noise_aug_log_mean: float = -3.0
    noise_aug_log_std: float = 0.5
    """ln noise_aug_strength ~ N(-3, 0.5^2): SVD."""
    drop_image_embeds: float = 0.1
    drop_image_latents: float = 0.1
    """Share of videos trained without the condition, for classifier-free guidance."""
    drop_latents_per_frame: bool = False
    """Drop latents frame by frame, as Hi3D's released code, and not per video."""


@dataclass
class SamplesConfig:
    """Orbits that are sampled while training, of the first validation objects, with their truth."""

    every: int | None = None
    """Optimiser steps between samples; without this or without `data.val` there are none."""
    orbits: int = 2
    """Objects."""
    steps: int = 25
    sigma_max: float = 700.0
    """Steps and first noise level of the sampler, without guidance."""

    def __post_init__(self) -> None:
        for name in ("every", "orbits", "steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"samples.{name}={value}: give a number of at least 1")


@dataclass
class DiffusionExperiment(Experiment):
    """What both stages have."""

    init_from: str | None = None
    """Model folder with SVD's networks, or an orbit pipeline to go on from."""
    vae: str | None = None
    """Model folder of the VAE, where `init_from` has none."""
    image_encoder: str | None = None
    """Model folder of the image encoder, where `init_from` has none."""
    elevation_estimator: str | None = None
    """Model folder of the elevation estimator, which is only passed on to the exported folder."""
    latents: str | None = None
    """Folder that scripts/cache_latents.py wrote for these orbits; others are encoded each time."""
    frames_per_pass: int = 16
    """Frames that the VAE and the depth model take together: fewer need less memory."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: slower, much less memory."""
    trainable: Any = "all"
    """Weights that are trained: all, temporal, attention (both with the layers that the condition
    enters by), lora, or a list of regular expressions to be found in their names."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    """Adapters of `trainable=lora`; the exported `unet/` has them merged, `adapter/` alone."""
    unet: UNetConfig = field(default_factory=UNetConfig)
    """Size of a UNet trained from scratch; unused with `init_from`."""
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)

    samples: SamplesConfig = field(default_factory=SamplesConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.latents is not None and self.data.random_start:
            raise InputError("latents are cached from view 0 on: set data.random_start=false")
        if self.frames_per_pass < 1:
            raise InputError(f"frames_per_pass={self.frames_per_pass}: give at least 1")
        if self.trainable != LORA:
            patterns_of(self.trainable)


@dataclass
class Stage1Experiment(DiffusionExperiment):
    """Stage 1: reference image to orbit."""


@dataclass
class Stage2Experiment(DiffusionExperiment):
    """Stage 2: low-resolution orbit to high-resolution orbit."""

    depth_estimator: str | None = None
    """Model folder of the depth model (DPT)."""
    depth_conditioning: bool = True
    """False trains without depth (paper, Table 3, "w/o depth"): its input channel and the depth
    model are left out, of the exported folder too."""
    stage1: str | None = None
    """Model folder of a trained stage 1, to train on its outputs too (paper, Section 4.3)."""
    stage1_orbits: str | None = None
    """Folder of stage 1's outputs for these orbits, sampled once by scripts/cache_latents.py
    --stage1-orbits; None samples them in each step. Orbits that it lacks are degraded."""
    stage1_share: float = 0.0
    """Share of orbits that are stage-1 outputs, 0 to 1; the others are degraded true orbits."""
    stage1_resolution: int = 512
    stage1_steps: int = 25
    stage1_sigma_max: float = 700.0
    stage1_guidance: GuidanceConfig = field(default_factory=lambda: GuidanceConfig(max_scale=1.0))
    """Guidance with which stage 1 is run, that of inference; all 1 is none."""
    noise_aug_inference: float = 0.02
    """Noise augmentation with which stage 1 is run."""
    degradation: DegradationConfig = field(default_factory=DegradationConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("stage1_share", self.stage1_share, 0, 1)
        if self.stage1_orbits is not None and self.data.random_start:
            raise InputError("stage1_orbits begin with view 0: set data.random_start=false")
