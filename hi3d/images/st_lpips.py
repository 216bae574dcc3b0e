"""ST-LPIPS, a perceptual distance that tolerates small shifts (Ghildyal and Liu, ECCV 2022).

LPIPS' networks without their strides: every step down is a pooling of stride 1 and a binomial blur,
and all weights were trained anew. Its values are its own and do not compare with LPIPS'. The
weights are those of the package stlpips-pytorch, which is read and not imported.
"""

import functools
import importlib.util
import pickle
import re
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hi3d.errors import InputError
from hi3d.images.lpips import Architecture, FeatureDistance, LpipsNetwork, vgg_layers

PACKAGE = "stlpips_pytorch"
INSTALL = "pip install --no-deps stlpips-pytorch==0.0.2"
LENGTH_EPS = 1e-10  # added to the length of feature vectors
ARCHITECTURES = {
    LpipsNetwork.vgg: Architecture("vgg_shift_tolerant.pth", (3, 9, 17, 25, 33), 18),
    LpipsNetwork.alex: Architecture("alex_shift_tolerant.pth", (2, 6, 10, 12, 14), 21),
}


class BlurDown(nn.Module):
    """Every second pixel of an image blurred by (1, 2, 1) / 4 along rows and columns, with two
    mirrored pixels around it."""

    kernel: Tensor

    def __init__(self, channels: int):
        """Args: channels: C."""
        super().__init__()
        line = torch.tensor([1.0, 2.0, 1.0]) / 4
        kernel = torch.outer(line, line).expand(channels, 1, 3, 3).clone()
        self.register_buffer("kernel", kernel, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[V, C, H, W] to [V, C, (H + 3) // 2, (W + 3) // 2]."""
        return F.conv2d(F.pad(x, (2,) * 4, "reflect"), self.kernel, stride=2, groups=x.shape[1])


class StLpips(FeatureDistance):
    """ST-LPIPS, version ST0.0."""

    name = "ST-LPIPS"

    def __init__(self, network: LpipsNetwork = LpipsNetwork.alex, weights: Path | None = None):
        """Args:
        network: whose features are compared.
        weights: file of the package; None = that of the installed one.

        Raises:
            InputError: there is no such file, or it holds something else.
        """
        features = feature_layers(network)
        channel_weights = load_weights(features, weights or weights_of(network))
        super().__init__(ARCHITECTURES[network], features, channel_weights)

    def lengths(self, x: Tensor) -> Tensor:
        """By which features [V, C, h, w] are divided. [V, 1, h, w]"""
        return x.square().sum(1, keepdim=True).sqrt() + LENGTH_EPS


@functools.cache
def st_lpips_of(network: LpipsNetwork = LpipsNetwork.alex) -> StLpips:
    """The network, loaded once per process.

    Raises:
        InputError: its package is not installed.
    """
    return StLpips(network)


def feature_layers(network: LpipsNetwork) -> nn.Sequential:
    """AlexNet or VGG-16 without strides, to the last layer that is compared."""
    if network is LpipsNetwork.vgg:
        return vgg_layers(lambda channels: [nn.MaxPool2d(2, stride=1), BlurDown(channels)])
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 11, padding=2), BlurDown(64), nn.ReLU()]
    layers += [nn.MaxPool2d(3, stride=1), BlurDown(64), nn.Conv2d(64, 192, 5, padding=2), nn.ReLU()]
    layers += [nn.MaxPool2d(3, stride=1), BlurDown(192)]
    for before, after in ((192, 384), (384, 256), (256, 256)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers)


def weights_of(network: LpipsNetwork) -> Path:
    """The package's file.

    Raises:
        InputError: the package is not installed.
    """
    found = importlib.util.find_spec(PACKAGE)
    places = (found and found.submodule_search_locations) or []
    file = ARCHITECTURES[network].file
    files = [Path(place) / "weights" / "vST0.0" / file for place in places]
    for path in files:
        if path.is_file():
            return path
    raise InputError(f"ST-LPIPS needs its weights: {INSTALL}")


def load_weights(layers: nn.Sequential, path: Path) -> list[Tensor]:
    """Fill the layers, and return the weights of the compared channels. [C, 1, 1] each

    Args:
        layers: of `feature_layers`.
        path: file of the package.

    Raises:
        InputError: there is no such file, or it holds something else.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        convolutions = {}
        for key, value in state.items():
            if match := re.fullmatch(r"net\.slice\d+\.(\d+\.(?:weight|bias))", key):
                convolutions[match[1]] = value
        layers.load_state_dict(convolutions)
        lins = sorted(key for key in state if re.fullmatch(r"lin\d\.model\.1\.weight", key))
        return [state[key][0] for key in lins]
    except OSError as error:
        raise InputError(
            f"no weights for ST-LPIPS ({path}: {error.strerror}): {INSTALL}"
        ) from error
    except (RuntimeError, pickle.UnpicklingError, AttributeError, EOFError, KeyError) as error:
        raise InputError(f"{path} does not hold ST-LPIPS' weights: {INSTALL} again") from error
