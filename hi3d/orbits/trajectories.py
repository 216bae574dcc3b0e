"""Which orbits an object gets: elevations and start azimuths, fixed or drawn (Section 4.2).

A draw is a hash of the seed, the object's uid and the orbit, so it depends neither on the other
objects, nor on the order they are rendered in, nor on how the work is split.
"""

import hashlib
import math
from dataclasses import dataclass
from typing import Any

from hi3d.cameras import Cameras, orbit_cameras
from hi3d.orbits.config import OrbitRenderConfig

ELEVATION_RANGE_DEG = (-10.0, 40.0)  # paper, Section 4.2


@dataclass(frozen=True)
class Stretch:
    """How an object gets other proportions, see `RenderObject.stretched`."""

    factors: tuple[float, float, float]
    """Along two horizontal directions and upwards."""
    angle_deg: float
    """Of the first of these directions, about z."""


@dataclass(frozen=True)
class Orbit:
    """One orbit of one object."""

    uid: str
    """Name of the orbit: the object's uid, with `-orbitNN` where an object has several."""
    elevation_deg: float
    """Of every view."""
    start_azimuth_deg: float
    """Of view 0."""
    stretch: Stretch | None = None
    """Of the object that it shows."""

    def cameras(self, config: OrbitRenderConfig) -> Cameras:
        """The views of the orbit."""
        return orbit_cameras(
            self.elevation_deg,
            config.resolution,
            config.num_views,
            config.distance,
            config.fov_deg,
            self.start_azimuth_deg,
        )


def object_orbits(config: OrbitRenderConfig, uid: str) -> list[Orbit]:
    """The orbits of an object.

    Args:
        config: of the run.
        uid: of the object.

    Returns:
        One orbit per number of `elevation_deg`, or `orbits_per_object` with elevations drawn from
        U[-10, 40] degrees, the second half of them stretched.
    """
    low, high = ELEVATION_RANGE_DEG
    if config.elevation_deg == "random":
        elevations = [
            low + (high - low) * uniform("elevation", config.seed, uid, k)
            for k in range(config.orbits_per_object)
        ]
    elif isinstance(config.elevation_deg, list):
        elevations = [float(number) for number in config.elevation_deg]
    else:
        elevations = [float(config.elevation_deg)]
    orbits = []
    for k, elevation_deg in enumerate(elevations):
        start = config.start_azimuth_deg
        if isinstance(start, str):
            start = 360 * uniform("start azimuth", config.seed, uid, k)
        name = uid if len(elevations) == 1 else f"{uid}-orbit{k:02d}"
        stretch = None
        if config.stretch and k >= (len(elevations) + 1) // 2:
            stretch = drawn_stretch(config.stretch, config.seed, uid, k)
        orbits.append(Orbit(name, elevation_deg, float(start), stretch))
    return orbits


def drawn_stretch(limit: float, *key: Any) -> Stretch:
    """Factors from exp(U(-limit, limit)), along the object's axes in half of the draws."""
    x, y, z = (math.exp(limit * (2 * uniform(f"stretch {axis}", *key) - 1)) for axis in "xyz")
    turned = 2 * uniform("stretch angle", *key) - 1
    return Stretch((x, y, z), 90 * max(turned, 0.0))


def in_part(uid: str, part: int, num_parts: int) -> bool:
    """Whether part `part` of `num_parts` renders the object: a fixed split by hash of the uid."""
    return int(num_parts * uniform("part", uid)) == part


def uniform(*key: Any) -> float:
    """A number in [0, 1) that is a stable hash of the key."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
