"""Outputs of a method, read by its layout."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hi3d.errors import InputError
from hi3d.evaluation.mesh_files import normalised, read_mesh
from hi3d.evaluation.methods.layouts import Layout
from hi3d.mesh import SurfaceMesh
from hi3d.views import load_rgba, view_files

UNIT_AXES = {
    sign + name: torch.tensor([float(name == other) * (-1 if sign else 1) for other in "xyz"])
    for sign in ("", "-")
    for name in "xyz"
}


@dataclass(frozen=True)
class MethodOutput:
    """What a method made of one object."""

    rgb: Tensor | None  # [V, 3, H, W]
    """Over white, in [0, 1], in order of the layout's azimuths; None without views."""
    azimuths_deg: tuple[float, ...]
    """Of the views, from the photo on."""
    mesh: SurfaceMesh | None
    """z up, front at +x; None without one."""


def read_output(layout: Layout, folder: Path, name: str, seed: int | None = None) -> MethodOutput:
    """Read what a method wrote for one object.

    Args:
        layout: of the method.
        folder: of all its outputs.
        name: of the object.
        seed: of the output, where the method has several.

    Raises:
        InputError: neither views nor a mesh are there, or a file is broken.
    """
    views = find_output(layout.views, folder, name, seed, wanted_file=layout.kind != "files")
    mesh = find_output(layout.meshes, folder, name, seed, wanted_file=True)
    if views is not None and layout.kind == "files" and not _has_images(layout, views):
        views = None
    if views is None and mesh is None:
        wanted = ", ".join((*layout.views, *layout.meshes))
        raise InputError(f"nothing of {name} in {folder}: looked for {wanted}")
    rgb = None if views is None else read_views(layout, views)
    return MethodOutput(
        rgb, layout.azimuths_deg, None if mesh is None else read_method_mesh(layout, mesh)
    )


def find_output(
    patterns: tuple[str, ...], folder: Path, name: str, seed: int | None, wanted_file: bool
) -> Path | None:
    """The first file, or folder, that one of the patterns names; None without any.

    Args:
        patterns: of a layout.
        folder: that they start from.
        name: of the object, taken literally.
        seed: of the output; patterns with `{seed}` are skipped without one.
        wanted_file: whether a file is looked for.
    """
    literal = "".join(f"[{c}]" if c in "*?[" else c for c in name)
    for pattern in patterns:
        if "{seed}" in pattern and seed is None:
            continue
        filled = pattern.replace("{object}", literal).replace("{seed}", str(seed))
        for path in sorted(folder.glob(filled)):
            if path.is_file() == wanted_file:
                return path
    return None


def _has_images(layout: Layout, folder: Path) -> bool:
    if layout.names:
        return (folder / layout.names[0]).is_file()
    return any(folder.glob("*.png"))


def read_views(layout: Layout, path: Path) -> Tensor:
    """The views of one object. [V, 3, H, W]

    Raises:
        InputError: a file is broken, or their number is not the layout's.
    """
    if layout.kind == "files":
        files = list(layout.names) or view_files(path)
        images = [load_rgba(path / name) for name in files]
        if len({rgb.shape for rgb, _ in images}) > 1:
            raise InputError(f"the views in {path} differ in size: give views of one size")
        rgb = torch.stack([over_white(*image) for image in images])
    elif layout.kind == "video":
        rgb = video_frames(path)
    else:
        rgb = _cut(over_white(*load_rgba(path)), layout, path)
    wanted = len(layout.azimuths_deg)
    if layout.kind == "video" and len(rgb) > wanted:
        rgb = rgb[-wanted:]  # the official code's videos may begin with other frames
    if len(rgb) != wanted:
        raise InputError(f"{path} holds {len(rgb)} views, not {wanted}: give all of them")
    return rgb


def over_white(rgb: Tensor, alpha: Tensor) -> Tensor:
    """An image with straight alpha over white; one that is over white already stays. [3, H, W]"""
    hidden = (alpha == 0).expand_as(rgb)
    if bool(hidden.any()) and rgb[hidden].mean() < 0.75:
        return rgb * alpha + 1 - alpha
    return rgb


def _cut(image: Tensor, layout: Layout, path: Path) -> Tensor:
    """The views of a row or a grid, row by row."""
    count = len(layout.azimuths_deg)
    columns = count if layout.kind == "strip" else layout.columns
    rows = count // columns
    height, width = image.shape[1:]
    if height % rows or width % columns or height // rows != width // columns:
        raise InputError(
            f"{path} of {width} x {height} pixels is no {rows} x {columns} grid of square views"
        )
    side = height // rows
    cut = image.reshape(3, rows, side, columns, side).permute(1, 3, 0, 2, 4)
    return cut.reshape(count, 3, side, side).contiguous()


def video_frames(path: Path) -> Tensor:
    """All frames of a video. [T, 3, H, W]

    Raises:
        InputError: it cannot be read.
    """
    import imageio

    try:
        with imageio.get_reader(path) as reader:
            frames = np.stack([np.asarray(frame)[..., :3] for frame in reader])
    except Exception as error:
        raise InputError(f"cannot read video {path} ({type(error).__name__}): make it again") from (
            error
        )
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255


def read_method_mesh(layout: Layout, path: Path) -> SurfaceMesh:
    """A mesh file in the truth's coordinates: z up, front at +x."""
    if layout.declared:
        mesh = read_mesh(path, None)
    else:
        mesh = read_mesh(path, "z")  # the numbers as they stand in the file
        mesh = replace(mesh, vertices=turned(mesh.vertices, layout.up, layout.front))
    return normalised(mesh)[0] if layout.scale == "unit" else mesh


def turned(vertices: Tensor, up: str, front: str) -> Tensor:
    """Points of a right-handed world with these axes as z up, front at +x. [V, 3]

    Raises:
        InputError: the two axes are one.
    """
    z, x = UNIT_AXES[up], UNIT_AXES[front]
    if (z * x).sum() != 0:
        raise InputError(f"up={up} and front={front} are one axis: give two")
    return vertices @ torch.stack([x, torch.linalg.cross(z, x), z]).T.to(vertices)
