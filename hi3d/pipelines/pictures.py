"""What a person looks at: previews, the turntable video and the contact sheet."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from hi3d.assets.surface_mesh import surface_mesh_to_object
from hi3d.cameras import Cameras, orbit_cameras
from hi3d.files import atomic_path
from hi3d.images.video import write_video
from hi3d.mesh import SurfaceMesh
from hi3d.progress import track
from hi3d.rendering.rasterizer import render_views
from hi3d.views import ReferenceImage, Views

FRAMES_PER_SECOND = 16
FRAMES_AT_ONCE = 8
PREVIEW_VIEWS, PREVIEW_SIDE = 4, 192


def render_mesh(mesh: SurfaceMesh, cameras: Cameras) -> Views:
    """Unlit renders of a mesh over white."""
    return render_views(surface_mesh_to_object(mesh), cameras).views


def render_shape(mesh: SurfaceMesh, cameras: Cameras) -> Views:
    """Renders of a mesh over white, in grey under a lamp, without its colours."""
    grey = SurfaceMesh(mesh.vertices, mesh.faces, torch.full_like(mesh.vertices, 0.8))
    return render_views(surface_mesh_to_object(grey), cameras, shading="key").views


def write_turntable(
    mesh: SurfaceMesh, path: str | Path, elevation_deg: float, num_frames: int, resolution: int
) -> None:
    """Write an H.264 video of one turn.

    Args:
        mesh: textured or with vertex colours.
        path: ends in `.mp4`.
        elevation_deg: of the camera.
        num_frames: at 16 frames per second.
        resolution: side in pixels, even.
    """
    cameras = orbit_cameras(elevation_deg, resolution, num_frames)
    chunks = track(torch.arange(num_frames).split(FRAMES_AT_ONCE), "turntable")
    frames = (
        frame for chunk in chunks for frame in to_pixels(render_mesh(mesh, cameras[chunk]).rgb)
    )
    write_video(path, frames, num_frames, FRAMES_PER_SECOND)


def write_contact_sheet(
    path: str | Path,
    reference: ReferenceImage,
    rows: dict[str, Tensor],
    cell: int = 128,
    num_columns: int = 8,
) -> None:
    """Write the reference image and rows of views as one PNG.

    Args:
        path: ends in `.png`.
        reference: drawn at the left, over all rows.
        rows: label -> [V, 3, H, W] in [0, 1]; `num_columns` of the views, spread evenly, are drawn.
        cell: side of a view in pixels.
        num_columns: views per row.
    """
    label_height = 16
    row_height = cell + label_height
    left = 2 * cell
    size = (left + num_columns * cell, max(len(rows) * row_height, left + label_height))
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((4, 2), "reference", fill="black")
    sheet.paste(_picture(reference.rgb, left), (0, label_height))
    for row, (label, views) in enumerate(rows.items()):
        top = row * row_height
        draw.text((left + 4, top + 2), label, fill="black")
        chosen = torch.arange(num_columns) * len(views) // num_columns
        for column, view in enumerate(views[chosen]):
            sheet.paste(_picture(view, cell), (left + column * cell, top + label_height))
    with atomic_path(path) as partial:
        sheet.save(partial)


def preview_cameras(cameras: Cameras) -> Cameras:
    """Four of the cameras, spread evenly, for small images of the same shape."""
    chosen = cameras[torch.arange(PREVIEW_VIEWS) * len(cameras) // PREVIEW_VIEWS]
    scale = PREVIEW_SIDE / max(cameras.width, cameras.height)
    return chosen.resized(
        max(1, round(cameras.width * scale)), max(1, round(cameras.height * scale))
    )


def write_preview(path: str | Path, rgb: Tensor) -> None:
    """Write V views side by side as one PNG.

    Args:
        path: ends in `.png`.
        rgb: [V, 3, H, W] in [0, 1].
    """
    with atomic_path(path) as partial:
        Image.fromarray(np.concatenate(list(to_pixels(rgb)), axis=1)).save(partial)


def to_pixels(rgb: Tensor) -> np.ndarray:
    """[..., 3, H, W] in [0, 1] to uint8 [..., H, W, 3]."""
    return (rgb.clamp(0, 1) * 255).round().to(torch.uint8).movedim(-3, -1).cpu().numpy()


def _picture(rgb: Tensor, side: int) -> Image.Image:
    resized = F.interpolate(rgb[None].cpu(), (side, side), mode="bilinear", antialias=True)[0]
    return Image.fromarray(to_pixels(resized))
