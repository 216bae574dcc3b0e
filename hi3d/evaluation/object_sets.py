"""Sets of objects that are scored: lists in data/eval, or any folder of object files."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from hi3d.assets.sources import find_objects
from hi3d.config import check_choice, load_config, shortened
from hi3d.errors import InputError
from hi3d.files import shipped
from hi3d.views import load_rgba

NUM_PUBLISHED_VIEWS = 16


@dataclass
class ObjectList:
    """A set as its file in data/eval says it."""

    title: str = ""
    source: str = ""
    """Whose choice of objects, and whose scans."""
    licence: str = ""
    """Of the object files."""
    download: str = ""
    """Where the files are, for people."""
    files: list[str] = field(default_factory=lambda: ["{name}.glb"])
    """Where an object may lie below the root, `{name}` for its name; the first there counts."""
    views: list[str] = field(default_factory=list)
    """Folders of published renderings, `{name}` for the object's name."""
    up: str | None = None
    """Upward axis of the files, y or z; None as their format has it."""
    objects: dict[str, float] = field(default_factory=dict)
    """By name the azimuth in degrees at which the photo shows the object."""

    def __post_init__(self) -> None:
        if self.up is not None:
            check_choice("up", self.up, ("y", "z"))
        if not self.objects:
            raise InputError("objects is empty: name at least one object")
        for pattern in (*self.files, *self.views):
            if "{name}" not in pattern:
                raise InputError(f"{shortened(pattern)} has no {{name}}: say where each object is")


@dataclass(frozen=True)
class ScoredObject:
    """One object of a set."""

    name: str
    path: Path
    """Its file, which need not be there."""
    azimuth_deg: float = 0.0
    """At which the photo shows it."""
    up: Literal["y", "z"] | None = None
    """Upward axis of the file."""


def load_objects(objects: str, root: str | None = None) -> list[ScoredObject]:
    """The objects of a set in order of their names.

    Args:
        objects: a list such as data/eval/gso30.yaml, or what
            `hi3d.assets.sources.find_objects` takes: a folder, a file.
        root: folder of a list's files; None: the list's own.

    Raises:
        InputError: there is no such list or folder, or nothing in it.
    """
    path = shipped(objects)
    if path.suffix not in (".yaml", ".yml"):
        return [ScoredObject(uid, Path(place)) for uid, place in sorted(find_objects(path).items())]
    listed = load_config(ObjectList, path)
    folder = path.parent if root is None else Path(root)
    up: Literal["y", "z"] | None = None if listed.up is None else "z" if listed.up == "z" else "y"
    return [
        ScoredObject(name, _located(listed.files, folder, name), azimuth, up)
        for name, azimuth in sorted(listed.objects.items())
    ]


def _located(patterns: list[str], folder: Path, name: str) -> Path:
    places = [folder / pattern.format(name=name) for pattern in patterns]
    return next((place for place in places if place.is_file()), places[0])


def set_faults(objects: str, root: str | None = None) -> list[str]:
    """What is missing or broken of a set's download, one line each.

    Every object file must be there and have a surface; where published renderings are there, each
    must have all its views of one size.

    Args:
        objects: as `load_objects` takes it.
        root: folder of the files.
    """
    from hi3d.assets.surface_mesh import load_mesh

    faults = []
    for entry in load_objects(objects, root):
        try:
            if not entry.path.is_file():
                raise InputError(f"no file at {entry.path}")
            load_mesh(entry.path, entry.up)
        except InputError as error:
            faults.append(f"{entry.name}: {error}")
    path = shipped(objects)
    if path.suffix in (".yaml", ".yml"):
        listed = load_config(ObjectList, path)
        folder = path.parent if root is None else Path(root)
        for name in listed.objects:
            for place in (folder / pattern.format(name=name) for pattern in listed.views):
                if place.is_dir():
                    faults += [f"{name}: {fault}" for fault in _view_faults(place)]
    return faults


def _view_faults(folder: Path) -> list[str]:
    sizes, faults = set(), []
    for view in range(NUM_PUBLISHED_VIEWS):
        try:
            rgb, _ = load_rgba(folder / f"{view:03d}.png")
            sizes.add(tuple(rgb.shape[1:]))
        except InputError as error:
            faults.append(str(error))
    return [*faults, *([f"views of {folder} differ in size"] if len(sizes) > 1 else [])]
