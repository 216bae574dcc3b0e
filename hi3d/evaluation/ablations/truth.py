"""Objects with what is known about them: true views, the photo among them, and the true mesh."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from PIL import Image

from hi3d.assets.load import load_object
from hi3d.cameras import orbit_cameras
from hi3d.errors import InputError
from hi3d.files import atomic_path
from hi3d.mesh import SurfaceMesh, save_mesh
from hi3d.rendering.rasterizer import render_views
from hi3d.views import Views

SUFFIXES = (".glb", ".gltf", ".obj", ".ply")
GREY = 0.8


@dataclass(frozen=True)
class ObjectTruth:
    """An object as its files in the folder of an ablation tell it."""

    name: str
    given: Path
    """Folder with `photo.png` (view 0, RGBA), `views` (16) and `truth.glb`."""
    mesh: SurfaceMesh
    """Normalised, in grey."""

    @cached_property
    def views(self) -> Views:
        """16 true views; view 0 is the photo."""
        return Views.load(self.given / "views")


def files_of(places: Sequence[str]) -> list[Path]:
    """Object files of files and folders, in order.

    Raises:
        InputError: one is missing, a folder has none, or two have one name.
    """
    found: list[Path] = []
    for place in map(Path, places):
        inside = sorted(path for path in place.glob("*") if path.suffix.lower() in SUFFIXES)
        if not (inside if place.is_dir() else place.is_file()):
            raise InputError(f"{place} is no object file, nor a folder of them: check objects")
        found += inside if place.is_dir() else [place]
    if len({path.stem for path in found}) < len(found):
        raise InputError("two objects have the same name: rename one of the files")
    return found


def load_truth(path: Path, elevation_deg: float, resolution: int, output: Path) -> ObjectTruth:
    """An object, rendered unless that was done already.

    Args:
        path: object file.
        elevation_deg: of the views.
        resolution: side of the views in pixels.
        output: folder of the ablation.
    """
    folder = output / "objects" / path.stem
    parts = load_object(path)
    mesh = true_mesh(path)
    if not (folder / "truth.glb").is_file():
        rendered = render_views(parts, orbit_cameras(elevation_deg, resolution))
        rendered.views.save(folder / "views")
        with (
            atomic_path(folder / "photo.png") as partial,
            Image.open(folder / "views/000.png") as p,
        ):
            p.save(partial)
        save_mesh(mesh, folder / "truth.glb", lit=True)
    return ObjectTruth(path.stem, folder, mesh)


def true_mesh(path: Path) -> SurfaceMesh:
    """The normalised object as one mesh, in grey."""
    vertices, faces, count = [], [], 0
    for part in load_object(path).parts:
        vertices.append(torch.as_tensor(part.vertices, dtype=torch.float32))
        faces.append(torch.as_tensor(part.faces, dtype=torch.int64) + count)
        count += len(part.vertices)
    return SurfaceMesh(torch.cat(vertices), torch.cat(faces), torch.full((count, 3), GREY))
