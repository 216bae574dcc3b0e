"""Sampling settings that both stages share."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from hi3d.config import check_choice, check_number
from hi3d.diffusion.edm import karras_sigmas
from hi3d.diffusion.guidance import GuidanceConfig
from hi3d.diffusion.solvers import SOLVERS
from hi3d.errors import InputError

SVD_SIGMAS = (0.002, 700.0)
"""Where a scheduler says no noise levels."""
SOLVER_OF_SCHEDULER = {
    "EulerDiscreteScheduler": "euler",
    "EDMEulerScheduler": "euler",
    "HeunDiscreteScheduler": "heun",
    "DPMSolverMultistepScheduler": "dpmpp_2m",
    "EDMDPMSolverMultistepScheduler": "dpmpp_2m",
}
"""Of diffusers' schedulers; the pipeline takes their kind and their noise levels."""


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
    scheduler: Literal["euler", "heun", "dpmpp_2m"] | None = None
    """Solver: `euler`; `heun`, two evaluations a step; `dpmpp_2m`, DPM-Solver++ multistep of second
    order; None takes the kind of the pipeline's scheduler, Euler in all folders of the project."""

    def __post_init__(self) -> None:
        check_number("num_inference_steps", self.num_inference_steps, 1, 1000)
        if self.sigma_max is not None:
            check_number("sigma_max", self.sigma_max, 0.01, 1e5)
        check_number("noise_aug_strength", self.noise_aug_strength, 0, 1)
        check_number("decode_chunk_size", self.decode_chunk_size, 1, 1024)
        if self.scheduler is not None:
            check_choice("scheduler", self.scheduler, tuple(SOLVERS))


def sampling_sigmas(config: SamplerConfig, scheduler: Any) -> Tensor:
    """The noise levels of a run, between the scheduler's ends.

    Returns:
        [num_inference_steps + 1].

    Raises:
        InputError: fewer than one step, or a first level at or below the last.
    """
    sigma_min = scheduler.config.get("sigma_min") or SVD_SIGMAS[0]
    sigma_max = config.sigma_max or scheduler.config.get("sigma_max") or SVD_SIGMAS[1]
    try:
        return karras_sigmas(config.num_inference_steps, sigma_min, sigma_max)
    except ValueError as error:
        raise InputError(f"sampler: {error}") from error


def solver_name(config: SamplerConfig, scheduler: Any) -> str:
    """The solver of a run: the setting's, or else that of the pipeline's scheduler.

    Args:
        config: of the run.
        scheduler: of the pipeline, diffusers' class; any of its name's kind may take its place.

    Raises:
        InputError: none of the solvers is of the scheduler's kind.
    """
    if config.scheduler is not None:
        return config.scheduler
    name = type(scheduler).__name__
    if name not in SOLVER_OF_SCHEDULER:
        raise InputError(
            f"a {name} is no scheduler of this pipeline: give one of "
            f"{', '.join(SOLVER_OF_SCHEDULER)}, or scheduler={'|'.join(SOLVERS)}"
        )
    return SOLVER_OF_SCHEDULER[name]


def changed_sampler(
    config: SamplerConfig | None,
    num_inference_steps: int | None = None,
    min_guidance_scale: float | None = None,
    max_guidance_scale: float | None = None,
) -> SamplerConfig:
    """Settings with some of them replaced, checked as all are.

    Args:
        config: None means the defaults.
        num_inference_steps: None keeps it, and so all others.
        min_guidance_scale: of frame 0.
        max_guidance_scale: the largest.

    Raises:
        InputError: one is out of its range.
    """
    config = config or SamplerConfig()
    guidance = config.guidance
    low = guidance.min_scale if min_guidance_scale is None else min_guidance_scale
    high = guidance.max_scale if max_guidance_scale is None else max_guidance_scale
    steps = config.num_inference_steps if num_inference_steps is None else num_inference_steps
    guidance = replace(guidance, min_scale=low, max_scale=high)
    return replace(config, num_inference_steps=steps, guidance=guidance)


def seeded_generator(seed: int) -> torch.Generator:
    """A CPU generator: the same seed gives the same noise on every device."""
    return torch.Generator().manual_seed(seed)
