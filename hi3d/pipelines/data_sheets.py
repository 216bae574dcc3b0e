"""Contact sheets of training data: orbits with cameras, depth, normals and degraded inputs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from hi3d.cameras import Cameras, orbit_cameras
from hi3d.data.shard_urls import is_url
from hi3d.data.shards import find_shards, stream_orbits
from hi3d.degradation.draws import DegradationConfig
from hi3d.degradation.pipeline import degrade
from hi3d.errors import InputError
from hi3d.files import atomic_path, make_folder
from hi3d.orbits.decoding import OrbitFiles, OrbitReading, decode_orbit_files, unpack_orbits
from hi3d.orbits.folders import find_orbit_folders
from hi3d.pipelines.pictures import to_pixels
from hi3d.progress import track

LABEL_HEIGHT = 14
LABEL_WIDTH = 110
GAP = 4
"""Between pictures, in pixels."""


@dataclass(frozen=True)
class OrbitPictures:
    """One stored orbit."""

    uid: str
    rgb: Tensor  # [V, 3, H, W]
    """Color in [0, 1], over white."""
    alpha: Tensor  # [V, 1, H, W]
    """Opacity in [0, 1]."""
    depth: Tensor | None  # [V, H, W]
    """Along the camera's z axis, 0 where there is no surface; None if not stored."""
    normals: Tensor | None  # [V, 3, H, W]
    """Unit vectors in world space, 0 where there is nothing; None if not stored."""
    cameras: Cameras


def write_data_sheets(
    source: str | Path,
    output: str | Path,
    degradation: DegradationConfig | None,
    num_orbits: int = 8,
    seeds: Sequence[int] = (0, 1, 2),
    num_columns: int = 6,
    cell: int = 192,
) -> list[Path]:
    """Write one sheet per orbit, `<uid>.png`.

    Args:
        source: a folder of orbit folders, a folder of shards, one shard, or URLs of shards.
        output: folder of the sheets.
        degradation: what the refiner's inputs are made with; None leaves them out.
        num_orbits: the first so many.
        seeds: of the degraded inputs.
        num_columns: views of an orbit that are drawn, spread evenly.
        cell: side of a picture in pixels.

    Returns:
        The files.

    Raises:
        InputError: there is no orbit, one cannot be read, or the output cannot be written.
    """
    if min(num_orbits, num_columns, cell) < 1:
        raise InputError("orbits, columns and cell of data sheets must be 1 or more")
    output = make_folder(output)
    paths = []
    for files in track(list(islice(_orbit_files(source), num_orbits)), "data sheets"):
        orbit = load_orbit_pictures(files)
        sheet = draw_data_sheet(orbit, degradation, seeds, num_columns, cell)
        paths.append(output / (orbit.uid.replace("/", "_") + ".png"))
        with atomic_path(paths[-1]) as partial:
            sheet.save(partial)
    return paths


def load_orbit_pictures(files: OrbitFiles) -> OrbitPictures:
    """Decode all that is stored of one orbit.

    Raises:
        InputError: a file is missing or broken.
    """
    content = files.content()
    reading = OrbitReading(
        load_depth="000.depth.png" in files, load_normals="000.normal.png" in files
    )
    packed = decode_orbit_files(files, reading)
    item = unpack_orbits(packed.item(files.uid))
    frames = content["frames"]
    if "viewmat" in frames[0]:
        cameras = Cameras(
            torch.tensor([frame["viewmat"] for frame in frames], dtype=torch.float32),
            torch.tensor([frame["K"] for frame in frames], dtype=torch.float32),
            int(content["width"]),
            int(content["height"]),
        )
    else:
        cameras = orbit_cameras(packed.elevation_deg, int(content["height"]), len(frames))
    return OrbitPictures(
        files.uid, item["rgb"], item["alpha"], item.get("depth"), item.get("normals"), cameras
    )


def draw_data_sheet(
    orbit: OrbitPictures,
    degradation: DegradationConfig | None,
    seeds: Sequence[int],
    num_columns: int,
    cell: int,
) -> Image.Image:
    """Rows of views under their camera angles; at the left the ring from above and row labels.

    The detail rows show the middle of the object without resizing (small images are enlarged by a
    whole factor): the target, and each degraded input.

    Args:
        orbit: V views.
        degradation: what the degraded inputs are made with; None leaves them out.
        seeds: of the degraded inputs, one row each; the label tells their PSNR over the object.
        num_columns: views that are drawn, at most V, spread evenly.
        cell: side of a picture in pixels.
    """
    num_views = len(orbit.rgb)
    num_columns = min(num_columns, num_views)
    chosen = torch.arange(num_columns) * num_views // num_columns
    rows = _picture_rows(orbit, degradation, seeds, chosen, cell)
    width = LABEL_WIDTH + num_columns * (cell + GAP)
    height = 2 * LABEL_HEIGHT + LABEL_WIDTH + len(rows) * (cell + GAP)
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    size = f"{orbit.rgb.shape[-1]} x {orbit.rgb.shape[-2]}"
    lines = (
        f"{orbit.uid}: {num_views} views of {size}",
        "",
        "Ring from above: x to the right, y upward; red: view 0, the reference.",
        f"Cameras {_span(orbit.cameras.camtoworlds[:, :3, 3].norm(dim=1))} from the origin.",
        f"Elevation {_span(orbit.cameras.elevation_deg)} degrees.",
    )
    for number, line in enumerate(lines):
        draw.text((LABEL_WIDTH + 4, number * LABEL_HEIGHT + 2), line, fill="black")
    sheet.paste(_ring_picture(orbit.cameras, LABEL_WIDTH), (0, LABEL_HEIGHT))
    lefts = [LABEL_WIDTH + column * (cell + GAP) for column in range(num_columns)]
    top = LABEL_HEIGHT + LABEL_WIDTH
    for left, view in zip(lefts, chosen.tolist(), strict=True):
        azimuth = float(orbit.cameras.azimuth_deg[view])
        elevation = float(orbit.cameras.elevation_deg[view])
        draw.text((left + 4, top), f"{view}: az {azimuth:.1f}, el {elevation:.1f}", fill="black")
    top += LABEL_HEIGHT
    for label, pictures in rows:
        draw.text((4, top + 4), label, fill="black")
        for left, pixels in zip(lefts, to_pixels(pictures), strict=True):
            sheet.paste(Image.fromarray(pixels), (left, top))
        top += cell + GAP
    return sheet


def _picture_rows(
    orbit: OrbitPictures,
    degradation: DegradationConfig | None,
    seeds: Sequence[int],
    chosen: Tensor,
    cell: int,
) -> list[tuple[str, Tensor]]:
    """Label and pictures [N, 3, cell, cell] in [0, 1] of every row."""
    rows = [("target", _fitted(orbit.rgb[chosen], cell))]
    if orbit.depth is not None:
        rows.append(("depth\n(near = dark)", _fitted(_depth_picture(orbit.depth)[chosen], cell)))
    if orbit.normals is not None:
        nothing = orbit.normals.norm(dim=1, keepdim=True) < 0.5
        picture = torch.where(nothing, torch.ones(()), orbit.normals / 2 + 0.5)
        rows.append(("normals\n(n + 1) / 2", _fitted(picture[chosen], cell)))
    if degradation is None:
        return rows
    details = [("target\ndetail", _details(orbit.rgb, orbit.alpha, chosen, cell))]
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        degraded = degrade(orbit.rgb[None], orbit.alpha[None], degradation, generator)[0]
        error = (degraded - orbit.rgb).square()[(orbit.alpha > 0).expand_as(degraded)].mean()
        label = f"degraded\nseed {seed}\nPSNR {-10 * float(error.log10()):.1f} dB"
        rows.append((label, _fitted(degraded[chosen], cell)))
        details.append(
            (f"degraded\ndetail, seed {seed}", _details(degraded, orbit.alpha, chosen, cell))
        )
    return rows + details


def _orbit_files(source: str | Path) -> Iterator[OrbitFiles]:
    """The orbits of a source in stored order, opened one by one."""
    folder = Path(source)
    if not is_url(source) and folder.is_dir() and not any(folder.glob("*.tar")):
        folders = find_orbit_folders(folder)
        if not folders:
            raise InputError(
                f"{folder} holds neither orbit folders nor shards: run scripts/render_orbits.py"
            )
        yield from folders
        return
    for shard in find_shards(source, allow_missing=True):
        yield from stream_orbits(shard, shard.uids)


def _fitted(pictures: Tensor, cell: int) -> Tensor:
    """[N, 3, H, W] to [N, 3, cell, cell]; other shapes than squares are squeezed."""
    return F.interpolate(pictures, (cell, cell), mode="bilinear", antialias=True).clamp(0, 1)


def _details(rgb: Tensor, alpha: Tensor, chosen: Tensor, cell: int) -> Tensor:
    """[N, 3, cell, cell]: the middle of the object of each chosen view, its pixels unblended."""
    zoom = max(1, 2 * cell // min(rgb.shape[-2:]))
    side = -(-cell // zoom)
    details = []
    for view in chosen.tolist():
        corner = []
        for dim in (0, 1):
            length = alpha.shape[-2 + dim]
            weights = alpha[view, 0].sum(dim=1 - dim)
            middle = (weights * torch.arange(length)).sum() / weights.sum().clamp_min(1e-6)
            corner.append(int((middle - side / 2).clamp(0, max(0, length - side))))
        top, left = corner
        crop = rgb[view, :, top : top + side, left : left + side]
        crop = F.pad(crop, (0, side - crop.shape[2], 0, side - crop.shape[1]), value=1.0)
        crop = crop.repeat_interleave(zoom, 1).repeat_interleave(zoom, 2)
        details.append(crop[:, :cell, :cell])
    return torch.stack(details)


def _depth_picture(depth: Tensor) -> Tensor:
    """Gray [V, 3, H, W], from the nearest (dark) to the farthest of all views; nothing is white."""
    surface = depth > 0
    if not surface.any():
        return torch.ones_like(depth)[:, None].expand(-1, 3, -1, -1)
    near, far = depth[surface].min(), depth[surface].max()
    grey = 0.1 + 0.75 * (depth - near) / (far - near).clamp_min(1e-6)
    grey = torch.where(surface, grey, torch.ones(()))
    return grey[:, None].expand(-1, 3, -1, -1)


def _ring_picture(cameras: Cameras, side: int) -> Image.Image:
    """Camera positions from above, with the unit square that holds the object."""
    picture = Image.new("RGB", (side, side), "white")
    draw = ImageDraw.Draw(picture)
    positions = cameras.camtoworlds[:, :3, 3]
    scale = 0.44 * side / max(1.0, float(positions[:, :2].norm(dim=1).max()))

    def place(x: float, y: float) -> tuple[float, float]:
        return side / 2 + x * scale, side / 2 - y * scale

    draw.rectangle((*place(-0.5, 0.5), *place(0.5, -0.5)), outline="grey")
    forward = cameras.camtoworlds[:, :3, 2]
    for view in reversed(range(len(cameras))):
        x, y = positions[view, :2].tolist()
        ahead_x, ahead_y = (positions[view, :2] + 0.25 * forward[view, :2]).tolist()
        color = "red" if view == 0 else "black"
        draw.line((*place(x, y), *place(ahead_x, ahead_y)), fill=color)
        column, row = place(x, y)
        draw.ellipse((column - 2, row - 2, column + 2, row + 2), fill=color)
    return picture


def _span(values: Tensor) -> str:
    low, high = float(values.min()), float(values.max())
    return f"{low:.2f}" if high - low < 0.005 else f"{low:.2f} to {high:.2f}"
