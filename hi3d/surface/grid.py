"""Signed distance and color on a trilinear grid.

`GridField` is the dense value that fitting starts from and returns. `ActiveGrid` holds the vertices
near the surface as parameters, so that a step costs what the surface needs and not what the volume
would.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

# Offsets of a cell's corners along x, y, z; corner 4 * dx + 2 * dy + dz.
CORNERS = [(dx, dy, dz) for dx in (0, 1) for dy in (0, 1) for dz in (0, 1)]

BENDING_REACH = 3
"""Vertices between the middle and the ends of the wide stencil."""


@dataclass(frozen=True)
class GridField:
    """A field sampled at R^3 grid vertices, trilinear between them."""

    sdf: Tensor  # [R, R, R]
    """Signed distance in world units, negative inside, indexed x, y, z."""
    rgb_logits: Tensor  # [R, R, R, 3]
    """Color before the sigmoid."""
    half_extent: float
    """The vertices span [-half_extent, half_extent] in each axis, ends included."""

    def __post_init__(self) -> None:
        resolution = self.sdf.shape[0]
        if self.sdf.shape != (resolution,) * 3 or resolution < 2:
            raise ValueError(f"sdf must be [R, R, R] with R >= 2, got {tuple(self.sdf.shape)}")
        if self.rgb_logits.shape != (*self.sdf.shape, 3):
            raise ValueError(f"rgb_logits must be [R, R, R, 3], got {tuple(self.rgb_logits.shape)}")

    @property
    def resolution(self) -> int:
        """Vertices a side."""
        return self.sdf.shape[0]

    @property
    def voxel_size(self) -> float:
        """Distance between neighboring vertices, in world units."""
        return 2 * self.half_extent / (self.resolution - 1)

    def query(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """The field at points; outside the grid the nearest value on its boundary.

        Args:
            points: [..., 3] world positions.

        Returns:
            sdf [...], rgb [..., 3] in [0, 1].
        """
        corners, weights = trilinear_corners(points, self.resolution, self.half_extent)
        sdf = (self.sdf.flatten()[corners] * weights).sum(-1)
        logits = (self.rgb_logits.reshape(-1, 3)[corners] * weights[..., None]).sum(-2)
        return sdf, torch.sigmoid(logits)

    def resampled(self, resolution: int) -> "GridField":
        """The same field on a grid of another resolution, trilinear."""
        channels = torch.cat([self.sdf[None], self.rgb_logits.permute(3, 0, 1, 2)])
        channels = nn.functional.interpolate(
            channels[None], size=(resolution,) * 3, mode="trilinear", align_corners=True
        )[0]
        return replace(
            self, sdf=channels[0], rgb_logits=channels[1:].permute(1, 2, 3, 0).contiguous()
        )

    def to(self, device: torch.device | str) -> "GridField":
        """The same field on `device`."""
        return replace(self, sdf=self.sdf.to(device), rgb_logits=self.rgb_logits.to(device))


class ActiveGrid(nn.Module):
    """The vertices of a set of cells of a `GridField`, as parameters.

    Rays are sampled in active cells only; elsewhere the field keeps its values.
    """

    vertex_index: Tensor
    """[R, R, R] int32: row of a vertex in the parameters, -1 where it is not active."""
    cell_active: Tensor
    """[R-1, R-1, R-1] uint8."""
    interior: Tensor
    """[I] int64: flat indices of the vertices whose six neighbors are all active."""
    bounds: Tensor
    """[2, 3] lowest and highest corner of the active cells, in world units."""

    def __init__(self, field: GridField, cell_active: Tensor):
        """Args:
        field: gives the values.
        cell_active: [R-1, R-1, R-1] bool, not empty.
        """
        super().__init__()
        resolution = field.resolution
        if cell_active.shape != (resolution - 1,) * 3 or not cell_active.any():
            raise ValueError("cell_active must be [R-1, R-1, R-1] with at least one active cell")
        self.field = field
        device = field.sdf.device
        active = torch.zeros((resolution,) * 3, dtype=torch.bool, device=device)
        for dx, dy, dz in CORNERS:
            shifted = active[dx : dx + resolution - 1, dy : dy + resolution - 1]
            shifted[:, :, dz : dz + resolution - 1] |= cell_active
        self.active = active
        vertex_index = torch.full(active.shape, -1, dtype=torch.int32, device=device)
        num_active = int(active.sum())
        vertex_index[active] = torch.arange(num_active, dtype=torch.int32, device=device)
        interior = active.clone()
        for axis in range(3):
            for end in (0, -1):
                interior.select(axis, end).fill_(False)
            interior &= active.roll(1, axis) & active.roll(-1, axis)
        cells = cell_active.nonzero()
        corners = torch.stack([cells.min(0).values, cells.max(0).values + 1])
        self.register_buffer("vertex_index", vertex_index)
        self.register_buffer("cell_active", cell_active.to(torch.uint8).contiguous())
        self.register_buffer("interior", interior.flatten().nonzero()[:, 0])
        self.register_buffer("bounds", corners * field.voxel_size - field.half_extent)
        self.sdf = nn.Parameter(field.sdf[active].clone())  # [A]
        self.rgb_logits = nn.Parameter(field.rgb_logits[active].clone())  # [A, 3]

    @property
    def resolution(self) -> int:
        """Vertices a side of the whole grid."""
        return self.field.resolution

    @property
    def half_extent(self) -> float:
        """The whole grid spans [-half_extent, half_extent]."""
        return self.field.half_extent

    @property
    def voxel_size(self) -> float:
        """Distance between neighboring vertices, in world units."""
        return self.field.voxel_size

    def contains(self, points: Tensor) -> Tensor:
        """Which points lie in active cells. [..., 3] -> [...] bool"""
        cells = ((points + self.half_extent) / self.voxel_size).floor().long()
        last = self.resolution - 2
        inside = ((cells >= 0) & (cells <= last)).all(-1)
        x, y, z = cells.clamp(0, last).unbind(-1)
        return inside & self.cell_active[x, y, z].bool()

    def query(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Differentiable field at points of active cells.

        Args:
            points: [N, 3], each in an active cell.

        Returns:
            sdf [N], rgb [N, 3].
        """
        corners, weights = trilinear_corners(points, self.resolution, self.half_extent)
        rows = self.vertex_index.flatten()[corners]
        sdf = (self.sdf[rows] * weights).sum(-1)
        logits = (self.rgb_logits[rows] * weights[..., None]).sum(-2)
        return sdf, torch.sigmoid(logits)

    def stencil(self, vertices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Finite differences at interior vertices.

        Args:
            vertices: [N] flat indices taken from `interior`.

        Returns:
            gradients [N, 3] of the SDF by central differences; laplacians [N] of the SDF in voxels
            and [N, 3] of the color logits: mean of the six neighbors minus the vertex.
        """
        index, R = self.vertex_index.flatten(), self.resolution
        center = index[vertices]
        before = torch.stack([index[vertices - step] for step in (R * R, R, 1)], dim=-1)
        after = torch.stack([index[vertices + step] for step in (R * R, R, 1)], dim=-1)
        gradients = (self.sdf[after] - self.sdf[before]) / (2 * self.voxel_size)
        around = torch.cat([before, after], dim=-1)
        sdf_laplacians = (self.sdf[around].mean(-1) - self.sdf[center]) / self.voxel_size
        rgb_laplacians = self.rgb_logits[around].mean(-2) - self.rgb_logits[center]
        return gradients, sdf_laplacians, rgb_laplacians

    def wide_laplacians(self, vertices: Tensor, reach: int = BENDING_REACH) -> Tensor:
        """Mean of the SDF `reach` vertices away along the axes minus that at the vertex, in voxels.

        Args:
            vertices: [N] flat indices taken from `interior`.
            reach: in vertices.

        Returns:
            [N]; 0 where one of the six is not active.
        """
        R = self.resolution
        strides = torch.tensor([R * R, R, 1], device=vertices.device)
        place = vertices[:, None] // strides % R
        within = ((place >= reach) & (place < R - reach)).all(1)
        offsets = reach * torch.cat([-strides, strides])
        index = self.vertex_index.flatten()
        rows = index[torch.where(within, vertices, 0)[:, None] + offsets * within[:, None]]
        known = within & (rows >= 0).all(1)
        around = self.sdf[rows.clamp_min(0)].mean(-1)
        laplacians = (around - self.sdf[index[vertices]]) / self.voxel_size
        return torch.where(known, laplacians, 0.0)

    @torch.no_grad()
    def to_field(self) -> GridField:
        """The dense field with the current values of the active vertices."""
        sdf, rgb_logits = self.field.sdf.clone(), self.field.rgb_logits.clone()
        sdf[self.active], rgb_logits[self.active] = self.sdf, self.rgb_logits
        return replace(self.field, sdf=sdf, rgb_logits=rgb_logits)


def trilinear_corners(points: Tensor, resolution: int, half_extent: float) -> tuple[Tensor, Tensor]:
    """Flat indices and weights of the eight vertices around each point.

    Args:
        points: [..., 3] world positions, clamped to the grid.
        resolution: R vertices a side.
        half_extent: the vertices span [-half_extent, half_extent].

    Returns:
        corners [..., 8] int64 into the flattened [R, R, R] grid, weights [..., 8].
    """
    position = (points + half_extent) * ((resolution - 1) / (2 * half_extent))
    position = position.clamp(0, resolution - 1)
    cell = position.floor().clamp_max(resolution - 2)
    fraction = position - cell
    base = (cell[..., 0] * resolution + cell[..., 1]) * resolution + cell[..., 2]
    offsets = torch.tensor(CORNERS, device=points.device)  # [8, 3]
    steps = offsets @ torch.tensor([resolution**2, resolution, 1], device=points.device)
    corners = base.long()[..., None] + steps
    fraction = fraction[..., None, :]  # [..., 1, 3]
    weights = torch.where(offsets.bool(), fraction, 1 - fraction).prod(-1)
    return corners, weights


def surface_cells(sdf: Tensor, dilation: int) -> Tensor:
    """Cells that the zero level set crosses, with their neighbors up to `dilation` cells away.

    Args:
        sdf: [R, R, R].
        dilation: in cells.

    Returns:
        [R-1, R-1, R-1] bool.
    """
    negative = sdf < 0
    some = every = negative
    for axis in range(3):  # over the eight corners of each cell
        length = sdf.shape[axis] - 1
        some = some.narrow(axis, 0, length) | some.narrow(axis, 1, length)
        every = every.narrow(axis, 0, length) & every.narrow(axis, 1, length)
    return dilated(some & ~every, dilation)


def dilated(cells: Tensor, steps: int) -> Tensor:
    """Cells with their neighbors, diagonal ones too, up to `steps` cells away. [D, H, W] bool"""
    for axis in range(3):
        for _ in range(steps):
            grown = cells.clone()
            length = cells.shape[axis] - 1
            grown.narrow(axis, 0, length).logical_or_(cells.narrow(axis, 1, length))
            grown.narrow(axis, 1, length).logical_or_(cells.narrow(axis, 0, length))
            cells = grown
    return cells
