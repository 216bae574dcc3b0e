"""Reading and writing model folders (diffusers layout), with one-line errors."""

import json
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers import (
    AutoencoderKL,
    AutoencoderKLTemporalDecoder,
    EulerDiscreteScheduler,
    UNetSpatioTemporalConditionModel,
)
from safetensors import SafetensorError
from torch import nn
from transformers import CLIPVisionModelWithProjection, DPTForDepthEstimation

from hi3d.diffusion.conditioning import ElevationEstimator
from hi3d.diffusion.unet import NUM_TIME_IDS, from_svd
from hi3d.errors import InputError
from hi3d.files import write_json
from hi3d.nano.orbit_predictor import OrbitPredictor
from hi3d.nano.patch_autoencoder import PatchAutoencoder

VAE_CLASSES = (AutoencoderKLTemporalDecoder, AutoencoderKL, PatchAutoencoder)
NETWORKS: dict[str, Any] = {
    "unet": UNetSpatioTemporalConditionModel,
    "vae": VAE_CLASSES,
    "image_encoder": CLIPVisionModelWithProjection,
    "elevation_estimator": ElevationEstimator,
    "depth_estimator": DPTForDepthEstimation,
    "orbit_predictor": OrbitPredictor,
    "scheduler": EulerDiscreteScheduler,
}
"""The class of each part of a model folder; of several, the one that its config names."""


def load_network(folder: str, name: str, dtype: torch.dtype = torch.float32) -> Any:
    """Load one part of a model folder.

    Args:
        folder: local folder, or a repository of the Hugging Face hub (`organisation/name`). A
            depth model may also be the folder or the repository itself.
        name: sub-folder, a key of `NETWORKS`.
        dtype: of the weights.

    Returns:
        An instance of its class, in evaluation mode if it is a network.

    Raises:
        InputError: missing, truncated or of another shape.
    """
    path = Path(folder)
    # A path whose parent is here is no repository: asking the hub for it would take half a minute.
    is_path = path.is_absolute() or str(folder).count("/") != 1 or path.parent.is_dir()
    if not path.is_dir() and is_path:
        raise InputError(f"no model folder at {folder}: check the path, or train it first")
    transformers.utils.logging.disable_progress_bar()  # the scripts show one of their own
    is_local = path.is_dir()
    # Depth models are published alone: the repository, or the folder, is the network.
    alone = name == "depth_estimator" and not (is_local and (path / name).is_dir())
    if is_local and not alone and not (path / name).is_dir():
        raise InputError(f"model folder {folder} has no {name}/: it is incomplete, get it again")
    options = {} if name == "scheduler" else {"torch_dtype": dtype}
    try:
        network_class = NETWORKS[name]
        if isinstance(network_class, tuple):
            named = network_class[0].load_config(folder, subfolder=name)["_class_name"]
            network_class = next(c for c in network_class if c.__name__ == named)
        if issubclass(network_class, DPTForDepthEstimation | CLIPVisionModelWithProjection):
            options = {"dtype": dtype}
        network = network_class.from_pretrained(folder, subfolder="" if alone else name, **options)
    except (
        OSError,
        ValueError,
        RuntimeError,
        SafetensorError,
        LookupError,
        StopIteration,
    ) as error:
        cause = " ".join(str(error).split())[:200]
        raise InputError(
            f"cannot load {name} from {folder}: missing or damaged, get it again ({cause})"
        ) from error
    return network.eval() if isinstance(network, nn.Module) else network


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
    is_svd = unet.config.projection_class_embeddings_input_dim != NUM_TIME_IDS * width
    if is_svd or unet.config.in_channels < in_channels:
        return from_svd(unet, in_channels)
    if unet.config.in_channels != in_channels:
        raise InputError(
            f"the UNet of {folder} takes {unet.config.in_channels} channels and this stage "
            f"{in_channels}: give the other stage's folder"
        )
    return unet


def write_model_index(
    folder: str | Path, pipeline_class: str, parts: dict[str, Any], settings: dict[str, Any]
) -> None:
    """Write `model_index.json`, by which a pipeline's `from_pretrained` knows its parts.

    Args:
        folder: the model folder.
        pipeline_class: name of the pipeline.
        parts: name -> instance, each saved in its own sub-folder.
        settings: further arguments of the pipeline: `resolution` (image side that the UNet was
            trained at) and `residual` (see `hi3d.diffusion.sampling.OrbitCondition.base`).
    """
    index: dict[str, Any] = {
        "_class_name": pipeline_class,
        "_diffusers_version": diffusers.__version__,
    }
    for name, part in parts.items():
        library = type(part).__module__.split(".")[0]
        module = library if library in ("diffusers", "transformers") else type(part).__module__
        index[name] = [module, type(part).__name__]
    write_json(Path(folder) / "model_index.json", index | settings)


def read_model_index(folder: str | Path) -> dict[str, Any]:
    """Contents of `model_index.json`.

    Raises:
        InputError: it is missing or damaged.
    """
    try:
        index = json.loads((Path(folder) / "model_index.json").read_text())
        return {"_class_name": index["_class_name"], **index}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"no readable model_index.json in {folder}: give a model folder (train or download it)"
        ) from error
