"""LPIPS of images over white, computed only where an image can differ from a white one.

Outside a box around the object both images are white, and so are their features, up to the reach of
the convolutions: they are those of a white image, which are computed once. Inside the box every
number is that of `hi3d.images.lpips.Lpips`, up to the order of sums and, where a compiler is there,
the rounding of Winograd's convolutions.
"""

from functools import partial

import torch
from torch import Tensor, nn

from hi3d.evaluation.protocols.features_over_white import (
    Features,
    Scratch,
    Take,
    convolved,
    differences,
    kernel,
    object_box,
    passed,
    pooled,
    winograd_filters,
)
from hi3d.evaluation.protocols.recent import content_of
from hi3d.images.lpips import Lpips

PIXELS_AT_ONCE = 4 * 256**2
"""Views of one box. More need more memory and read the deep layers' filters less often."""
PIXELS_KEPT = 16 * 512**2
"""Of the true views whose features are kept, 500 bytes each at most."""


class LpipsOverWhite:
    """The distance of images of one size over white."""

    def __init__(self, lpips: Lpips, height: int, width: int):
        """Args:
        lpips: the network.
        height: of all images, in pixels.
        width: the same.
        """
        self.lpips = lpips
        self.taps = lpips.architecture.taps
        self.compiled = kernel() is not None
        self.filters = [winograd_filters(n) if self.compiled else None for n in lpips.features]
        self.white: list[Tensor] = []  # input of each layer, and the output of the last
        x = self._normalised(torch.ones(1, 3, height, width))
        with torch.inference_mode():
            for layer in lpips.features:
                self.white.append(x.contiguous(memory_format=torch.channels_last))
                x = layer(x)
            self.white.append(x.contiguous(memory_format=torch.channels_last))
        self.views_at_once = max(1, PIXELS_AT_ONCE // (height * width))
        self.target, self.truths = "", list[list[Features]]()  # its content, and its features
        self.scratch = Scratch()
        self.places = places(lpips.features, self.taps)

    def __call__(self, pred: Tensor, target: Tensor) -> Tensor:
        """The distance of each pair of images, as `Lpips` gives it. [V]

        Args:
            pred: [V, 3, H, W] in [0, 1].
            target: [V, 3, H, W] in [0, 1]; the features of the last ones are kept.
        """
        same = torch.equal(pred, pred[:1].expand_as(pred))
        pairs = zip(pred.split(self.views_at_once), target.split(self.views_at_once), strict=True)
        distances, content = [], content_of([target])
        if content != self.target:
            self.target, self.truths = "", []  # their memory is used again
        with torch.inference_mode():
            found = self.layers(pred[:1]) if same else []
            for number, (images, true) in enumerate(pairs):
                truth = self._truth(number, true, target[:, 0].numel() <= PIXELS_KEPT)
                distances.append(self.distance(found or self.layers(images), truth))
        self.target = content if self.truths else ""
        return torch.cat(distances).to(pred.dtype)

    def _truth(self, number: int, images: Tensor, keep: bool) -> list[Features]:
        """Features of a few true views, computed unless they are kept."""
        if number < len(self.truths):
            return self.truths[number]
        layers = self.layers(images, f"kept {number if keep else 0}")
        if keep:
            self.truths.append(layers)
        return layers

    def distance(self, first: list[Features], second: list[Features]) -> Tensor:
        """Of the features of images at the compared layers. [V]"""
        total = torch.zeros(1, dtype=torch.float64)
        weights = self.lpips.channel_weights
        for tap, a, b, weight in zip(self.taps, first, second, weights, strict=True):
            total = total + differences(a, b, self.white[tap + 1], weight)
        return total

    def layers(self, images: Tensor, keep: str = "") -> list[Features]:
        """Features of a few images at the compared layers.

        Args:
            images: [V, 3, H, W] in [0, 1].
            keep: name of the memory that they have; another call with it overwrites them.
        """
        mask = (images < 1).any(1)
        box = object_box(mask)
        if box[1] == 0:
            return [Features(self.white[tap + 1][..., :0, :0], box) for tap in self.taps]
        inside = self._normalised(images)[..., box[0] : box[1], box[2] : box[3]]
        inside = inside.contiguous(memory_format=torch.channels_last)
        x, found = Features(inside, box, mask.to(torch.uint8)), []
        for number, layer in enumerate(self.lpips.features):
            x = self._passed(number, layer, x, keep)
            if number in self.taps:
                found.append(x)
        return found

    def _passed(self, number: int, layer: nn.Module, x: Features, keep: str) -> Features:
        """One layer, by the kernel where it knows the layer."""
        filters, white = self.filters[number], self.white[number]
        if isinstance(layer, nn.Conv2d) and filters is not None:
            after = self.white[number + 2]  # of the ReLU
            return convolved(x, layer, filters, white, after, self._memory(number, keep))
        if isinstance(layer, nn.ReLU) and self.filters[number - 1] is not None:
            return x  # the convolution has rectified
        if isinstance(layer, nn.MaxPool2d) and self.compiled and layer.kernel_size == 2:
            return pooled(x, self.white[number], self._memory(number, keep))
        return passed(x, layer, white, self.white[number + 1])

    def _memory(self, number: int, keep: str) -> Take:
        """Memory for the output of a layer that the kernel computes."""
        own = f"{keep} {number}" if number + 1 in self.taps else self.places[number]
        return partial(self.scratch.take, own)

    def _normalised(self, images: Tensor) -> Tensor:
        return (2 * images - 1 - self.lpips.shift) / self.lpips.scale


def places(layers: nn.Sequential, taps: tuple[int, ...]) -> list[str]:
    """Names of the memory of each layer's output: two in turn, since a layer reads one while it
    writes the other; compared features have memory of their own.

    Args:
        layers: of the network.
        taps: ReLUs whose output is compared.
    """
    names, turn = [], 0
    for number, layer in enumerate(layers):
        turn += not isinstance(layer, nn.ReLU) and number + 1 not in taps
        names.append(f"turn {turn % 2}")
    return names
