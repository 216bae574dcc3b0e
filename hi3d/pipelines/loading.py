"""Pipelines from model folders, with one-line errors for folders that are missing or damaged."""

from pathlib import Path
from typing import Any, Self, TypeVar

import torch
from diffusers import DiffusionPipeline

from hi3d.diffusion.weights import check_folder, named_class, one_line_errors, read_model_index
from hi3d.errors import InputError
from hi3d.files import shipped, write_json

P = TypeVar("P", bound="StagePipeline")


class StagePipeline(DiffusionPipeline):
    """A pipeline whose folder names its class, so that a stage's folder may hold a subclass."""

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
            return super(StagePipeline, held).from_pretrained(folder, **options)

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

    def save_config(self, folder: str | Path, **options: Any) -> None:
        """Write `model_index.json`, with the module of this class."""
        super().save_config(folder, **options)
        path = Path(folder) / self.config_name
        index = read_model_index(folder)
        write_json(path, {**index, "_module": type(self).__module__})


def _is_part(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and value[0] is not None


def check_model(pipeline_class: type[P], path: str) -> dict[str, Any]:
    """Parts of a pipeline's folder, of which none is loaded.

    Args:
        pipeline_class: `OrbitPipeline` or `RefinerPipeline`.
        path: model folder, also one that the project ships.

    Raises:
        InputError: as `StagePipeline.checked`.
    """
    return pipeline_class.checked(shipped(path))[1]


def load_pipeline(pipeline_class: type[P], path: str) -> P:
    """Load a pipeline on the GPU in half precision where there is one, else on the CPU.

    Args:
        pipeline_class: `OrbitPipeline` or `RefinerPipeline`.
        path: model folder, also one that the project ships.

    Raises:
        InputError: as `StagePipeline.from_pretrained`.
    """
    cuda = torch.cuda.is_available()
    dtype = torch.float16 if cuda else torch.float32
    pipeline = pipeline_class.from_pretrained(shipped(path), dtype=dtype)
    return pipeline.to("cuda" if cuda else "cpu")
