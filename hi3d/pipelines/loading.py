"""Pipelines from model folders, with one-line errors for folders that are missing or damaged."""

from typing import TypeVar

import torch
from diffusers import DiffusionPipeline

from hi3d.diffusion.weights import NETWORKS, load_network, read_model_index
from hi3d.errors import InputError
from hi3d.files import shipped

P = TypeVar("P", bound=DiffusionPipeline)


def load_pipeline(pipeline_class: type[P], path: str) -> P:
    """Load a pipeline on the GPU in half precision where there is one, else on the CPU.

    Args:
        pipeline_class: `OrbitPipeline` or `RefinerPipeline`.
        path: model folder, also one that the project ships.

    Raises:
        InputError: the folder or a part is missing, damaged, or of another pipeline.
    """
    folder = shipped(path)
    cuda = torch.cuda.is_available()
    index = read_model_index(folder)
    made_for = index["_class_name"]
    if made_for != pipeline_class.__name__:
        raise InputError(
            f"{folder} holds a {made_for}, not a {pipeline_class.__name__}: give the other stage's"
        )
    dtype = torch.float16 if cuda else torch.float32
    names = [name for name in NETWORKS if index.get(name, [None])[0] is not None]
    parts = {name: load_network(str(folder), name, dtype) for name in names}
    parts |= {name: index[name] for name in ("resolution", "residual") if name in index}
    try:
        pipeline = pipeline_class(**parts)
    except TypeError as error:
        raise InputError(f"{folder} lacks a part ({error}): get the folder again") from error
    return pipeline.to("cuda" if cuda else "cpu")
