"""From a field to one closed, outward-oriented triangle mesh with vertex colours."""

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
import trimesh
from torch import Tensor

from hi3d.cameras import Cameras
from hi3d.errors import InputError
from hi3d.reconstruction.neus.fields import GridField
from hi3d.reconstruction.unseen_side import flatten_unseen_side
from hi3d.surface_mesh import SurfaceMesh

MIN_LEVEL_DISTANCE = 0.02
"""In voxels: grid vertices nearer to the surface are moved this far from it, so that marching cubes
makes no triangle without area."""
DECIMATION_TRIES = 4
AGGRESSIVENESS = (7, 5, 3)  # of fast_simplification: its default, and two more careful ones
TAUBIN_PASS_BAND = (0.5, 0.53)  # lambda and mu of Taubin 1995: shrink, then inflate slightly more


@dataclass
class MeshingConfig:
    """Settings of `extract_mesh`."""

    target_faces: int = 20000
    """Upper bound on the triangles, unless that would open the surface; 0 = keep all."""
    min_component_share: float = 0.02
    """Separate pieces with less than this share of the largest one's volume are dropped."""
    smoothing_iterations: int = 3
    """Taubin smoothing passes against noise of about a voxel, without shrinking; 0 = none. A
    smoother surface also decimates further without opening."""
    flatten_unseen_side: bool = True
    """Span the side that no camera sees from its visible rim; needs the cameras."""


def extract_mesh(
    field: GridField, config: MeshingConfig | None = None, cameras: Cameras | None = None
) -> SurfaceMesh:
    """The zero level set of a field as a closed mesh, coloured by the field.

    Args:
        field: sdf negative inside.
        config: settings; None = the defaults.
        cameras: of the views that the field was fitted to; without them the side that they do not
            see stays as it is.

    Returns:
        A watertight mesh with positive volume, on the field's device.

    Raises:
        InputError: the field has no surface.
    """
    config = config or MeshingConfig()
    mesh = marching_cubes(field)
    mesh = without_floaters(mesh, config.min_component_share)
    if config.smoothing_iterations > 0:
        lamb, nu = TAUBIN_PASS_BAND
        trimesh.smoothing.filter_taubin(mesh, lamb, nu, 2 * config.smoothing_iterations)
    if cameras is not None and config.flatten_unseen_side:
        mesh = flatten_unseen_side(mesh, cameras.positions.cpu().numpy())
    if config.target_faces > 0:
        mesh = decimated(mesh, config.target_faces)
    device = field.sdf.device
    vertices = torch.from_numpy(np.array(mesh.vertices, dtype=np.float32)).to(device)
    _, vertex_rgb = field.query(vertices)
    faces = torch.from_numpy(np.array(mesh.faces, dtype=np.int64)).to(device)
    return SurfaceMesh(vertices, faces, vertex_rgb.detach())


def marching_cubes(field: GridField) -> trimesh.Trimesh:
    """The zero level set as a closed mesh; what touches the grid's boundary is cut off there.

    Raises:
        InputError: the field has no surface.
    """
    from skimage.measure import marching_cubes as skimage_marching_cubes

    sdf = field.sdf.detach().cpu().float()
    if not (sdf < 0).any():
        raise InputError("the field has no inside: fit it to views that show an object")
    nearest = MIN_LEVEL_DISTANCE * field.voxel_size
    sdf = torch.where(sdf < 0, sdf.clamp_max(-nearest), sdf.clamp_min(nearest))
    padded = torch.nn.functional.pad(sdf, (1,) * 6, value=field.voxel_size)
    vertices, faces, _, _ = skimage_marching_cubes(padded.numpy(), level=0.0)
    vertices = (vertices - 1.0) * field.voxel_size - field.half_extent
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    if mesh.volume < 0:
        mesh.invert()
    return mesh


def without_floaters(mesh: trimesh.Trimesh, min_share: float) -> trimesh.Trimesh:
    """Drop small separate pieces, and closed hollows inside, which no view can have seen.

    Args:
        mesh: closed.
        min_share: of the largest piece's volume.
    """
    pieces = mesh.split(only_watertight=False)
    if len(pieces) <= 1:
        return mesh
    volumes = np.array([piece.volume for piece in pieces])  # negative for the wall of a hollow
    kept = [p for p, v in zip(pieces, volumes, strict=True) if v >= min_share * volumes.max()]
    return cast(trimesh.Trimesh, trimesh.util.concatenate(kept)) if kept else mesh


def decimated(mesh: trimesh.Trimesh, target_faces: int) -> trimesh.Trimesh:
    """Quadric decimation that keeps a closed mesh closed.

    A fast collapse may fold faces onto each other. Those cancel. Where the surface is still not
    closed, the decimation is repeated more carefully, then with twice the faces, and so on; at last
    the mesh is returned as it came.

    Args:
        mesh: closed.
        target_faces: upper bound for the result.
    """
    import fast_simplification

    for attempt in range(DECIMATION_TRIES):
        target = target_faces * 2**attempt
        if target >= len(mesh.faces):
            break
        for aggressiveness in AGGRESSIVENESS:
            vertices, faces = fast_simplification.simplify(
                np.asarray(mesh.vertices, dtype=np.float32),
                np.asarray(mesh.faces, dtype=np.int32),
                target_count=target,
                agg=aggressiveness,
            )
            simple = trimesh.Trimesh(vertices, without_folds(faces), process=False)
            simple.remove_unreferenced_vertices()
            if len(simple.faces) <= target and simple.is_watertight and simple.volume > 0:
                return simple
    return mesh


def without_folds(faces: np.ndarray) -> np.ndarray:
    """Drop pairs of faces with the same three vertices, which enclose nothing.

    Each edge loses two faces, so what was closed stays closed.

    Args:
        faces: [F, 3] vertex indices.
    """
    _, group, sizes = np.unique(
        np.sort(faces, axis=1), axis=0, return_inverse=True, return_counts=True
    )
    return faces[sizes[group.ravel()] % 2 == 1]


def mesh_to_trimesh(mesh: SurfaceMesh) -> trimesh.Trimesh:
    """The same surface as trimesh knows it, without colours."""
    return trimesh.Trimesh(_numpy(mesh.vertices), _numpy(mesh.faces), process=False)


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()
