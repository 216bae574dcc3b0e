"""Features of images over white, inside the box beyond which they are those of a white image."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hi3d.images.lpips import EPS
from hi3d.native import Kernel, load_kernel, num_threads

Box = tuple[int, int, int, int]
"""Rows from, to, and columns from, to."""
LANES, COLUMNS = 8, 16
"""Channels that the kernel reads, and writes, at once."""
TO_POINTS = torch.tensor(
    [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]], dtype=torch.float64
).div(24)
"""[6, 3] Winograd's transform of filters for 4x4 outputs (Lavin and Gray 2016, Section 4.3)."""


@dataclass(frozen=True)
class Features:
    """What a layer makes of images."""

    inside: Tensor  # [V, C, h, w], or [1, C, h, w] where all images are equal
    """Channels are last in memory."""
    box: Box
    """Where they are; beyond it they are those of a white image."""
    mask: Tensor | None = None  # [V, H, W] uint8
    """1 where they can differ from those of a white image; None = everywhere in the box."""


def kernel() -> Kernel | None:
    """The compiled convolutions; None where there is no compiler."""
    return load_kernel(Path(__file__).with_name("features_over_white.c"))


def winograd_filters(layer: nn.Module) -> Tensor | None:
    """The filters of a 3x3 convolution at Winograd's points, as the kernel takes them.

    Returns:
        [36, K / 16, C, 16] with C filled up to a multiple of 8 by zeros, or None where the kernel
        does not know such a layer.
    """
    if not isinstance(layer, nn.Conv2d) or (layer.kernel_size, layer.stride, layer.padding) != (
        *((3, 3), (1, 1), (1, 1)),
    ):
        return None
    if layer.out_channels % COLUMNS:
        return None
    both = torch.kron(TO_POINTS, TO_POINTS)  # of rows and of columns, [36, 9]
    points = (layer.weight.double().flatten(2) @ both.T).float().permute(2, 0, 1)
    points = F.pad(points, (0, -layer.in_channels % LANES))
    return points.reshape(36, -1, COLUMNS, points.shape[-1]).transpose(2, 3).contiguous()


class Scratch:
    """Memory that is used again for the features of one layer after the other: fresh pages cost
    as much as a fifth of a convolution."""

    def __init__(self) -> None:
        self._flat: dict[str, Tensor] = {}

    def take(self, name: str, shape: tuple[int, int, int, int]) -> Tensor:
        """Features [V, C, h, w] of any content, channels last, in the place of what had the name.

        Args:
            name: of the place.
            shape: V, C, h, w.
        """
        count, channels, height, width = shape
        size = count * channels * height * width
        if name not in self._flat or len(self._flat[name]) < size:
            self._flat[name] = torch.empty(size)
        rows = self._flat[name][:size].view(count, height, width, channels)
        return rows.permute(0, 3, 1, 2)


Take = Callable[[tuple[int, int, int, int]], Tensor]
"""Gives memory for features [V, C, h, w], channels last."""


def fresh(shape: tuple[int, int, int, int]) -> Tensor:
    """New memory for features [V, C, h, w], channels last."""
    return torch.empty(shape, memory_format=torch.channels_last)


def convolved(
    x: Features,
    layer: nn.Conv2d,
    filters: Tensor,
    white: Tensor,
    after: Tensor,
    take: Take = fresh,
) -> Features:
    """A convolution and the ReLU after it by the kernel.

    Args:
        x: inputs.
        layer: of 3x3.
        filters: of `winograd_filters`.
        white: [1, C, H, W] the layer's input for a white image.
        after: [1, K, H, W] its output, rectified.
        take: gives memory for the output.
    """
    compiled = kernel()
    assert compiled is not None
    assert layer.bias is not None
    channels, (height, width) = filters.shape[2], white.shape[-2:]
    inside = x.inside
    if channels > layer.in_channels:
        filled = (0, 0, 0, 0, 0, channels - layer.in_channels)
        inside, white = F.pad(inside, filled), F.pad(white, filled)
    box = output_box(layer, x.box, (height, width))
    y = take((len(inside), layer.out_channels, box[1] - box[0], box[3] - box[2]))
    mask = _spread(x, box, (height, width), 3)
    failed = compiled.convolve(
        _rows(inside), _numbers(x.box), _rows(white), _rows(after), filters, layer.bias, mask,
        *(len(inside), height, width, channels, layer.out_channels),
        _numbers(box), _rows(y), num_threads(),
    )  # fmt: skip
    if failed:
        raise MemoryError("no memory for the tiles of a convolution")
    return Features(y, box, mask)


def pooled(x: Features, white: Tensor, take: Take = fresh) -> Features:
    """A pooling of 2x2 pixels by the kernel.

    Args:
        x: inputs.
        white: [1, C, H, W] the layer's input for a white image.
        take: gives memory for the output.
    """
    compiled = kernel()
    assert compiled is not None
    (num_images, channels), (height, width) = x.inside.shape[:2], white.shape[-2:]
    box = output_box(nn.MaxPool2d(2), x.box, (height // 2, width // 2))
    y = take((num_images, channels, box[1] - box[0], box[3] - box[2]))
    compiled.pool(
        *(_rows(x.inside), _numbers(x.box), _rows(white), num_images, height, width, channels),
        *(_numbers(box), _rows(y), num_threads()),
    )
    return Features(y, box, _spread(x, box, (height // 2, width // 2), 2))


def _spread(x: Features, box: Box, shape: tuple[int, int], size: int) -> Tensor:
    """The mask after a convolution of 3x3 pixels or a pooling of 2x2. [V, H, W] uint8"""
    if x.mask is None:
        mask = torch.zeros(len(x.inside), *shape, dtype=torch.uint8)
        mask[:, box[0] : box[1], box[2] : box[3]] = 1
        return mask
    wide = x.mask[:, None].float()
    wide = F.max_pool2d(wide, 3, 1, 1) if size == 3 else F.max_pool2d(wide, 2)
    return wide[:, 0].to(torch.uint8)


def passed(x: Features, layer: nn.Module, white: Tensor, after: Tensor) -> Features:
    """One layer on the box alone, which grows by what the layer carries outwards.

    Args:
        x: inputs.
        layer: a convolution, a pooling or a ReLU.
        white: [1, C, H, W] the layer's input for a white image.
        after: its output.
    """
    if isinstance(layer, nn.ReLU):
        return Features(F.relu(x.inside), x.box, x.mask)
    assert isinstance(layer, nn.Conv2d | nn.MaxPool2d)
    size, stride, padding = _geometry(layer)
    box = output_box(layer, x.box, (after.shape[-2], after.shape[-1]))
    inputs: list[int] = []
    pads: list[int] = []
    for axis in (0, 1):
        begin = box[2 * axis] * stride - padding
        stop = (box[2 * axis + 1] - 1) * stride - padding + size
        whole = white.shape[-2 + axis]
        inputs += [max(0, begin), min(whole, stop)]
        pads = [max(0, -begin), max(0, stop - whole), *pads]
    needed = (inputs[0], inputs[1], inputs[2], inputs[3])
    region = within(x, needed, white)
    if isinstance(layer, nn.MaxPool2d):
        return Features(F.max_pool2d(region, size, stride), box)
    region = F.pad(region, pads)
    return Features(F.conv2d(region, layer.weight, layer.bias, stride), box)


def output_box(layer: nn.Module, box: Box, shape: tuple[int, int]) -> Box:
    """Where the output of a layer depends on what is in a box of its input.

    Args:
        layer: a convolution or a pooling.
        box: of the input.
        shape: rows and columns of the whole output.
    """
    size, stride, padding = _geometry(layer)
    found: list[int] = []
    for axis in (0, 1):
        start, end = box[2 * axis : 2 * axis + 2]
        first = max(0, -(-(start + padding - size + 1) // stride))
        found += [first, min(shape[axis], (end - 1 + padding) // stride + 1)]
    return found[0], found[1], found[2], found[3]


def within(x: Features, box: Box, white: Tensor) -> Tensor:
    """Features in a box of any place, those of a white image [1, C, H, W] where `x` has none."""
    if x.box == box:
        return x.inside
    region = white[..., box[0] : box[1], box[2] : box[3]]
    region = region.expand(len(x.inside), -1, -1, -1).clone(memory_format=torch.channels_last)
    top, bottom = max(box[0], x.box[0]), min(box[1], x.box[1])
    left, right = max(box[2], x.box[2]), min(box[3], x.box[3])
    if top < bottom and left < right:
        part = x.inside[..., top - x.box[0] : bottom - x.box[0], left - x.box[2] : right - x.box[2]]
        region[..., top - box[0] : bottom - box[0], left - box[2] : right - box[2]] = part
    return region


def differences(first: Features, second: Features, white: Tensor, weights: Tensor) -> Tensor:
    """The weighted squared differences of unit vectors, in the mean over pixels. [V]

    Args:
        first: of V images, or of one for all.
        second: the same.
        white: [1, C, H, W] features of a white image.
        weights: [C, 1, 1] of the channels.
    """
    compiled = kernel()
    count = max(len(first.inside), len(second.inside))
    height, width = white.shape[-2:]
    if compiled is None:
        box = union(first.box, second.box)
        a, b = (unit(within(features, box, white)) for features in (first, second))
        sums = ((a - b).square() * weights).sum((1, 2, 3)).double().expand(count)
    else:
        sums = torch.empty(count, dtype=torch.float64)
        compiled.distances(
            *(_rows(first.inside), _numbers(first.box), len(first.inside)),
            *(_rows(second.inside), _numbers(second.box), len(second.inside)),
            *(_rows(white), weights, count, height, width, white.shape[1], EPS),
            *(sums, num_threads()),
        )
    return sums / (height * width)


def unit(x: Tensor) -> Tensor:
    """Features [V, C, h, w] at unit length."""
    return x / (x.square().sum(1, keepdim=True) + EPS).sqrt()


def union(first: Box, second: Box) -> Box:
    """The box around two, of which one may be empty."""
    boxes = [box for box in (first, second) if box[1] > box[0]] or [first]
    starts = (min(box[axis] for box in boxes) for axis in (0, 2))
    ends = (max(box[axis] for box in boxes) for axis in (1, 3))
    (top, left), (bottom, right) = starts, ends
    return top, bottom, left, right


def object_box(mask: Tensor) -> Box:
    """The box around all that is set in masks [V, H, W]; empty where nothing is."""
    colored = mask.any(0)
    rows, columns = (torch.nonzero(colored.any(axis))[:, 0] for axis in (1, 0))
    if len(rows) == 0:
        return 0, 0, 0, 0
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def _geometry(layer: nn.Module) -> tuple[int, int, int]:
    """Size, stride and padding of a layer, the same for rows and columns."""
    assert isinstance(layer, nn.Conv2d | nn.MaxPool2d)
    values = (layer.kernel_size, layer.stride, layer.padding)
    size, stride, padding = (v[0] if isinstance(v, tuple) else v for v in values)
    return int(size), int(stride), int(padding)


def _rows(x: Tensor) -> Tensor:
    """Features [V, C, H, W] as the kernel reads them: [V, H, W, C]."""
    return x.permute(0, 2, 3, 1).contiguous()


@functools.lru_cache(maxsize=64)
def _numbers(box: Box) -> Tensor:
    return torch.tensor(box, dtype=torch.int64)
