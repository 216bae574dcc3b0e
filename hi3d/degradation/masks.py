"""Random masking of an object's regions, which imitates the wrong shapes of coarse orbits.

Section 4.3 of the paper names random masking and gives no numbers. Here a region is a smooth blob
around a pixel of the object. Inside it the object is removed to white, or replaced by the frame's
own content from nearby, or by another frame's content at the same place. Pixels outside the object
never change.
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hi3d.degradation.random_draws import (
    Draws,
    Range,
    check_probability,
    check_range,
    check_weights,
)

MASK_KINDS = ("removed", "displaced", "other_frame")
HARMONICS = (2, 3, 4, 5)
"""Waves of a blob's outline around its center; their amplitudes fall as 1 / number."""


@dataclass
class MaskConfig:
    """How often, how much and with what regions of the object are replaced.

    Lengths are relative to the object's size in the frame, the square root of its area.
    """

    probability: float = 0.5
    """Chance of a frame to be masked; 0 masks nothing."""
    count: tuple[int, int] = (1, 3)
    """Fewest and most regions of a masked frame."""
    diameter: Range = (0.05, 0.3)
    """Mean diameter of a region."""
    roughness: float = 0.2
    """Standard deviation of the outline's radius over its mean; 0 is a circle."""
    kind_weights: dict[str, float] = field(
        default_factory=lambda: dict(zip(MASK_KINDS, (0.4, 0.4, 0.2), strict=True))
    )
    """Weight of each kind of region; those that a config file does not name keep theirs."""
    displacement: Range = (0.03, 0.15)
    """How far away the content of a displaced region lies."""
    frame_offset: tuple[int, int] = (1, 2)
    """How many frames away the other frame is, in either direction around the ring."""

    def __post_init__(self) -> None:
        check_probability("masks.probability", self.probability)
        check_range("masks.count", self.count, 0, 100)
        check_range("masks.diameter", self.diameter, 0.0, 10.0)
        check_range("masks.roughness", (self.roughness, self.roughness), 0.0, 1.0)
        check_range("masks.displacement", self.displacement, 0.0, 10.0)
        check_range("masks.frame_offset", self.frame_offset, 1, 1000)
        check_weights("masks.kind_weights", self.kind_weights, MASK_KINDS)


@dataclass(frozen=True)
class RegionDraws:
    """Parameters of one region in every frame."""

    are_there: Tensor  # [V] bool
    kinds: Tensor  # [V] int, index into MASK_KINDS
    places: Tensor  # [V] in [0, 1): which of the object's pixels is the center
    diameters: Tensor  # [V] over the object's size
    amplitudes: Tensor  # [V, 4] of the outline's waves over the mean radius
    phases: Tensor  # [V, 4] rad
    displacements: Tensor  # [V, 2] x, y over the object's size
    frame_offsets: Tensor  # [V] int, signed


def draw_regions(draws: Draws, config: MaskConfig) -> list[RegionDraws]:
    """Draw the regions of every frame.

    Args:
        draws: the video's draws.
        config: ranges and chances.

    Returns:
        `config.count[1]` regions; `are_there` says which frames have how many of them.
    """
    is_masked = draws.happens("masks", config.probability)
    counts = draws.integer("masks", *config.count)
    weights = [config.kind_weights.get(kind, 0.0) for kind in MASK_KINDS]
    amplitudes = 1 / torch.tensor(HARMONICS, dtype=torch.float32)
    # The variance of a sum of waves is half the sum of their squared amplitudes.
    amplitudes *= config.roughness * math.sqrt(2) / amplitudes.norm()
    regions = []
    for number in range(config.count[1]):
        angles = draws.uniform("masks", (-math.pi, math.pi))
        directions = torch.stack([angles.cos(), angles.sin()], dim=1)
        regions.append(
            RegionDraws(
                are_there=is_masked & (number < counts),
                kinds=draws.choice("masks", weights),
                places=draws.uniform("masks"),
                diameters=draws.uniform("masks", config.diameter),
                amplitudes=amplitudes.expand(draws.num_views, -1),
                phases=torch.stack(
                    [draws.uniform("masks", (-math.pi, math.pi)) for _ in HARMONICS], dim=1
                ),
                displacements=directions * draws.uniform("masks", config.displacement)[:, None],
                frame_offsets=draws.integer("masks", *config.frame_offset)
                * torch.where(draws.happens("masks", 0.5), 1, -1),
            )
        )
    return regions


def replace_regions(
    rgb: Tensor,  # [V, 3, H, W]
    alpha: Tensor,  # [V, 1, H, W]
    regions: list[RegionDraws],
    view: int,
) -> Tensor:
    """One frame with its regions replaced.

    Args:
        rgb: [V, 3, H, W] in [0, 1], over white: the unchanged frames.
        alpha: [V, 1, H, W] in [0, 1]; where it is 0 nothing changes.
        regions: drawn for the V frames.
        view: index of the frame.

    Returns:
        [3, H, W]; the frame itself, not a copy, if it has no region.
    """
    regions = [region for region in regions if region.are_there[view]]
    inside = alpha[view, 0] > 0
    area = int(inside.sum())
    if not regions or area == 0:
        return rgb[view]
    object_size = math.sqrt(area)
    frame = rgb[view].clone()
    for region in regions:
        centre = _object_pixel(inside, float(region.places[view]), area)
        rows, columns, blob = _blob(region, view, centre, object_size, inside)
        kind = MASK_KINDS[int(region.kinds[view])]
        if kind == "removed":
            content = torch.ones_like(frame[:, rows, columns])
        elif kind == "displaced":
            shift = (region.displacements[view] * object_size).round().int().tolist()
            content = _shifted(rgb[view], rows, columns, shift)
        else:
            other = (view + int(region.frame_offsets[view])) % len(rgb)
            content = rgb[other][:, rows, columns]
        frame[:, rows, columns] = torch.where(blob, content, frame[:, rows, columns])
    return frame


def _object_pixel(inside: Tensor, place: float, area: int) -> tuple[int, int]:
    """Row and column of the object's pixel number `place * area`, counted along the rows."""
    number = min(int(place * area), area - 1)
    ends = inside.sum(dim=1).cumsum(0)
    row = int(torch.searchsorted(ends, number, right=True))
    before = int(ends[row - 1]) if row else 0
    column = int(inside[row].nonzero()[number - before])
    return row, column


def _blob(
    region: RegionDraws, view: int, centre: tuple[int, int], object_size: float, inside: Tensor
) -> tuple[slice, slice, Tensor]:
    """The rows and columns around a blob, and its mask inside the object there."""
    radius = max(0.5, 0.5 * float(region.diameters[view]) * object_size)
    amplitudes, phases = region.amplitudes[view], region.phases[view]
    reach = math.ceil(radius * (1 + float(amplitudes.sum())))
    height, width = inside.shape
    rows = slice(max(0, centre[0] - reach), min(height, centre[0] + reach + 1))
    columns = slice(max(0, centre[1] - reach), min(width, centre[1] + reach + 1))
    y = torch.arange(rows.start, rows.stop, device=inside.device)[:, None] - centre[0]
    x = torch.arange(columns.start, columns.stop, device=inside.device)[None] - centre[1]
    angle = torch.atan2(y, x)
    outline = torch.ones_like(angle)
    for wave, amplitude, phase in zip(HARMONICS, amplitudes.tolist(), phases.tolist(), strict=True):
        outline += amplitude * torch.cos(wave * angle + phase)
    blob = (x**2 + y**2).sqrt() <= radius * outline
    return rows, columns, blob & inside[rows, columns]


def _shifted(frame: Tensor, rows: slice, columns: slice, shift: list[int]) -> Tensor:
    """The content [3, h, w] that lies `shift` (x, y) px away; edge pixels are repeated."""
    height, width = frame.shape[-2:]
    y = (torch.arange(rows.start, rows.stop) + shift[1]).clamp(0, height - 1).to(frame.device)
    x = (torch.arange(columns.start, columns.stop) + shift[0]).clamp(0, width - 1).to(frame.device)
    return frame[:, y][:, :, x]
