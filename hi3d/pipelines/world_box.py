"""Worlds of other sizes and places: the object is moved into the box that is reconstructed."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hi3d.cameras import Cameras
from hi3d.errors import InputError
from hi3d.mesh import SurfaceMesh
from hi3d.surface.visual_hull import FOREGROUND_ALPHA, HALF_EXTENT, grid_points, hull_sdf
from hi3d.views import Views

GRID_RESOLUTION, IMAGE_RESOLUTION = 40, 64
MIN_LONGEST_SIDE = 0.25
"""A smaller hull is drawn with too few cells: its world is in other units."""
NORMAL_RADIUS = (0.25, 1.1)
"""Radius that the silhouettes have at the cameras' distance where the world's units are ours ..."""
NORMAL_OFFSET = 0.1
"""... and distance of the point that the cameras look at from the origin."""
REFINEMENTS = 3


@dataclass(frozen=True)
class WorldBox:
    """A cube of the input's world that becomes the unit cube around the origin."""

    center: Tensor  # [3]
    side: float

    def cameras_inside(self, cameras: Cameras) -> Cameras:
        """The cameras as seen from the unit cube; every image stays the same."""
        viewmats = cameras.viewmats.clone()
        moved = viewmats[:, :3, 3] + viewmats[:, :3, :3] @ self.center.to(viewmats)
        viewmats[:, :3, 3] = moved / self.side
        return replace(cameras, viewmats=viewmats)

    def mesh_outside(self, mesh: SurfaceMesh) -> SurfaceMesh:
        """A mesh of the unit cube in the input's coordinates."""
        center = self.center.to(mesh.vertices)
        return replace(mesh, vertices=mesh.vertices * self.side + center)

    def mesh_inside(self, mesh: SurfaceMesh) -> SurfaceMesh:
        """Inverse of `mesh_outside`."""
        center = self.center.to(mesh.vertices)
        return replace(mesh, vertices=(mesh.vertices - center) / self.side)

    def __str__(self) -> str:
        place = ", ".join(f"{value:.4g}" for value in self.center.tolist())
        return f"the cube of side {self.side:.4g} around ({place})"


def find_world_box(views: Views) -> WorldBox | None:
    """The box of the input's world that the object fills, where that is not the unit cube.

    The visual hull says whether the object touches the walls of the reconstructed box or is lost in
    it. Then the cameras give the first box: around the point nearest to all optical axes, as large
    as the silhouettes are at its distance. The hull within gives the final one.

    Args:
        views: V views of which each shows an object.

    Returns:
        None where the object lies in the unit cube.

    Raises:
        InputError: the cameras do not bound the object, or do not see it together.
    """
    views = views.shrunk(IMAGE_RESOLUTION)
    center, radius = seen_ball(views)
    normal = NORMAL_RADIUS[0] < radius < NORMAL_RADIUS[1] and center.norm() < NORMAL_OFFSET
    unit = WorldBox(torch.zeros(3), 1.0)
    inside = inside_hull(views, unit)
    if not _touches_walls(inside) and _longest_side(inside) >= MIN_LONGEST_SIDE:
        return None
    box = WorldBox(center, 2 * radius)
    bounded = False
    for _ in range(REFINEMENTS):
        inside = inside_hull(views, box)
        if not inside.any():
            break
        bounded = not _touches_walls(inside)
        if not bounded:
            box = WorldBox(box.center, 1.5 * box.side)
            continue
        box = _around(inside, box)
    bounded = bounded and not _touches_walls(inside_hull(views, box))
    if bounded and (box.center.norm() > NORMAL_OFFSET / 2 or not 0.8 < box.side < 1.1):
        return box
    if bounded or normal:  # few views bound no hull, but the world is that of the orbits
        return None
    raise InputError(
        f"the views do not bound the object (the cameras look at a ball of radius {radius:.3g} "
        f"around ({', '.join(f'{value:.3g}' for value in center.tolist())})): correct the "
        "cameras, or move and scale their world so that the object fills the unit cube"
    )


def seen_ball(views: Views) -> tuple[Tensor, float]:
    """Center [3] nearest to all rays through the silhouettes' middles, and the radius they show.

    Raises:
        InputError: the object lies behind a camera.
    """
    cameras, normals, origins, rims = views.cameras.to("cpu"), [], [], []
    for view in range(len(views)):
        rows, columns = (views.alpha[view, 0].cpu() >= FOREGROUND_ALPHA).nonzero().T
        middle = torch.stack([_middle(columns), _middle(rows), torch.ones(())])
        direction = torch.linalg.inv(cameras.Ks[view]) @ middle
        direction = torch.nn.functional.normalize(
            cameras.camtoworlds[view, :3, :3] @ direction, dim=0
        )
        normals.append(torch.eye(3) - torch.outer(direction, direction))
        origins.append(cameras.positions[view])
        size = max(int(rows.max() - rows.min()), int(columns.max() - columns.min())) + 1
        rims.append(size / 2 / cameras.Ks[view, 1, 1].item())
    across, places = torch.stack(normals), torch.stack(origins)
    # Parallel rays meet nowhere: a weak pull to the origin decides along them.
    system = across.mean(0) + 1e-6 * torch.eye(3)
    center = torch.linalg.solve(system, (across @ places[..., None]).mean(0)[:, 0])
    depths = cameras.viewmats[:, 2, :3] @ center + cameras.viewmats[:, 2, 3]
    radius = (depths * torch.tensor(rims)).median().item()
    if not (math.isfinite(radius) and radius > 0):
        raise InputError(
            "the cameras do not look at one object: viewmat is world to camera, x right, y down, "
            "z forward"
        )
    return center, radius


def inside_hull(views: Views, box: WorldBox) -> Tensor:
    """Grid points of a box, a tenth larger, within the hull of all views but one in eight.

    Returns:
        [R, R, R] bool.
    """
    moved = replace(views, cameras=box.cameras_inside(views.cameras))
    return hull_sdf(moved, GRID_RESOLUTION, HALF_EXTENT, len(views) // 8) < 0


def _touches_walls(inside: Tensor) -> bool:
    """Whether a shape reaches the outermost points of its grid."""
    walls = [inside[0], inside[-1], inside[:, 0], inside[:, -1], inside[..., 0], inside[..., -1]]
    return any(bool(wall.any()) for wall in walls)


def _longest_side(inside: Tensor) -> float:
    points = grid_points(GRID_RESOLUTION, HALF_EXTENT, "cpu")[inside.flatten().cpu()]
    return 0.0 if len(points) == 0 else (points.amax(0) - points.amin(0)).max().item()


def _around(inside: Tensor, box: WorldBox) -> WorldBox:
    """The bounding cube of a shape in a box."""
    points = grid_points(GRID_RESOLUTION, HALF_EXTENT, "cpu")[inside.flatten().cpu()]
    low, high = points.amin(0), points.amax(0)
    spacing = 2 * HALF_EXTENT / (GRID_RESOLUTION - 1)
    side = (high - low).max().item() + spacing
    return WorldBox(box.center.cpu() + (low + high) / 2 * box.side, box.side * side)


def _middle(index: Tensor) -> Tensor:
    return (index.min() + index.max() + 1) / 2
