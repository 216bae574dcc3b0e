"""From a field to one closed, outward-oriented triangle mesh with vertex colours."""

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
import trimesh

from hi3d.cameras import Cameras
from hi3d.config import check_number
from hi3d.mesh import SurfaceMesh
from hi3d.surface.color_agreement import ColorAgreement
from hi3d.surface.filled_pits import with_filled_pits
from hi3d.surface.flat_walls import with_flat_walls
from hi3d.surface.grid import GridField
from hi3d.surface.marching_cubes import marching_cubes
from hi3d.surface.printed_walls import find_printed_walls, moved_to_walls
from hi3d.surface.topology import topology
from hi3d.surface.unseen_side import flatten_unseen_side
from hi3d.views import Views

MIN_COMPONENT_SHARE = 0.02  # of the largest piece's volume; smaller pieces are floaters
MIN_AREA_SHARE = 0.01  # of the largest piece's area: beside a thin sheet a speck has volume enough
FAST_FACES = 4
"""So many times the target's faces are left to the careful decimation."""
AGGRESSIVENESS = 3  # of fast_simplification: more careful than its default of 7
MAX_SILHOUETTE_LOSS = 0.005
"""Of a view's object that may stand outside the mesh's silhouette, or the reverse, beyond what did
before its walls were moved."""
TAUBIN_PASS_BAND = (0.5, 0.53)  # lambda and mu of Taubin 1995: shrink, then inflate slightly more


@dataclass
class MeshingConfig:
    """Settings of `extract_mesh`."""

    target_faces: int = 20000
    """Upper bound on the triangles, 0 to 1e8, unless that would open the surface; 0 = keep
    all."""
    smoothing_iterations: int = 30
    """Taubin smoothing passes, 0 to 1000, against noise of about a voxel, without shrinking. A
    smoother surface also decimates further without opening."""
    flat_walls: bool = True
    """Move the vertices of large walls, which are flat but for noise below a voxel, onto planes."""
    printed_walls: bool = True
    """Move walls that print has bent to where the views agree on it, and fill the pits that it has
    made."""
    flatten_unseen_side: bool = True
    """Span the side that no camera sees from its visible rim; needs the cameras."""

    def __post_init__(self) -> None:
        check_number("meshing.target_faces", self.target_faces, 0, 1e8)
        check_number("meshing.smoothing_iterations", self.smoothing_iterations, 0, 1000)


def extract_mesh(
    field: GridField,
    config: MeshingConfig | None = None,
    cameras: Cameras | None = None,
    views: Views | None = None,
) -> SurfaceMesh:
    """The zero level set of a field as a closed mesh, coloured by the field.

    Args:
        field: sdf negative inside.
        config: settings; None = the defaults.
        cameras: of the views that the field was fitted to; without them the side that they do not
            see stays as it is.
        views: that the field was fitted to; without them walls with print stay as they are.

    Returns:
        A watertight mesh with positive volume, on the field's device.

    Raises:
        InputError: the field has no surface.
    """
    config = config or MeshingConfig()
    mesh = smooth_surface(field, config)
    if config.printed_walls and views is not None:
        mesh = with_printed_walls(field, mesh, config, views)
    if config.flat_walls:
        flat = with_flat_walls(mesh)
        mesh = flat if is_sound(flat) else mesh
    if cameras is not None and config.flatten_unseen_side:
        flattened = flatten_unseen_side(mesh, cameras.positions.cpu().numpy())
        mesh = flattened if is_sound(flattened) else mesh
    if config.target_faces > 0:
        mesh = decimated(mesh, config.target_faces)
    device = field.sdf.device
    vertices = torch.from_numpy(np.array(mesh.vertices, dtype=np.float32)).to(device)
    _, vertex_rgb = field.query(vertices)
    faces = torch.from_numpy(np.array(mesh.faces, dtype=np.int64)).to(device)
    return SurfaceMesh(vertices, faces, vertex_rgb.detach())


def smooth_surface(field: GridField, config: MeshingConfig) -> trimesh.Trimesh:
    """The zero level set of a field without its floaters and the noise of a voxel."""
    mesh = without_floaters(marching_cubes(field), MIN_COMPONENT_SHARE)
    return smoothed(mesh, config.smoothing_iterations) if config.smoothing_iterations else mesh


def with_printed_walls(
    field: GridField, mesh: trimesh.Trimesh, config: MeshingConfig, views: Views
) -> trimesh.Trimesh:
    """The surface with its printed walls where the views agree on them.

    Args:
        field: sdf negative inside.
        mesh: its surface.
        config: settings.
        views: V views over white with alpha.

    Returns:
        `mesh` where no wall is found, or where the views' silhouettes speak against them.
    """
    agreement = ColorAgreement(views, mesh)
    walls = find_printed_walls(mesh, agreement)
    if not walls:
        return mesh
    for wall in walls:
        field = with_filled_pits(field, wall, mesh, agreement)
    filled = smooth_surface(field, config)
    moved = moved_to_walls(filled, walls, ColorAgreement(views, filled))
    before, after = (of.silhouette_errors() for of in (agreement, ColorAgreement(views, moved)))
    fits = bool((after <= before + MAX_SILHOUETTE_LOSS).all())
    return moved if fits and is_sound(moved) else mesh


def smoothed(mesh: trimesh.Trimesh, iterations: int) -> trimesh.Trimesh:
    """Taubin smoothing; the mesh as it was if vertices fell together."""
    lamb, nu = TAUBIN_PASS_BAND
    smooth = trimesh.smoothing.filter_taubin(mesh.copy(), lamb, nu, 2 * iterations)
    return smooth if is_sound(smooth) else mesh


def is_sound(mesh: trimesh.Trimesh) -> bool:
    """Whether a mesh bounds a solid, as it is once its positions are stored."""
    vertices = np.asarray(mesh.vertices, dtype=np.float32)
    return bool(np.isfinite(vertices).all()) and topology(vertices, mesh.faces).sound


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
    areas = np.array([piece.area for piece in pieces])
    large = (volumes >= min_share * volumes.max()) & (areas >= MIN_AREA_SHARE * areas.max())
    kept = [piece for piece, is_large in zip(pieces, large, strict=True) if is_large]
    return cast(trimesh.Trimesh, trimesh.util.concatenate(kept)) if kept else mesh


def decimated(mesh: trimesh.Trimesh, target_faces: int) -> trimesh.Trimesh:
    """Quadric decimation that keeps a closed mesh closed.

    The fast collapse takes a large mesh most of the way, and collapses that check each edge's
    surroundings (libigl) the rest. If that opens the surface, the latter do it all; at last the
    closest that came out closed is returned.

    Args:
        mesh: closed.
        target_faces: upper bound for the result, unless it would open the surface.
    """
    if len(mesh.faces) <= target_faces:
        return mesh
    starts = [mesh]
    if len(mesh.faces) > FAST_FACES * target_faces:
        simple = collapsed_fast(mesh, FAST_FACES * target_faces)
        starts = [mesh] if simple is None else [simple, mesh]
    for start in starts:
        simple = collapsed_carefully(start, target_faces)
        if simple is not None:
            return simple
    return starts[0]


def collapsed_fast(mesh: trimesh.Trimesh, target_faces: int) -> trimesh.Trimesh | None:
    """What fast_simplification makes of a mesh, or None if it is not closed.

    It may fold faces onto each other, which cancel, or make sheets touch along an edge.
    """
    import fast_simplification

    vertices, faces = fast_simplification.simplify(
        np.asarray(mesh.vertices, dtype=np.float32),
        np.asarray(mesh.faces, dtype=np.int32),
        target_count=target_faces,
        agg=AGGRESSIVENESS,
    )
    return closed_mesh(vertices, without_folds(faces))


def collapsed_carefully(mesh: trimesh.Trimesh, target_faces: int) -> trimesh.Trimesh | None:
    """What libigl's quadric decimation makes of a mesh, or None if it is not closed."""
    import igl

    vertices, faces, *_ = igl.qslim(
        np.asfortranarray(mesh.vertices, dtype=np.float64),
        np.asfortranarray(mesh.faces, dtype=np.int32),
        target_faces,
    )
    return closed_mesh(vertices, faces)


def closed_mesh(vertices: np.ndarray, faces: np.ndarray) -> trimesh.Trimesh | None:
    """A mesh without unused vertices, or None if it does not bound a solid."""
    if len(faces) == 0:
        return None
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    mesh.remove_unreferenced_vertices()
    return mesh if is_sound(mesh) else None


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
    vertices, faces = mesh.vertices.detach().cpu(), mesh.faces.cpu()
    return trimesh.Trimesh(vertices.numpy(), faces.numpy(), process=False)
