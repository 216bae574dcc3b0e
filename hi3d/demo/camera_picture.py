"""What a visitor judges matting and elevation by: the cut-out, and the ground under it."""

import math

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from hi3d.cameras import Cameras, orbit_cameras
from hi3d.pipelines.pictures import to_pixels
from hi3d.views import ReferenceImage

SIDE = 384
"""Of both pictures, in pixels."""
FINE = 3
"""Lines are drawn so many times larger, and then reduced."""
TILE = 16
GROUND, RADII = -0.42, (0.34, 0.5, 0.66)
"""Height of the ground and radii of its rings, in units of the object's longest side."""
FRONT_RGB, BACK_RGB = (31, 111, 178), (150, 185, 214)
POINTS = 180


def cutout_picture(image: ReferenceImage) -> Image.Image:
    """The framed photo over a checkerboard, so that every hole of the matte shows."""
    small = image.resized(SIDE)
    tiles = torch.arange(SIDE) // TILE
    board = torch.where((tiles[:, None] + tiles) % 2 == 0, 0.86, 0.95)
    return Image.fromarray(to_pixels(small.rgb - (1 - small.alpha) * (1 - board)))


def camera_picture(image: ReferenceImage, elevation_deg: float) -> Image.Image:
    """The framed photo on rings of a level ground, as a camera at this elevation sees them.

    Args:
        image: the photo, cut out and framed.
        elevation_deg: above -90 and below 90.
    """
    large, ground = image.resized(FINE * SIDE), Image.new("RGB", (FINE * SIDE,) * 2, "white")
    cameras = orbit_cameras(elevation_deg, FINE * SIDE, 1)
    from_below = elevation_deg < 0  # then all of the ground lies before the object
    if not from_below:
        _draw_rings(ground, cameras, back=True)
    behind = torch.from_numpy(np.array(ground)).permute(2, 0, 1) / 255
    picture = Image.fromarray(to_pixels(large.rgb - (1 - large.alpha) * (1 - behind)))
    for back in (True, False) if from_below else (False,):
        _draw_rings(picture, cameras, back)
    _draw_camera(picture, elevation_deg)
    return picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def _draw_rings(picture: Image.Image, cameras: Cameras, back: bool) -> None:
    """The half of each ring that is nearer to the camera, or the half behind."""
    draw = ImageDraw.Draw(picture)
    color, start = (BACK_RGB, 90.0) if back else (FRONT_RGB, -90.0)
    for radius in RADII:
        arc = torch.linspace(start, start + 180, POINTS).deg2rad()
        points = torch.stack(
            [radius * arc.cos(), radius * arc.sin(), torch.full_like(arc, GROUND)], dim=-1
        )
        line = [tuple(point) for point in cameras.project(points, 0)[0].tolist()]
        draw.line(line, fill=color, width=FINE * 2, joint="curve")


def _draw_camera(picture: Image.Image, elevation_deg: float) -> None:
    """A sketch in the corner, seen from the side: the object, the ground, and the camera."""
    draw, unit = ImageDraw.Draw(picture), FINE * SIDE / 100
    center, reach, angle = (13 * unit, 12 * unit), 9 * unit, math.radians(elevation_deg)
    camera = (center[0] - reach * math.cos(angle), center[1] - reach * math.sin(angle))
    box = [center[0] - reach, center[1] - reach, center[0] + reach, center[1] + reach]
    draw.arc(box, 90, 270, fill=BACK_RGB, width=FINE)
    draw.line([center[0] - reach, center[1], center[0], center[1]], fill=BACK_RGB, width=FINE)
    draw.line([camera, center], fill=FRONT_RGB, width=2 * FINE)
    draw.circle(center, 1.8 * unit, fill=BACK_RGB)
    draw.circle(camera, 1.5 * unit, fill=FRONT_RGB)
    font = ImageFont.load_default(4 * unit)
    place = (center[0] + 3 * unit, center[1])
    draw.text(place, f"{elevation_deg:.0f}°", fill=FRONT_RGB, font=font, anchor="lm")
