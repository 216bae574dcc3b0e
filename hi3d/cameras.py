"""Cameras of the orbit (paper, Section 4.2) and of the interpolated views (Section 4.4).

OpenCV cameras (x right, y down, z forward), world z up, right-handed; pixel centers lie at +0.5.
The object is centered at the origin and its longest bounding-box side is 1.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hi3d.errors import InputError

NUM_ORBIT_VIEWS = 16
ORBIT_DISTANCE = 1.5  # paper, Section 4.2: r = 1.5
FOV_DEG = math.degrees(2 * math.atan(16 / 35))  # 49.134 deg: 35 mm lens on a 32 mm sensor
MAX_COORDINATE = 1e5  # of a camera; float32 leaves a hundredth of a unit there
ROTATION_TOLERANCE = 5e-3  # of rotations written with three digits
MIN_DEPTH = 1e-6  # nearer points, and those behind a camera, are not in its image


@dataclass(frozen=True)
class Cameras:
    """V pinhole cameras that share one image size."""

    viewmats: Tensor  # [V, 4, 4]
    """World-to-camera, OpenCV axes."""
    Ks: Tensor  # [V, 3, 3]
    """Intrinsics in pixels."""
    width: int
    """Image width in pixels."""
    height: int
    """Image height in pixels."""

    def __post_init__(self) -> None:
        num_views = self.viewmats.shape[0]
        if self.viewmats.shape != (num_views, 4, 4):
            raise ValueError(f"viewmats must be [V, 4, 4], got {tuple(self.viewmats.shape)}")
        if self.Ks.shape != (num_views, 3, 3):
            raise ValueError(f"Ks must be [{num_views}, 3, 3], got {tuple(self.Ks.shape)}")
        if self.width <= 0 or self.height <= 0:
            raise ValueError(f"image size must be positive, got {self.width}x{self.height}")

    def __len__(self) -> int:
        return self.viewmats.shape[0]

    def __getitem__(self, index: int | slice | list[int] | Tensor) -> "Cameras":
        """Select cameras; an int gives a single-camera `Cameras`."""
        if isinstance(index, int):
            index = [index]
        return replace(self, viewmats=self.viewmats[index], Ks=self.Ks[index])

    @property
    def camtoworlds(self) -> Tensor:
        """Camera-to-world matrices. [V, 4, 4]"""
        rotations = self.viewmats[:, :3, :3].transpose(1, 2)
        camtoworlds = torch.eye(4).to(self.viewmats).repeat(len(self), 1, 1)
        camtoworlds[:, :3, :3] = rotations
        camtoworlds[:, :3, 3:] = -rotations @ self.viewmats[:, :3, 3:]
        return camtoworlds

    @property
    def positions(self) -> Tensor:
        """Camera centers in the world. [V, 3]"""
        return self.camtoworlds[:, :3, 3]

    @property
    def azimuth_deg(self) -> Tensor:
        """Azimuth of each camera center in [0, 360) degrees. [V]"""
        x, y, _ = self.positions.unbind(-1)
        return torch.rad2deg(torch.atan2(y, x)) % 360

    @property
    def elevation_deg(self) -> Tensor:
        """Elevation of each camera center above the horizon in degrees. [V]"""
        position = self.positions
        return torch.rad2deg(torch.asin(position[:, 2] / position.norm(dim=-1)))

    def to(self, device: torch.device | str) -> "Cameras":
        """The same cameras on `device`."""
        return replace(self, viewmats=self.viewmats.to(device), Ks=self.Ks.to(device))

    def resized(self, width: int, height: int) -> "Cameras":
        """The same cameras for images of another size: intrinsics scale with the image."""
        scale = torch.tensor([width / self.width, height / self.height, 1.0]).to(self.Ks)
        return replace(self, Ks=self.Ks * scale[:, None], width=width, height=height)

    def rays(self, view: int) -> tuple[Tensor, Tensor]:
        """Rays through the pixel centers of one view.

        Returns:
            origins: [H, W, 3]
            directions: [H, W, 3], unit length
        """
        K, camtoworld = self.Ks[view], self.camtoworlds[view]
        y, x = torch.meshgrid(
            torch.arange(self.height).to(K) + 0.5,
            torch.arange(self.width).to(K) + 0.5,
            indexing="ij",
        )
        pixels = torch.stack([x, y, torch.ones_like(x)], dim=-1)
        directions = pixels @ torch.linalg.inv(K).T @ camtoworld[:3, :3].T
        directions = torch.nn.functional.normalize(directions, dim=-1)
        return camtoworld[:3, 3].expand_as(directions), directions

    def project(self, points: Tensor, view: int) -> tuple[Tensor, Tensor, Tensor]:
        """Where one view has points of the world.

        Args:
            points: [N, 3]
            view: number of the view.

        Returns:
            pixels: [N, 2] x and y in the image; pixel centers lie at +0.5
            depths: [N] along the camera's z axis
            framed: [N] bool, whether the point lies before the camera and within the image
        """
        local = points @ self.viewmats[view, :3, :3].T + self.viewmats[view, :3, 3]
        depths = local[:, 2]
        pixels = (local @ self.Ks[view].T)[:, :2] / depths.clamp_min(MIN_DEPTH)[:, None]
        size = pixels.new_tensor([self.width, self.height])
        framed = (depths > MIN_DEPTH) & ((pixels >= 0) & (pixels < size)).all(1)
        return pixels, depths, framed


def concatenate_cameras(first: Cameras, second: Cameras) -> Cameras:
    """The cameras of `first` followed by those of `second`, which have the same image size."""
    if (first.width, first.height) != (second.width, second.height):
        raise ValueError("cameras of different image sizes cannot be joined: use resized() first")
    return replace(
        first,
        viewmats=torch.cat([first.viewmats, second.viewmats]),
        Ks=torch.cat([first.Ks, second.Ks]),
    )


def look_at_origin(positions: Tensor) -> Tensor:
    """World-to-camera matrices of cameras that look at the origin with world z up.

    Args:
        positions: [V, 3] camera centers, not on the z axis.

    Returns:
        viewmats [V, 4, 4], OpenCV axes.

    Raises:
        ValueError: a camera lies on the z axis, where "up" has no direction.
    """
    forward = torch.nn.functional.normalize(-positions, dim=-1)
    up = torch.tensor([0.0, 0.0, 1.0]).to(positions).expand_as(positions)
    right = torch.linalg.cross(forward, up)
    if (right.norm(dim=-1) < 1e-6).any():
        raise ValueError("a camera on the z axis has no upward direction: use |elevation| < 90 deg")
    right = torch.nn.functional.normalize(right, dim=-1)
    down = torch.linalg.cross(forward, right)
    rotations = torch.stack([right, down, forward], dim=1)
    viewmats = torch.eye(4).to(positions).repeat(len(positions), 1, 1)
    viewmats[:, :3, :3] = rotations
    viewmats[:, :3, 3:] = -rotations @ positions[:, :, None]
    return viewmats


def pinhole_intrinsics(fov_deg: float, width: int, height: int) -> Tensor:
    """Intrinsics with the principal point in the middle and a vertical field of view in degrees.

    Returns:
        K [3, 3] in pixels.
    """
    focal = 0.5 * height / math.tan(math.radians(fov_deg) / 2)
    return torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])


def cameras_at(
    azimuth_deg: Tensor,  # [V]
    elevation_deg: Tensor,  # [V]
    resolution: int,
    distance: float = ORBIT_DISTANCE,
    fov_deg: float = FOV_DEG,
) -> Cameras:
    """Square cameras on a sphere around the origin, looking at it.

    The center is at `distance * (cos a cos e, sin a cos e, sin e)`.

    Args:
        azimuth_deg: [V] azimuths in degrees.
        elevation_deg: [V] elevations in (-90, 90) degrees.
        resolution: image side in pixels.
        distance: from the origin, in units of the object's longest side.
        fov_deg: vertical field of view in degrees.
    """
    azimuth, elevation = torch.deg2rad(azimuth_deg), torch.deg2rad(elevation_deg)
    positions = distance * torch.stack(
        [azimuth.cos() * elevation.cos(), azimuth.sin() * elevation.cos(), elevation.sin()], dim=-1
    )
    K = pinhole_intrinsics(fov_deg, resolution, resolution)
    return Cameras(
        look_at_origin(positions), K.repeat(len(positions), 1, 1), resolution, resolution
    )


def orbit_cameras(
    elevation_deg: float,
    resolution: int,
    num_views: int = NUM_ORBIT_VIEWS,
    distance: float = ORBIT_DISTANCE,
    fov_deg: float = FOV_DEG,
    start_azimuth_deg: float = 0.0,
) -> Cameras:
    """The paper's orbit: one elevation, azimuths spaced evenly over 360 degrees (Section 4.2).

    View 0 is the reference image. With the defaults the azimuths are 22.5 degrees apart.
    """
    azimuth_deg = start_azimuth_deg + torch.arange(num_views) * (360 / num_views)
    return cameras_at(
        azimuth_deg, torch.full((num_views,), float(elevation_deg)), resolution, distance, fov_deg
    )


def between_views(cameras: Cameras, num_views: int) -> Cameras:
    """The M interpolated views (Section 4.4): between neighboring views of a closed orbit.

    The views' azimuths are taken in increasing order; `num_views` new ones are spread evenly over
    the gaps (M = 16: one in the middle of each of 16 gaps, M = 32: two at the thirds, ...).
    Elevation and distance are interpolated along the gap.

    Args:
        cameras: V >= 2 square cameras that look at the origin, at distinct azimuths.
        num_views: M >= 0.

    Returns:
        M cameras; where M is no multiple of V, some evenly spread gaps hold one more.

    Raises:
        ValueError: `num_views` is negative, or there are fewer than 2 cameras.
    """
    num_gaps = len(cameras)
    if num_views < 0 or num_gaps < 2:
        raise ValueError(f"need M >= 0 and at least 2 cameras, got M={num_views}, V={num_gaps}")
    order = torch.argsort(cameras.azimuth_deg)
    azimuth, elevation = cameras.azimuth_deg[order], cameras.elevation_deg[order]
    distance = cameras.positions.norm(dim=-1)[order]
    # The number of views in gap g is the number of evenly spread marks that fall into it.
    counts = [(g + 1) * num_views // num_gaps - g * num_views // num_gaps for g in range(num_gaps)]
    positions = []
    for gap, count in enumerate(counts):
        following = (gap + 1) % num_gaps
        step = (azimuth[following] - azimuth[gap]) % 360
        for k in range(count):
            t = (k + 1) / (count + 1)
            a = torch.deg2rad(azimuth[gap] + t * step)
            e = torch.deg2rad(torch.lerp(elevation[gap], elevation[following], t))
            r = torch.lerp(distance[gap], distance[following], t)
            positions.append(r * torch.stack([a.cos() * e.cos(), a.sin() * e.cos(), e.sin()]))
    if not positions:
        return cameras[torch.arange(0)]
    viewmats = look_at_origin(torch.stack(positions))
    Ks = cameras.Ks[:1].repeat(num_views, 1, 1)
    return replace(cameras, viewmats=viewmats, Ks=Ks)


def check_cameras(cameras: Cameras, source: str) -> None:
    """Raise where a camera cannot be one, before anything is computed with it.

    Args:
        cameras: V cameras.
        source: the file they come from, for the message.

    Raises:
        InputError: a matrix holds numbers that are not finite or huge, is transposed, scaled, skew
            or mirrored, or intrinsics do not fit the images.
    """
    for view, (viewmat, K) in enumerate(zip(cameras.viewmats.cpu(), cameras.Ks.cpu(), strict=True)):
        fault = _viewmat_fault(viewmat) or _intrinsics_fault(K, cameras.width, cameras.height)
        if fault:
            raise InputError(f"{source}: camera {view}: {fault}")


def _viewmat_fault(viewmat: Tensor) -> str | None:
    """What is wrong with a world-to-camera matrix [4, 4]."""
    if not torch.isfinite(viewmat).all():
        return "viewmat holds numbers that are not finite: correct it"
    if not torch.allclose(viewmat[3], torch.tensor([0.0, 0, 0, 1]), atol=1e-4):
        return "the last row of viewmat is not 0 0 0 1: write matrices for column vectors"
    rotation = viewmat[:3, :3]
    if (rotation @ rotation.T - torch.eye(3)).abs().max() > ROTATION_TOLERANCE:
        return "viewmat's rotation is not orthonormal: divide its rows by their length"
    if torch.linalg.det(rotation) < 0:
        return "viewmat mirrors: give right-handed axes, x right, y down, z forward"
    if viewmat[:3, 3].abs().max() > MAX_COORDINATE:
        return f"viewmat's translation exceeds {MAX_COORDINATE:g}: move the world to the object"
    return None


def _intrinsics_fault(K: Tensor, width: int, height: int) -> str | None:
    """What is wrong with intrinsics [3, 3] of an image."""
    if not torch.isfinite(K).all():
        return "K holds numbers that are not finite: correct it"
    (fx, _, cx), (below, fy, cy), last = K.tolist()
    if not torch.allclose(K[2], torch.tensor([0.0, 0, 1]), atol=1e-4) or abs(below) > 1e-3:
        return f"K ends in {last}: write K as [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]"
    if min(fx, fy) <= 0 or max(fx / width, fy / height) > 1e3:
        return f"K's focal lengths {fx:g}, {fy:g} are no pixels of {width}x{height} images"
    if not (0 <= cx <= width and 0 <= cy <= height):
        return (
            f"the principal point ({cx:g}, {cy:g}) lies outside the {width}x{height} image: "
            "scale K to the images' size"
        )
    return None
