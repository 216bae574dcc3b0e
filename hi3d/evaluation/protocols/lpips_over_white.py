"""LPIPS of images over white, computed only where an image can differ from a white one.

Outside a box around the object both images are white, and so are their features, up to the reach of
the convolutions: they are those of a white image, which are computed once. Inside the box every
number is that of `hi3d.images.lpips.Lpips`, up to the order of sums.
"""

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hi3d.evaluation.protocols.recent import Recent
from hi3d.images.lpips import EPS, Lpips

Box = tuple[int, int, int, int]
"""Rows from, to, and columns from, to."""
MAX_TARGETS = 16
"""True views whose features are kept: those of one object."""


@dataclass(frozen=True)
class Layer:
    """Features of an image at a compared layer."""

    inside: Tensor  # [1, C, h, w]
    """Of unit length at each pixel."""
    box: Box
    """Where they are; beyond it they are those of a white image."""


class LpipsOverWhite:
    """The distance of images of one size over white."""

    def __init__(self, lpips: Lpips, height: int, width: int):
        """Args:
        lpips: the network.
        height: of all images, in pixels.
        width: the same.
        """
        self.lpips = lpips
        self.white: list[Tensor] = []  # input of each layer, and the output of the last
        x = self._normalised(torch.ones(1, 3, height, width))
        with torch.inference_mode():
            for layer in lpips.features:
                self.white.append(x)
                x = layer(x)
            self.white.append(x)
            self.unit_white = [unit(self.white[tap + 1]) for tap in lpips.architecture.taps]
        self.targets: Recent[list[Layer]] = Recent(MAX_TARGETS)
        self.last: Recent[list[Layer]] = Recent(1)

    def __call__(self, pred: Tensor, target: Tensor) -> Tensor:
        """The distance of each pair of images, as `Lpips` gives it. [V]

        Args:
            pred: [V, 3, H, W] in [0, 1].
            target: [V, 3, H, W] in [0, 1]; the features of the last ones are kept.
        """
        distances = []
        with torch.inference_mode():
            for image, true in zip(pred.split(1), target.split(1), strict=True):
                layers = self.last.get([image], partial(self.layers, image))
                true_layers = self.targets.get([true], partial(self.layers, true))
                distances.append(self.distance(layers, true_layers))
        return torch.stack(distances)

    def distance(self, first: list[Layer], second: list[Layer]) -> Tensor:
        """Of the layers of two images."""
        total = torch.zeros(())
        for number, weights in enumerate(self.lpips.channel_weights):
            white = self.unit_white[number]
            box = union(first[number].box, second[number].box)
            a, b = (within(layers[number], box, white) for layers in (first, second))
            total = total + ((a - b).square() * weights).sum() / white[0, 0].numel()
        return total

    def layers(self, image: Tensor) -> list[Layer]:
        """Features of an image [1, 3, H, W] in [0, 1] at the compared layers."""
        box = object_box(image)
        if box is None:
            return [Layer(white[..., :0, :0], (0, 0, 0, 0)) for white in self.unit_white]
        x = self._normalised(image)[..., box[0] : box[1], box[2] : box[3]]
        found = []
        for number, layer in enumerate(self.lpips.features):
            x, box = self._through(layer, x, box, self.white[number], self.white[number + 1])
            if number in self.lpips.architecture.taps:
                found.append(Layer(unit(x), box))
        return found

    def _normalised(self, images: Tensor) -> Tensor:
        return (2 * images - 1 - self.lpips.shift) / self.lpips.scale

    def _through(
        self, layer: nn.Module, x: Tensor, box: Box, white: Tensor, after: Tensor
    ) -> tuple[Tensor, Box]:
        """One layer on the box alone, which grows by what the layer carries outwards.

        Args:
            layer: a convolution, a pooling or a ReLU.
            x: [B, C, h, w] inputs within `box`.
            box: of `x`.
            white: [1, C, H, W] the layer's input for a white image.
            after: its output.
        """
        if isinstance(layer, nn.ReLU):
            return F.relu(x), box
        assert isinstance(layer, nn.Conv2d | nn.MaxPool2d)
        size, stride, padding = (
            _number(value) for value in (layer.kernel_size, layer.stride, layer.padding)
        )
        wanted: list[int] = []
        needed: list[int] = []
        pads: list[tuple[int, int]] = []
        for axis in (0, 1):
            start, end = box[2 * axis : 2 * axis + 2]
            length, whole = after.shape[-2 + axis], white.shape[-2 + axis]
            first = max(0, -(-(start + padding - size + 1) // stride))
            last = min(length, (end - 1 + padding) // stride + 1)
            begin, stop = first * stride - padding, (last - 1) * stride - padding + size
            wanted += [first, last]
            needed += [max(0, begin), min(whole, stop)]
            pads.append((max(0, -begin), max(0, stop - whole)))
        region = white[..., needed[0] : needed[1], needed[2] : needed[3]]
        region = region.repeat(len(x), 1, 1, 1)
        top, left = box[0] - needed[0], box[2] - needed[2]
        ys, xs = max(0, -top), max(0, -left)  # a stride may leave a border of the box unread
        part = x[..., ys : needed[1] - box[0], xs : needed[3] - box[2]]
        top, left = top + ys, left + xs
        region[..., top : top + part.shape[-2], left : left + part.shape[-1]] = part
        box = (wanted[0], wanted[1], wanted[2], wanted[3])
        if isinstance(layer, nn.MaxPool2d):
            return F.max_pool2d(region, size, stride), box
        region = F.pad(region, (*pads[1], *pads[0]))
        return F.conv2d(region, layer.weight, layer.bias, stride), box


def _number(value: object) -> int:
    """A layer's setting, the same for rows and columns."""
    first = value[0] if isinstance(value, tuple) else value
    assert isinstance(first, int)
    return first


def unit(x: Tensor) -> Tensor:
    """Features [B, C, h, w] at unit length."""
    return x / (x.square().sum(1, keepdim=True) + EPS).sqrt()


def union(first: Box, second: Box) -> Box:
    """The box around two, of which one may be empty."""
    boxes = [box for box in (first, second) if box[1] > box[0]] or [first]
    starts = (min(box[axis] for box in boxes) for axis in (0, 2))
    ends = (max(box[axis] for box in boxes) for axis in (1, 3))
    (top, left), (bottom, right) = starts, ends
    return top, bottom, left, right


def within(layer: Layer, box: Box, white: Tensor) -> Tensor:
    """Features in a larger box, those of a white image [1, C, H, W] around them."""
    if layer.box == box:
        return layer.inside
    region = white[..., box[0] : box[1], box[2] : box[3]].clone()
    top, left = layer.box[0] - box[0], layer.box[2] - box[2]
    height, width = layer.inside.shape[-2:]
    if height:
        region[..., top : top + height, left : left + width] = layer.inside
    return region


def object_box(images: Tensor) -> Box | None:
    """The box beyond which all images [B, 3, H, W] are white; None where nothing is not."""
    colored = (images < 1).any(1).any(0)
    rows, columns = (torch.nonzero(colored.any(axis))[:, 0] for axis in (1, 0))
    if len(rows) == 0:
        return None
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
