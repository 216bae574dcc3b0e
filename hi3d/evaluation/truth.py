"""The truth that objects are scored against: rendered once per content and settings, and kept."""

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from hi3d.assets.load import load_object
from hi3d.assets.surface_mesh import load_mesh
from hi3d.assets.wavefront.looks import scanned_object_folder
from hi3d.cameras import orbit_cameras
from hi3d.config import check_choice, check_elevation, check_number
from hi3d.errors import InputError
from hi3d.evaluation.mesh_files import normalised
from hi3d.evaluation.mesh_metrics import rotated_about_up
from hi3d.evaluation.object_sets import ScoredObject
from hi3d.files import make_folder
from hi3d.mesh import SurfaceMesh
from hi3d.native import cache_folder
from hi3d.rendering.rasterizer import BACKENDS, available_backend, render_views
from hi3d.rendering.shading import SHADINGS
from hi3d.views import Views, save_depth

FORMAT = 1
"""Raised where the same settings begin to give other files."""


@dataclass
class TruthConfig:
    """How the truth is rendered: 16 views of the standard orbit, from the photo's azimuth on."""

    elevation_deg: float = 30.0
    """Of the orbit and of the photo, its view 0; the published tables have 30."""
    resolution: int = 256
    """Side of the views in pixels, 32 to 2048."""
    photo_resolution: int = 512
    """Side of the photo in pixels, 32 to 2048."""
    shading: str = "uniform"
    """`unlit`, `uniform` or `key`."""
    backend: str = "auto"
    """Of `hi3d.rendering.rasterizer.render_views`."""

    def __post_init__(self) -> None:
        check_elevation(self.elevation_deg)
        check_number("truth.resolution", self.resolution, 32, 2048)
        check_number("truth.photo_resolution", self.photo_resolution, 32, 2048)
        check_choice("truth.shading", self.shading, tuple(SHADINGS))
        check_choice("truth.backend", self.backend, BACKENDS)


@dataclass(frozen=True)
class Truth:
    """One object as it is."""

    photo: Views
    """View 0 alone, at the photo's resolution."""
    views: Views
    """16 views of the standard orbit; view 0 shows what the photo shows."""
    mesh: SurfaceMesh
    """Centered, longest side 1, turned so that the photo is taken from azimuth 0."""
    folder: Path
    """Where views, photo and 16-bit depth lie."""


def load_truth(entry: ScoredObject, config: TruthConfig, cache: Path | None = None) -> Truth:
    """The truth of an object, rendered if no earlier run has.

    Args:
        entry: the object.
        config: how it is rendered.
        cache: folder; None: `truth` in the folder of all caches.

    Raises:
        InputError: the file is missing or broken, or shows nothing.
    """
    if not entry.path.is_file():
        raise InputError(f"no object file at {entry.path}: download the set, or give objects_root=")
    backend = available_backend(config.backend)
    cache = cache or cache_folder() / "truth"
    folder = cache / truth_key(entry, replace(config, backend=backend))
    if not folder.is_dir():
        _render(entry, replace(config, backend=backend), folder)
    views, photo = Views.load(folder / "views"), Views.load(folder / "photo")
    mesh, _ = normalised(load_mesh(entry.path, entry.up))
    return Truth(photo, views, rotated_about_up(mesh, -entry.azimuth_deg), folder)


def truth_key(entry: ScoredObject, config: TruthConfig) -> str:
    """A name for the truth by the object's content and everything that its rendering depends on."""
    digest = hashlib.sha256()
    for path in content_files(entry.path):
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    settings = {"format": FORMAT, "azimuth": entry.azimuth_deg, "up": entry.up, **asdict(config)}
    digest.update(json.dumps(settings, sort_keys=True).encode())
    return digest.hexdigest()[:32]


def content_files(path: Path) -> list[Path]:
    """The files that an object's looks may depend on: itself, and what may lie beside it."""
    if path.suffix.lower() == ".glb":
        return [path]
    folder = scanned_object_folder(path) or path.parent
    beside = (".mtl", ".png", ".jpg", ".jpeg", ".bin", ".webp")
    return [path, *sorted(p for p in folder.rglob("*") if p.suffix.lower() in beside)]


def _render(entry: ScoredObject, config: TruthConfig, folder: Path) -> None:
    """Render into a temporary folder and move it, whole, to its place."""
    object_ = load_object(entry.path, up=entry.up)
    make_folder(folder.parent)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name[:8]}.", dir=folder.parent))
    try:
        sides = {"views": (16, config.resolution), "photo": (1, config.photo_resolution)}
        for name, (num_views, side) in sides.items():
            standard = orbit_cameras(config.elevation_deg, side)[list(range(num_views))]
            turned = orbit_cameras(config.elevation_deg, side, start_azimuth_deg=entry.azimuth_deg)
            rendered = render_views(
                object_,
                turned[list(range(num_views))],
                config.backend,
                shading=config.shading,  # type: ignore[arg-type]
            )
            if not rendered.alpha[0].any():
                raise InputError(f"{entry.path} shows nothing in the photo: check its faces")
            replace(rendered.views, cameras=standard).save(partial / name)
            for view in range(num_views):
                save_depth(partial / name / f"{view:03d}-depth.png", rendered.depth[view])
        try:
            os.replace(partial, folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
