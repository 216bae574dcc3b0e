"""Reading and writing model folders (diffusers layout), with one-line errors."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers import DiffusionPipeline, EulerDiscreteScheduler, UNetSpatioTemporalConditionModel
from safetensors import SafetensorError
from torch import nn
from transformers import DPTForDepthEstimation

from hi3d.diffusion.folders.hub import check_hub
from hi3d.diffusion.official.unet import OfficialUNet
from hi3d.diffusion.unet import NUM_TIME_IDS, from_svd
from hi3d.errors import InputError
from hi3d.files import parse_json, regular_file, write_json

DEPTH_ESTIMATOR = "depth_estimator"
"""The part that is also published alone, as a folder or repository without `model_index.json`."""
LIBRARIES = ("diffusers", "transformers", "hi3d")
"""Whose classes a model folder may name: an index is data, and must not import anything else."""


def load_network(folder: str, name: str, dtype: torch.dtype = torch.float32) -> Any:
    """Load one part of a model folder, of the class that the folder's `model_index.json` names.

    Args:
        folder: local folder, or a repository of the Hugging Face hub (`organisation/name`). A
            depth model may also be the folder or the repository itself.
        name: of the part, such as `unet`, `vae`, `image_encoder`, `depth_estimator`.
        dtype: of the weights.

    Returns:
        An instance of its class, in evaluation mode if it is a network.

    Raises:
        InputError: missing, truncated or of another shape.
    """
    check_folder(folder)
    path = Path(folder)
    if name == DEPTH_ESTIMATOR and not (path / name).is_dir():
        with one_line_errors(folder, name):
            return DPTForDepthEstimation.from_pretrained(folder, dtype=dtype).eval()
    index = read_model_index(folder)
    if name not in index or (path.is_dir() and not (path / name).is_dir()):
        raise InputError(f"model folder {folder} has no {name}/: it is incomplete, get it again")
    network_class = named_class(folder, *index[name])
    with one_line_errors(folder, name):
        network = network_class.from_pretrained(folder, subfolder=name, dtype=dtype)
    return network.eval() if isinstance(network, nn.Module) else network


def check_folder(folder: str) -> None:
    """Refuse a folder that is not there.

    A path whose parent is here is no repository.

    Raises:
        InputError: there is no such folder, or as `hub.check_hub`.
    """
    path = Path(folder)
    is_path = path.is_absolute() or str(folder).count("/") != 1 or path.parent.is_dir()
    if not path.is_dir() and is_path:
        raise InputError(f"no model folder at {folder}: check the path, or train it first")
    if not path.is_dir():
        check_hub(str(folder))
    hide_libraries_bars()


def hide_libraries_bars() -> None:
    """Keep the progress bars of diffusers and transformers off the console."""
    transformers.utils.logging.disable_progress_bar()
    diffusers.utils.logging.disable_progress_bar()


def named_class(folder: str | Path, module: str, class_name: str) -> Any:
    """A class that a model folder names.

    Raises:
        InputError: it is of another library, or there is none of that name.
    """
    if module.split(".")[0] not in LIBRARIES:
        known = ", ".join(LIBRARIES)
        raise InputError(f"{folder} names {module}.{class_name}: classes of {known} are taken")
    try:
        return getattr(import_module(module), class_name)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"{folder} names {module}.{class_name}, which is not there: export the folder again"
        ) from error


@contextmanager
def one_line_errors(folder: str | Path, name: str) -> Iterator[None]:
    """What diffusers and transformers raise for a missing or damaged part, as an `InputError`."""
    try:
        yield
    except (OSError, ValueError, RuntimeError, SafetensorError, LookupError, TypeError) as error:
        cause = " ".join(str(error).split())[:200]
        raise InputError(
            f"cannot load {name} from {folder}: missing or damaged, get it again ({cause})"
        ) from error


def load_networks(base: str | None, **folders: str | None) -> dict[str, Any]:
    """Load networks by name, each from its own folder or else from `base`.

    Raises:
        InputError: neither is given, or as `load_network`.
    """
    networks = {}
    for name, folder in folders.items():
        source = folder or base
        if source is None:
            raise InputError(f"no folder for the {name}: set {name}=FOLDER or init_from=FOLDER")
        networks[name] = load_network(source, name)
    return networks


def load_unet(folder: str, in_channels: int) -> UNetSpatioTemporalConditionModel:
    """The UNet of a model folder; SVD's own is remoulded to `in_channels` and our conditions.

    Raises:
        InputError: as `load_network`, or the network does not fit.
    """
    unet = load_network(folder, "unet")
    width = unet.config.addition_time_embed_dim
    if isinstance(unet, OfficialUNet):
        raise InputError(
            f"the UNet of {folder} has the released code's conditions, which this training does "
            "not give: start from SVD or from a folder of this training"
        )
    is_svd = unet.config.projection_class_embeddings_input_dim != NUM_TIME_IDS * width
    if is_svd or unet.config.in_channels < in_channels:
        return from_svd(unet, in_channels)
    if unet.config.in_channels != in_channels:
        raise InputError(
            f"the UNet of {folder} takes {unet.config.in_channels} channels and this stage "
            f"{in_channels}: give the other stage's folder"
        )
    return unet


def svd_scheduler() -> EulerDiscreteScheduler:
    """SVD's noise levels, 700 to 0.002, as diffusers writes them."""
    return EulerDiscreteScheduler(
        prediction_type="v_prediction",
        use_karras_sigmas=True,
        timestep_type="continuous",
        timestep_spacing="leading",
        sigma_min=0.002,
        sigma_max=700.0,
    )


def write_model_index(
    folder: str | Path,
    parts: dict[str, Any],
    pipeline: tuple[str, str] = ("diffusers", "DiffusionPipeline"),
    **settings: Any,
) -> None:
    """Write `model_index.json`, by which `from_pretrained` knows the classes of the parts.

    Args:
        folder: the model folder.
        parts: name -> instance, each saved in its own sub-folder.
        pipeline: module and class of the pipeline that takes them.
        settings: further arguments of the pipeline, such as `resolution`.
    """
    index: dict[str, Any] = {
        "_class_name": pipeline[1],
        "_module": pipeline[0],
        "_diffusers_version": diffusers.__version__,
    }
    for name, part in parts.items():
        library = type(part).__module__.split(".")[0]
        module = library if library in ("diffusers", "transformers") else type(part).__module__
        index[name] = [module, type(part).__name__]
    write_json(Path(folder) / "model_index.json", index | settings)


def read_model_index(folder: str | Path) -> dict[str, Any]:
    """Contents of `model_index.json`, of a local folder or a repository of the hub.

    Raises:
        InputError: it is missing or damaged.
    """
    try:
        if Path(folder).is_dir():
            index = parse_json(regular_file(Path(folder) / "model_index.json").read_text())
        else:
            index = DiffusionPipeline.load_config(folder)
        return {"_class_name": index["_class_name"], **index}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"no readable model_index.json in {folder}: give a model folder (train or download it)"
        ) from error
