"""Pipelines from model folders, with one-line errors for folders that are missing or damaged."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Self, TypeVar

import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from hi3d.config import check_choice
from hi3d.diffusion.conditioning import decode_orbit
from hi3d.diffusion.equal_forms import use_equal_forms
from hi3d.diffusion.memory.modes import MEMORY_MODES, MemoryMode, decode_chunk_size
from hi3d.diffusion.precision import (
    PRECISIONS,
    bfloat16_products,
    wanted_precision,
    warn_of_slow_bfloat16,
)
from hi3d.diffusion.weights import check_folder, named_class, one_line_errors, read_model_index
from hi3d.errors import InputError
from hi3d.files import shipped, write_json
from hi3d.pipelines.sampler import SamplerConfig
from hi3d.progress import console

P = TypeVar("P", bound="StagePipeline")


class StagePipeline(DiffusionPipeline):
    """A pipeline whose folder names its class, so that a stage's folder may hold a subclass."""

    memory: MemoryMode = MEMORY_MODES["fast"]
    """Set by `set_memory`."""
    in_bfloat16: bool = False
    """Set by `set_precision`."""

    @classmethod
    def from_pretrained(cls, folder: str | Path, **options: Any) -> Self:
        """Load the pipeline that a folder holds: this class or one derived from it.

        Args:
            folder: local folder or repository of the hub.
            options: of diffusers' `from_pretrained`, such as `dtype`.

        Raises:
            InputError: the folder or a part is missing, damaged, or of another pipeline.
        """
        held, parts = cls.checked(folder)
        for part in parts.values():  # diffusers takes classes of libraries once imported
            named_class(folder, *part)
        with one_line_errors(folder, held.__name__):
            pipeline = super(StagePipeline, held).from_pretrained(folder, **options)
        use_equal_forms(pipeline.unet)
        return pipeline

    @classmethod
    def checked(cls, folder: str | Path) -> tuple[type[Self], dict[str, Any]]:
        """The class of the pipeline that a folder holds and its parts; loads none of them.

        Raises:
            InputError: as `from_pretrained`, but for damaged weights.
        """
        check_folder(str(folder))
        index = read_model_index(folder)
        held = named_class(folder, index.get("_module", "diffusers"), index["_class_name"])
        if not issubclass(held, cls):
            raise InputError(
                f"{folder} holds a {held.__name__}, not a {cls.__name__}: give the other stage's"
            )
        parts = {name: value for name, value in index.items() if _is_part(value)}
        missing = [name for name in parts if not (Path(folder) / name).is_dir()]
        if Path(folder).is_dir() and missing:
            raise InputError(
                f"model folder {folder} has no {missing[0]}/: it is incomplete, get it again"
            )
        return held, parts

    def set_memory(self, name: str) -> Self:
        """Choose how much is held at once; the output stays the same.

        Args:
            name: `fast`, `balanced` or `low`, see `hi3d.diffusion.memory.modes`.

        Raises:
            InputError: none of these.
        """
        check_choice("memory", name, tuple(MEMORY_MODES))
        self.memory = MEMORY_MODES[name]
        return self

    def set_precision(self, name: str) -> Self:
        """Choose how networks multiply on the CPU; weights and all else stay as they are.

        A GPU takes its precision from the `dtype` of `from_pretrained`. On a CPU without units for
        bfloat16 one line says that it will be slower.

        Args:
            name: `float32`, or `bfloat16` for CPUs with AMX or AVX512-BF16.

        Raises:
            InputError: none of these.
        """
        check_choice("precision", name, ("float32", "bfloat16"))
        self.in_bfloat16 = name == "bfloat16"
        if self.in_bfloat16:
            warn_of_slow_bfloat16("precision=bfloat16", "float32")
        return self

    @property
    def computes_on(self) -> str:
        """Device and, where `set_precision` has chosen it, precision; for reports."""
        return f"{self.device}{', bfloat16' * self.in_bfloat16}"

    def products(self) -> AbstractContextManager[None]:
        """What `set_precision` has chosen, around the networks."""
        return bfloat16_products(self._execution_device, self.in_bfloat16)

    def enable_model_cpu_offload(self, *arguments: Any, **options: Any) -> None:
        """As diffusers': each network is on the GPU only in its turn; without a GPU nothing."""
        if not arguments and not options and not torch.accelerator.is_available():
            console.print("no GPU: the networks stay in the computer's memory")
            return
        super().enable_model_cpu_offload(*arguments, **options)

    def set_progress_bar_config(self, **options: Any) -> None:
        """Change the progress bar of the sampling steps, which is not tqdm's.

        Args:
            options: `disable` and `desc`.

        Raises:
            InputError: another option of tqdm.
        """
        for name in options:
            check_choice("set_progress_bar_config", name, ("disable", "desc"))
        super().set_progress_bar_config(**options)

    @property
    def progress_bar_config(self) -> dict[str, Any]:
        """What `set_progress_bar_config` was given."""
        return getattr(self, "_progress_bar_config", {})

    def batches(self, count: int) -> list[slice]:
        """Which of `count` orbits are sampled together: all, or one at a time to save memory."""
        size = 1 if self.memory.sequential else count
        return [slice(start, start + size) for start in range(0, count, size)]

    def decode(self, latents: Tensor, base: Tensor | None, sampler: SamplerConfig) -> Tensor:
        """Frames [B, T, 3, H, W] in [0, 1] on the CPU.

        Args:
            latents: [B, T, C, h, w] at the scale of the diffusion model.
            base: see `OrbitCondition.base`.
            sampler: its chunk size.
        """
        chunk_size = decode_chunk_size(self.vae, sampler.decode_chunk_size, self.memory)
        return decode_orbit(self.vae, latents, base, chunk_size).cpu()

    def save_config(self, folder: str | Path, **options: Any) -> None:
        """Write `model_index.json`, with the module of this class."""
        super().save_config(folder, **options)
        path = Path(folder) / self.config_name
        index = read_model_index(folder)
        write_json(path, {**index, "_module": type(self).__module__})


def _is_part(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and value[0] is not None


def check_model(pipeline_class: type[P], path: str) -> tuple[type[P], dict[str, Any]]:
    """The class of a folder's pipeline and its parts, of which none is loaded.

    Args:
        pipeline_class: `OrbitPipeline` or `RefinerPipeline`.
        path: model folder, also one that the project ships.

    Raises:
        InputError: as `StagePipeline.checked`.
    """
    return pipeline_class.checked(shipped(path))


def load_pipeline(pipeline_class: type[P], path: str, memory: str = "fast") -> P:
    """Load a pipeline on the GPU in half precision where there is one, else on the CPU.

    The environment's `HI3D_PRECISION` asks for another precision.

    Args:
        pipeline_class: `OrbitPipeline` or `RefinerPipeline`.
        path: model folder, also one that the project ships.
        memory: see `StagePipeline.set_memory`.

    Raises:
        InputError: as `StagePipeline.from_pretrained`, or `HI3D_PRECISION` names no precision.
    """
    cuda = torch.cuda.is_available()
    device = "cuda" if cuda else "cpu"
    precision = wanted_precision(device)
    dtype = PRECISIONS[device][precision]
    pipeline = pipeline_class.from_pretrained(shipped(path), dtype=dtype).set_memory(memory)
    if not cuda and precision == "bfloat16":
        pipeline.set_precision(precision)
    if cuda and pipeline.memory.offload:
        pipeline.enable_model_cpu_offload()
        return pipeline
    return pipeline.to(device)
