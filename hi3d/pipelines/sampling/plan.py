"""The memory plan of a model folder, of which only the configs are read."""

from typing import Any

import torch
from torch import nn

from hi3d.cameras import NUM_ORBIT_VIEWS
from hi3d.diffusion.guidance import guidance_scales
from hi3d.diffusion.memory.modes import MEMORY_MODES
from hi3d.diffusion.memory.plan import StepMemory, as_table, stage_plan
from hi3d.diffusion.precision import PRECISIONS, wanted_precision
from hi3d.diffusion.weights import named_class, one_line_errors, read_model_index
from hi3d.files import shipped
from hi3d.pipelines.loading import StagePipeline, check_model
from hi3d.pipelines.orbit import OrbitPipeline
from hi3d.pipelines.refiner import RefinerPipeline
from hi3d.pipelines.sampler import SamplerConfig

STAGES: dict[str, type[StagePipeline]] = {"stage1": OrbitPipeline, "stage2": RefinerPipeline}


def print_plan(stages: dict[str, tuple[str, SamplerConfig]], memory: str) -> None:
    """Print what each step of the stages holds on the card.

    Args:
        stages: `stage1`, `stage2` -> model folder and sampling settings.
        memory: a name of `MEMORY_MODES`.
    """
    precision = wanted_precision("cuda")
    dtype = PRECISIONS["cuda"][precision]
    plans = {
        stage: pipeline_plan(STAGES[stage], path, sampler, memory, dtype)
        for stage, (path, sampler) in stages.items()
    }
    print(f"memory={memory}, {precision}")
    print(as_table(plans))


def pipeline_plan(
    pipeline_class: type[StagePipeline],
    path: str,
    sampler: SamplerConfig,
    memory: str,
    dtype: torch.dtype = torch.float16,
) -> list[StepMemory]:
    """What each step of a stage holds on the card.

    Args:
        pipeline_class: `OrbitPipeline` or `RefinerPipeline`.
        path: model folder, also one that the project ships.
        sampler: its chunk size and guidance.
        memory: a name of `MEMORY_MODES`.
        dtype: of the weights; half precision is what a GPU runs.

    Raises:
        InputError: the folder is missing or damaged.
    """
    folder = str(shipped(path))
    _, parts = check_model(pipeline_class, path)
    networks = {
        name: network
        for name, part in parts.items()
        if isinstance(network := empty_network(folder, name, part, dtype), nn.Module)
    }
    scales = guidance_scales(sampler.guidance, NUM_ORBIT_VIEWS)
    return stage_plan(
        networks,
        read_model_index(folder)["resolution"],
        MEMORY_MODES[memory],
        sampler.decode_chunk_size,
        guided=not bool((scales == 1).all()),
    )


def empty_network(folder: str, name: str, part: list[str], dtype: torch.dtype) -> Any:
    """A part of a model folder with shapes and no weights; None for what is no network."""
    part_class = named_class(folder, *part)
    if not issubclass(part_class, nn.Module):
        return None
    with one_line_errors(folder, name), torch.device("meta"):
        if hasattr(part_class, "load_config"):
            network = part_class.from_config(part_class.load_config(folder, subfolder=name))
        else:
            config = part_class.config_class.from_pretrained(folder, subfolder=name)
            network = part_class(config)
    nn.Module.to(network, "meta", dtype)  # diffusers' own `to` warns of parts that it has not
    return network.eval()
