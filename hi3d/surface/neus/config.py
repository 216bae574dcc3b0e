"""Settings of the NeuS fit."""

import dataclasses
from dataclasses import dataclass
from enum import Enum

from hi3d.surface.neus.networks import FieldKind, NetworkConfig


class Backend(Enum):
    """Which code computes a step."""

    auto = "auto"
    """native on a CPU with a C compiler, else torch."""
    native = "native"
    torch = "torch"


@dataclass(frozen=True)
class LossWeights:
    """What each loss of a step is multiplied with; that of colours has 1."""

    mask: float
    eikonal: float
    curvature: float
    bending: float
    color_smoothness: float


@dataclass
class NeusConfig:
    """Settings of `fit_neus`. The defaults take 31 CPU seconds on views of 256², on average."""

    field: FieldKind = FieldKind.grid
    """What is fitted. The settings from `rays_per_step` on, but for `lambda_mask` and those of
    `inv_s`, are the grid's; the networks have theirs in `network` and need thousands of steps."""
    steps: int = 2200
    rays_per_step: int = 4096
    image_resolution: int = 256
    """Larger images are averaged down to this height: finer pixels than voxels only add noise."""
    half_extent: float = 0.55
    """The grid spans [-half_extent, half_extent]; the object's longest side is 1."""
    resolutions: list[int] = dataclasses.field(default_factory=lambda: [32, 64, 128])
    """Grid vertices a side, coarse to fine."""
    resolution_starts: list[float] = dataclasses.field(default_factory=lambda: [0.0, 0.45, 0.65])
    """Share of the steps at which each resolution starts."""
    surface_band: int = 4
    """From the second resolution on, cells this far from the surface are active."""
    step_voxels: float = 0.6
    """Distance between the samples of a ray, in voxels."""
    hull_tolerance: int = 0
    """How many views may show background at a point of the initial hull."""

    inv_s_init: float = 60.0
    """Initial value of the learned sharpness `inv_s`, per unit length."""
    inv_s_floor: float = 800.0
    """Learned `inv_s` is kept above a schedule from `inv_s_init` to this; 0 = learned alone."""

    lr_sdf: float = 1.0
    """Adam step of the SDF in voxels of the present resolution, decayed tenfold over the fit."""
    lr_rgb: float = 0.2
    """Adam step of the colour logits, decayed likewise."""
    lr_inv_s: float = 1e-3
    """Adam step of `log(inv_s) / 10`."""

    lambda_mask: float = 0.3
    lambda_eikonal: float = 0.005
    lambda_curvature: list[float] = dataclasses.field(default_factory=lambda: [0.003, 0.03])
    """First and last value. Between them it changes exponentially."""
    lambda_bending: list[float] = dataclasses.field(default_factory=lambda: [0.01, 0.003])
    """Of curvature over three voxels to each side, first and last: against dents in textureless
    panels. Too much of it at first keeps cavities closed."""
    lambda_color_smoothness: list[float] = dataclasses.field(default_factory=lambda: [1.0, 0.003])
    """First and last. Where colours cannot vary much, the shape has to explain the images: cavities
    open up that a painted lid would hide."""
    regularized_vertices: int = 32768
    """Random vertices at which a step evaluates the regularisers."""
    backend: Backend = Backend.auto
    network: NetworkConfig = dataclasses.field(default_factory=NetworkConfig)

    def loss_weights(self, progress: float) -> LossWeights:
        """The weights at a share `progress` of the steps."""
        return LossWeights(
            self.lambda_mask,
            self.lambda_eikonal,
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
