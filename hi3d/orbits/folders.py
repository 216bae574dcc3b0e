"""Orbits in folders of images, written and read: this project's, and the official code's layout.

The official code's has a folder per object with the images of all its orbits.
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from PIL import Image

from hi3d.errors import InputError
from hi3d.files import make_folder, regular_file
from hi3d.orbits.broken_orbits import BAD_CAMERAS, MISSING_FILE, UNREADABLE_IMAGE, BrokenOrbitError
from hi3d.orbits.decoding import parse_cameras
from hi3d.orbits.encoded_orbit import EncodedOrbit
from hi3d.orbits.encoding import DECODING_ERRORS, IMAGE_SUFFIXES

OFFICIAL_ELEVATIONS_DEG = (-10, 0, 10, 20, 30, 40)
OFFICIAL_RING = 16
"""Views per elevation; image index = elevation * 16 + azimuth, in name order."""


class OrbitWriter(Protocol):
    """Where orbits go. A context: leaving it completes what is open."""

    finished: set[str]
    """uids of the orbits that are complete on disk, in this part of the run."""

    def __enter__(self) -> "OrbitWriter": ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def add(self, uid: str, orbits: Sequence[EncodedOrbit]) -> None:
        """Write orbits of the object `uid`.

        Raises:
            OSError: they could not be written; what was complete before still is.
        """


class FolderWriter:
    """A folder per orbit, as `hi3d.views.Views.save` writes it, plus depth and normals.

    A folder is written under `.part` and then renamed, so every other folder is complete.
    """

    def __init__(self, output: Path, part_tag: str = ""):
        """Args:
        output: folder of the folders.
        part_tag: differs between runs that write to `output` at the same time.
        """
        self.output = output
        self.partial = output / f".part{part_tag}"
        self.finished = self._existing()

    def _existing(self) -> set[str]:
        return {path.parent.name for path in self.output.glob("*/cameras.json")}

    def __enter__(self) -> "FolderWriter":
        shutil.rmtree(self.partial, ignore_errors=True)
        make_folder(self.partial)
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.partial, ignore_errors=True)

    def add(self, uid: str, orbits: Sequence[EncodedOrbit]) -> None:
        """Write a folder per orbit."""
        for orbit in orbits:
            files = dict(orbit.files("-")) | {"cameras.json": orbit.cameras}
            self._write_folder(orbit.uid, files)
            self.finished.add(orbit.uid)

    def _write_folder(self, name: str, files: dict[str, bytes]) -> None:
        partial = self.partial / name
        try:
            partial.mkdir(parents=True, exist_ok=True)
            for file, data in files.items():
                (partial / file).write_bytes(data)
        except OSError:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        folder = self.output / name
        if folder.exists():
            raise InputError(f"{folder} is there and is no orbit of this run: move it away")
        os.replace(partial, folder)


class OfficialWriter(FolderWriter):
    """The official code's layout: `<uid>/NNN.png`, index = orbit * num_views + view.

    Its reader takes every PNG of the folder in name order, so nothing else is in it.
    """

    def __init__(self, output: Path, num_orbits: int, part_tag: str = ""):
        """Args:
        output: folder of the folders.
        num_orbits: of every object.
        part_tag: as in `FolderWriter`.
        """
        self.num_orbits = num_orbits
        super().__init__(output, part_tag)

    def _existing(self) -> set[str]:
        objects = [path.parent.name for path in self.output.glob("*/000.png")]
        if self.num_orbits == 1:
            return set(objects)
        return {f"{uid}-orbit{k:02d}" for uid in objects for k in range(self.num_orbits)}

    def add(self, uid: str, orbits: Sequence[EncodedOrbit]) -> None:
        """Write one folder that holds all orbits of the object."""
        images = [image for orbit in orbits for image in orbit.images]
        self._write_folder(uid, {f"{i:03d}.png": image for i, image in enumerate(images)})
        self.finished.update(orbit.uid for orbit in orbits)


@dataclass(frozen=True)
class OrbitFolder:
    """`000.png` or `000.webp`, ..., `000-depth.png`, `000-normal.png`, and `cameras.json`."""

    uid: str
    folder: Path

    def __contains__(self, name: str) -> bool:
        return (self.folder / _file_name(name)).is_file()

    def read(self, name: str) -> bytes:
        """Bytes of a file.

        Raises:
            BrokenOrbitError: it is missing or cannot be read.
        """
        kind = BAD_CAMERAS if name == "json" else MISSING_FILE
        return _read(self.folder / _file_name(name), kind)

    def label(self, name: str) -> str:
        """How errors name a file."""
        return str(self.folder / _file_name(name))

    def content(self) -> dict[str, Any]:
        """What `cameras.json` says.

        Raises:
            BrokenOrbitError: it is missing or no camera file.
        """
        return parse_cameras(self.read("json"), self.label("json"))


def _read(path: Path, kind: str) -> bytes:
    try:
        return regular_file(path).read_bytes()
    except InputError as error:
        raise BrokenOrbitError(kind, str(error)) from error
    except FileNotFoundError as error:
        raise BrokenOrbitError(kind, f"{path} is missing: render the orbit again") from error
    except OSError as error:
        message = f"cannot read {path} ({error.strerror}): render the orbit again"
        raise BrokenOrbitError(kind, message) from error


def _file_name(name: str) -> str:
    if name == "json":
        return "cameras.json"
    return name.replace(".depth.png", "-depth.png").replace(".normal.png", "-normal.png")


@dataclass(frozen=True)
class OfficialRing:
    """One elevation of the official layout: 16 of the 96 images of a folder, straight alpha."""

    folder: Path
    ring: int
    """Index into `OFFICIAL_ELEVATIONS_DEG`."""

    @property
    def uid(self) -> str:
        """Name of the folder, and the elevation in degrees."""
        return f"{self.folder.name}_{OFFICIAL_ELEVATIONS_DEG[self.ring]}deg"

    @cached_property
    def _images(self) -> list[str]:
        """File names of the ring's views."""
        names = sorted(name for name in os.listdir(self.folder) if name.endswith(IMAGE_SUFFIXES))
        expected = len(OFFICIAL_ELEVATIONS_DEG) * OFFICIAL_RING
        if len(names) != expected:
            raise BrokenOrbitError(
                MISSING_FILE,
                f"{self.folder} holds {len(names)} images where the official layout has "
                f"{expected}: render the object again",
            )
        return names[self.ring * OFFICIAL_RING :][:OFFICIAL_RING]

    def _path(self, name: str) -> Path | None:
        """The image that takes the place of `000.png`, ...; the layout has nothing else."""
        number, _, suffix = name.partition(".")
        return self.folder / self._images[int(number)] if suffix == "png" else None

    def __contains__(self, name: str) -> bool:
        return self._path(name) is not None

    def read(self, name: str) -> bytes:
        """Bytes of an image.

        Raises:
            BrokenOrbitError: it is missing or cannot be read.
        """
        path = self._path(name)
        if path is None:
            message = f"{self.folder} has images only: set load_depth=false, load_normals=false"
            raise BrokenOrbitError(MISSING_FILE, message)
        return _read(path, MISSING_FILE)

    def label(self, name: str) -> str:
        """How errors name a file."""
        return str(self._path(name) or self.folder / name)

    def content(self) -> dict[str, Any]:
        """What a `cameras.json` of this ring would say, as far as it is needed.

        Raises:
            BrokenOrbitError: the folder has not 96 images, or the first is none.
        """
        path = self.folder / self._images[0]
        try:
            with Image.open(regular_file(path)) as image:
                width, height = image.size
        except DECODING_ERRORS as error:
            message = f"cannot read image {path} ({error}): render the object again"
            raise BrokenOrbitError(UNREADABLE_IMAGE, message) from error
        return {
            "width": width,
            "height": height,
            "frames": [{"elevation_deg": OFFICIAL_ELEVATIONS_DEG[self.ring]}] * OFFICIAL_RING,
            "straight_alpha": True,
        }


def find_orbit_folders(folder: Path) -> list[OrbitFolder | OfficialRing]:
    """The orbits in the folders of a folder, sorted by name; none where it holds none.

    Folders with a `cameras.json` are orbits of this project. Where there is not one of them, those
    with images are objects in the official layout, with six orbits each.
    """
    ours = sorted(p.parent for p in folder.glob("*/cameras.json") if p.parent.name[0] != ".")
    if ours:
        return [OrbitFolder(path.name, path) for path in ours]
    objects = sorted(
        path
        for path in (folder.iterdir() if folder.is_dir() else ())
        if path.is_dir() and path.name[0] != "." and any(path.glob("*.png"))
    )
    rings = range(len(OFFICIAL_ELEVATIONS_DEG))
    return [OfficialRing(path, ring) for path in objects for ring in rings]
