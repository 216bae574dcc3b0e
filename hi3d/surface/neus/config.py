"""Settings of the NeuS fit."""

import dataclasses
from dataclasses import dataclass
from enum import Enum

from hi3d.config import check_number, check_numbers
from hi3d.errors import InputError
from hi3d.surface.neus.networks import FieldKind, NetworkConfig

LR_INV_S = 1e-3  # Adam step of log(inv_s) / 10
LAMBDA_MASK = 0.3  # silhouettes are exact in renders: above NeuS's 0.1
LAMBDA_EIKONAL = 0.005  # on the grid, which starts as a distance and is kept smooth otherwise
STEP_VOXELS = 0.6  # between the samples of a ray: a surface has two or more within a voxel
SURFACE_BAND = 4  # from the second resolution on, cells this far from the surface are active


class NeusBackend(Enum):
    """Which code computes a step."""

    auto = "auto"
    """native on a CPU with a C compiler, else torch."""
    native = "native"
    torch = "torch"


@dataclass(frozen=True)
class LossWeights:
    """What each loss of a step is multiplied with; that of colors has 1."""

    mask: float
    eikonal: float
    curvature: float
    bending: float
    color_smoothness: float


@dataclass
class NeusConfig:
    """Settings of `fit_neus`. The defaults take 31 CPU seconds on views of 256², on average."""

    field: FieldKind = FieldKind.grid
    """What is fitted: `grid`, from the views' hull on; `predicted`, the same from the whole object
    that stage 1 predicts (the small model's does; others: the hull); or `mlp`, from a ball on.
    `rays_per_step` and the settings from `lambda_curvature` on are the grid's; the networks have
    theirs in `network` and need thousands of steps."""
    steps: int = 2200
    """1 to 1e7."""
    rays_per_step: int = 4096
    """1 to 1e6."""
    image_resolution: int = 256
    """Larger images are averaged down to this height, 8 to 4096: finer pixels than voxels only add
    noise."""
    resolutions: list[int] = dataclasses.field(default_factory=lambda: [32, 64, 128])
    """Grid vertices a side, coarse to fine, 8 to 512."""
    resolution_starts: list[float] = dataclasses.field(default_factory=lambda: [0.0, 0.45, 0.65])
    """Share of the steps at which each resolution starts, rising from 0 to below 1."""
    hull_tolerance: int = 0
    """How many views may show background at a point of the initial hull, 0 to 1e4."""
    inv_s_floor: float = 800.0
    """The learned sharpness `inv_s`, per unit length, is kept above a schedule up to this, 0 to
    1e6; 0 = learned alone, as in the paper."""
    lambda_curvature: list[float] = dataclasses.field(default_factory=lambda: [0.003, 0.03])
    """First and last value, 0 to 1e6. Between them it changes exponentially."""
    lambda_bending: list[float] = dataclasses.field(default_factory=lambda: [0.01, 0.003])
    """Of curvature over three voxels to each side, first and last, 0 to 1e6: against dents in
    textureless panels. Too much of it at first keeps cavities closed."""
    lambda_color_smoothness: list[float] = dataclasses.field(default_factory=lambda: [1.0, 0.003])
    """First and last, 0 to 1e6. Where colors cannot vary much, the shape has to explain the
    images: cavities open up that a painted lid would hide."""
    regularized_vertices: int = 32768
    """Random vertices at which a step evaluates the regularizers, 1 to 1e7."""
    backend: NeusBackend = NeusBackend.auto
    """Which code computes a step of the grid: auto, native or torch."""
    network: NetworkConfig = dataclasses.field(default_factory=NetworkConfig)

    def __post_init__(self) -> None:
        for name, least, most in (
            ("steps", 1, 1e7), ("rays_per_step", 1, 1e6), ("image_resolution", 8, 4096),
            ("hull_tolerance", 0, 1e4), ("inv_s_floor", 0, 1e6), ("regularized_vertices", 1, 1e7),
        ):  # fmt: skip
            check_number(f"neus.{name}", getattr(self, name), least, most)
        for name in ("lambda_curvature", "lambda_bending", "lambda_color_smoothness"):
            check_numbers(f"neus.{name}", getattr(self, name), 2, 0, 1e6)
        check_numbers("neus.resolutions", self.resolutions, None, 8, 512)
        starts = self.resolution_starts
        check_numbers("neus.resolution_starts", starts, len(self.resolutions), 0, 1)
        if starts[0] != 0 or starts != sorted(starts) or starts[-1] == 1:
            raise InputError(f"neus.resolution_starts is {starts}: let it rise from 0 to below 1")

    def loss_weights(self, progress: float) -> LossWeights:
        """The weights at a share `progress` of the steps."""
        return LossWeights(
            LAMBDA_MASK,
            LAMBDA_EIKONAL,
            annealed(self.lambda_curvature, progress),
            annealed(self.lambda_bending, progress),
            annealed(self.lambda_color_smoothness, progress),
        )


def annealed(ends: list[float], progress: float) -> float:
    """From the first value to the last, exponentially; linearly if one of them is 0.

    Args:
        ends: two values, 0 or more.
        progress: in [0, 1].
    """
    first, last = ends
    if min(ends) > 0:
        return first * (last / first) ** progress
    return first + (last - first) * progress
