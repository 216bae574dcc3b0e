"""Chamfer distance and volume as SyncDreamer's evaluation has them: points that cameras see.

Its script rasterizes the mesh at the 16 cameras of elevation 30 degrees, takes every covered pixel
back into the world, and keeps one point per voxel. What no camera sees does not count.
"""

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from hi3d.cameras import Cameras, orbit_cameras
from hi3d.errors import InputError
from hi3d.mesh import SurfaceMesh
from hi3d.surface.ray_casting import RayCaster

ELEVATION_DEG, SIZE = 30.0, 256
VOXEL = 0.01
"""World units: the object's longest side is 1."""
NEAREST, FARTHEST, LEVELS = 0.6, 2.4, 65535
"""Of the truth's depth images."""
VALID = (0.63, 2.37)
"""Depths outside count as empty."""


def syncdreamer_cameras() -> Cameras:
    """The 16 cameras of the protocol: elevation 30 degrees, distance 1.5, 256 x 256 pixels."""
    return orbit_cameras(ELEVATION_DEG, SIZE)


def depth_points(mesh: SurfaceMesh, cameras: Cameras, rendered: bool = False) -> Tensor:
    """Surface points behind the pixels of all cameras, as the protocol's script takes them back.

    Its habits are kept, since they move the numbers. A pixel is taken back through its corner, not
    its center. Depth of a prediction is interpolated linearly across the image of a triangle, not
    in perspective (vertices are projected before they reach the rasterizer); that of the truth is
    read from 16-bit images of a correct renderer.

    Args:
        mesh: in the coordinates of the cameras.
        cameras: of V views.
        rendered: depth as in the truth's images: in perspective, rounded to 16 bits, and counted
            between 0.63 and 2.37.

    Returns:
        [N, 3] float32, on the CPU.

    Raises:
        InputError: no camera sees the mesh.
    """
    caster, cameras = RayCaster(mesh.vertices, mesh.faces), cameras.to("cpu")
    vertices, faces = mesh.vertices.detach().cpu().float(), mesh.faces.cpu()
    points = []
    for view in range(len(cameras)):
        origins, directions = (ray.reshape(-1, 3) for ray in cameras.rays(view))
        places, vertex_depths, _ = cameras.project(vertices, view)
        around = pixels_around(places, vertex_depths, cameras.height, cameras.width)
        face, barycentric = caster.hits(origins[around], directions[around])
        hit = torch.nonzero(face >= 0)[:, 0]
        pixels, depths = around[hit], vertex_depths[faces[face[hit]]]
        weighted = barycentric[hit] * depths
        depth = weighted.sum(1)  # in perspective; the mean weighted by depth is linear in the image
        if rendered:
            depth = (depth - NEAREST).div(FARTHEST - NEAREST).clamp(0, 1).mul(LEVELS).round()
            depth = depth / LEVELS * (FARTHEST - NEAREST) + NEAREST
            valid = (depth > VALID[0]) & (depth < VALID[1])
            pixels, depth = pixels[valid], depth[valid]
        else:
            depth = (weighted * depths).sum(1) / depth
        corner = torch.stack([pixels % cameras.width, pixels // cameras.width], 1).float()
        local = torch.cat([corner, torch.ones(len(pixels), 1)], 1) * depth[:, None]
        local = local @ torch.linalg.inv(cameras.Ks[view]).T
        camtoworld = cameras.camtoworlds[view]
        points.append(local @ camtoworld[:3, :3].T + camtoworld[:3, 3])
    seen = torch.cat(points)
    if len(seen) == 0:
        raise InputError("no camera sees the mesh: check that mesh and cameras belong together")
    return seen


def pixels_around(places: Tensor, depths: Tensor, height: int, width: int) -> Tensor:
    """Pixels in the box around what is projected; all where something is not before the camera.

    Args:
        places: [N, 2] x and y of vertices in pixels.
        depths: [N] along the camera's z axis.
        height: of the image.
        width: the same.

    Returns:
        [P] int64, row times width plus column.
    """
    numbers = torch.arange(height * width).view(height, width)
    if not (depths > 1e-3).all():
        return numbers.reshape(-1)
    size = torch.tensor([width, height])
    left, top = (places.amin(0).floor().long() - 1).clamp_min(0).minimum(size).tolist()
    right, bottom = (places.amax(0).ceil().long() + 1).clamp_min(0).minimum(size).tolist()
    return numbers[top:bottom, left:right].reshape(-1)


def one_per_voxel(points: Tensor, voxel: float = VOXEL) -> Tensor:
    """The mean of the points in each cell of a grid, as Open3D's downsampling gives it.

    Args:
        points: [N, 3]
        voxel: side of a cell; the grid begins half a cell below the smallest coordinates.

    Returns:
        [M, 3] float32, in the order of the cells.
    """
    array = points.double().numpy()
    index = np.floor((array - (array.min(0) - voxel / 2)) / voxel).astype(np.int64)
    number = np.ravel_multi_index(tuple(index.T), tuple(index.max(0) + 1))
    _, cell, counts = np.unique(number, return_inverse=True, return_counts=True)
    sums = np.stack([np.bincount(cell.ravel(), array[:, axis]) for axis in range(3)], axis=1)
    return torch.from_numpy(sums / counts[:, None]).float()


def depth_chamfer(pred: Tensor, gt: Tensor) -> float:
    """Half the sum of the mean distances between point sets, unsquared.

    Args:
        pred: [N, 3]
        gt: [M, 3]
    """
    there = cKDTree(gt.numpy()).query(pred.numpy(), workers=-1)[0].mean()
    back = cKDTree(pred.numpy()).query(gt.numpy(), workers=-1)[0].mean()
    return float(there + back) / 2


def inside_at_corners(mesh: SurfaceMesh, resolution: int = 64) -> np.ndarray:
    """Which points -1 + 2 i / R of a grid over [-1, 1)^3 lie inside, where mesh2sdf samples.

    The winding number tells, so that orientation does not matter and open meshes have an inside.

    Args:
        mesh: any triangles.
        resolution: R points along each side.

    Returns:
        [R, R, R] bool, indexed x, y, z.
    """
    import igl

    axis = -1 + 2 * np.arange(resolution) / resolution
    vertices = mesh.vertices.detach().cpu().double().numpy()
    faces = np.ascontiguousarray(mesh.faces.cpu().long().numpy())
    used = vertices[faces.ravel()]
    inside = np.zeros((resolution,) * 3, dtype=bool)
    ranges = [
        np.flatnonzero((axis >= used[:, k].min()) & (axis <= used[:, k].max())) for k in range(3)
    ]
    block = np.ix_(*ranges)
    if inside[block].size:
        grid = np.stack(np.meshgrid(*(axis[r] for r in ranges), indexing="ij"), axis=-1)
        winding = igl.fast_winding_number(
            np.ascontiguousarray(vertices), faces, np.ascontiguousarray(grid.reshape(-1, 3))
        )
        inside[block] = (np.abs(winding) > 0.5).reshape(grid.shape[:3])
    return inside
