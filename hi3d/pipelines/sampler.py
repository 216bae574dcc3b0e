"""Sampling settings that both stages share."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from diffusers import EulerDiscreteScheduler
from torch import Tensor

from hi3d.config import check_number
from hi3d.diffusion.edm import karras_sigmas
from hi3d.diffusion.guidance import GuidanceConfig
from hi3d.errors import InputError
from hi3d.progress import progress_bar


@dataclass
class SamplerConfig:
    """How a stage is sampled. The defaults are those of Hi3D's released code for stage 1."""

    num_inference_steps: int = 25
    """Noise levels that are stepped through, 1 to 1000."""
    sigma_max: float | None = None
    """First noise level, 0.01 to 1e5; None takes the model folder's (700)."""
    guidance: GuidanceConfig = field(default_factory=GuidanceConfig)
    noise_aug_strength: float = 0.02
    """Noise on the conditioning images, in [-1, 1] units, 0 to 1."""
    decode_chunk_size: int = 16
    """Frames decoded together, 1 to 1024; smaller needs less memory."""

    def __post_init__(self) -> None:
        check_number("num_inference_steps", self.num_inference_steps, 1, 1000)
        if self.sigma_max is not None:
            check_number("sigma_max", self.sigma_max, 0.01, 1e5)
        check_number("noise_aug_strength", self.noise_aug_strength, 0, 1)
        check_number("decode_chunk_size", self.decode_chunk_size, 1, 1024)


def sampling_sigmas(config: SamplerConfig, scheduler: EulerDiscreteScheduler) -> Tensor:
    """The noise levels of a run, between the scheduler's ends.

    Returns:
        [num_inference_steps + 1].

    Raises:
        InputError: fewer than one step, or a first level at or below the last.
    """
    sigma_max = config.sigma_max or scheduler.config.sigma_max
    try:
        return karras_sigmas(config.num_inference_steps, scheduler.config.sigma_min, sigma_max)
    except ValueError as error:
        raise InputError(f"sampler: {error}") from error


class sampling_progress:  # noqa: N801 - used as a context manager
    """A progress bar over the sampling steps; calls as `edm.sample_euler`'s callback."""

    def __init__(self, description: str, num_steps: int):
        """Args:
        description: the stage's name.
        num_steps: network evaluations.
        """
        self._bar = progress_bar()
        self._task = self._bar.add_task(description, total=num_steps, status="")

    def __enter__(self) -> Callable[[int, Tensor], None]:
        self._bar.start()
        return lambda step, denoised: self._bar.update(self._task, completed=step + 1)

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


def seeded_generator(seed: int) -> torch.Generator:
    """A CPU generator: the same seed gives the same noise on every device."""
    return torch.Generator().manual_seed(seed)
