"""The open furniture of the Debian package `sweethome3d-furniture` as a folder of objects."""

import json
import lzma
import os
import re
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath

from hi3d.assets.obj_repair import repaired_mtl, rotated_obj
from hi3d.errors import InputError
from hi3d.files import atomic_path, make_folder, regular_file
from hi3d.progress import console, track

CATALOGUE_PROPERTIES = "PluginFurnitureCatalog.properties"
FORMATS = (".obj", ".dae", ".3ds", ".zip")  # models; only OBJ is extracted
CC0 = "CC0-1.0"
MAX_MEMBER_BYTES, MAX_OBJECT_BYTES = 512 << 20, 1 << 30
"""Unpacked; the largest object of the installed package has 16 MB."""
DAMAGED = (
    *(KeyError, ValueError, RuntimeError, EOFError, MemoryError),
    *(zlib.error, lzma.LZMAError, zipfile.BadZipFile),
)
"""What reading an archive can raise; of an unknown compression NotImplementedError."""


@dataclass
class FurnitureConfig:
    """Which of the furniture is extracted."""

    cc0_only: bool = False
    """Only objects in the public domain; the others ask to name their authors."""


@dataclass(frozen=True)
class FurnitureSummary:
    """What `prepare_furniture` did."""

    num_objects: int
    """Objects in the catalogues."""
    num_extracted: int
    """Objects extracted by this call."""
    num_skipped: int
    """Objects that were there already."""
    num_failed: int
    """Objects listed in `failures.jsonl`."""


@dataclass(frozen=True)
class FurnitureItem:
    """One entry of a catalogue."""

    catalogue: Path
    """The `.sh3f` file."""
    model: str
    """Path of the model in it."""
    name: str
    """What it shows, in English."""
    category: str
    """Room or kind."""
    author: str
    """Who made it."""
    license: str
    """SPDX identifier where the catalogue's licence is known, else the catalogue's own words."""
    rotation: str
    """3x3 matrix, row by row, that makes the model stand upright and face the viewer; or ""."""

    @property
    def folder(self) -> str:
        """Where it is extracted to, below the output folder: catalogue and name of the model."""
        return f"{_clean(self.catalogue.stem)}/{_clean(PurePosixPath(self.model).stem)}"


def prepare_furniture(
    output: str | Path,
    config: FurnitureConfig | None = None,
    catalogues: Sequence[str | Path] = (),
) -> FurnitureSummary:
    """Extract every object of furniture catalogues into a folder of its own.

    Each folder `<catalogue>/<object>` gets the OBJ, turned upright, its MTL, textures and licence
    notes, and `source.json`; `output` gets `sources.jsonl` with the same entries (folder, name,
    category, author, licence) of all objects in it, and `failures.jsonl`. The MTL is made to look
    as in Sweet Home 3D (see `repaired_mtl`). Folders are made complete or not at all, and those
    that are there are kept: another call finishes the rest.

    Args:
        output: folder to write to.
        config: which objects.
        catalogues: `.sh3f` files; by default those of the installed package.

    Raises:
        InputError: the package is not installed, a catalogue cannot be read, or the output cannot
            be written.
    """
    config = config or FurnitureConfig()
    paths = [Path(path) for path in catalogues] or installed_catalogues()
    items = [item for path in paths for item in read_catalogue(path)]
    if config.cc0_only:
        items = [item for item in items if item.license == CC0]
    if not items:
        raise InputError("the catalogues hold no such object: use cc0_only=false")
    output = make_folder(output)
    num_extracted, failures = 0, []
    for item in track(items, "extracting furniture"):
        if (output / item.folder).exists():
            continue
        try:
            _extract(item, output / item.folder)
            num_extracted += 1
        except DAMAGED as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            failures.append({"object": f"{item.catalogue}:{item.model}", "reason": reason})
        except OSError as error:
            raise InputError(
                f"cannot write to {output} ({error.strerror}): free space, then run it again"
            ) from error
    _write_lines(output / "failures.jsonl", failures)
    sources = sorted(output.glob("*/*/source.json"))
    _write_lines(output / "sources.jsonl", [json.loads(path.read_text()) for path in sources])
    num_skipped = len(items) - num_extracted - len(failures)
    console.print(
        f"{num_extracted} objects extracted, {num_skipped} were there already, "
        f"{len(failures)} failed: {output}"
    )
    return FurnitureSummary(len(items), num_extracted, num_skipped, len(failures))


def installed_catalogues() -> list[Path]:
    """The `.sh3f` files of the installed Debian package.

    Raises:
        InputError: it is not installed.
    """
    # The default is that of the XDG base directory specification.
    folders = os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share"
    paths = [
        path
        for folder in folders.split(":")
        for path in sorted((Path(folder) / "sweethome3d" / "furniture").glob("*.sh3f"))
    ]
    if not paths:
        raise InputError(
            "no furniture catalogue is installed: apt-get install sweethome3d-furniture"
        )
    return paths


def read_catalogue(path: Path) -> list[FurnitureItem]:
    """All entries of a `.sh3f` file.

    Raises:
        InputError: it is missing or no furniture catalogue.
    """
    try:
        with zipfile.ZipFile(regular_file(path)) as archive:
            properties = parse_properties(_member(archive, CATALOGUE_PROPERTIES))
    except InputError:
        raise
    except (*DAMAGED, OSError) as error:
        raise InputError(f"{path} is no furniture catalogue: give a .sh3f file") from error
    items = []
    for key, model in properties.items():
        if not key.startswith("model#"):
            continue
        number = key.removeprefix("model")

        def value(field: str, default: str = "", number: str = number) -> str:
            return properties.get(field + number, properties.get(field, default))

        items.append(
            FurnitureItem(
                path,
                model.lstrip("/"),
                value("name"),
                value("category"),
                value("creator", value("provider")),
                _spdx(value("license")),
                properties.get(f"modelRotation{number}", ""),
            )
        )
    return items


def parse_properties(content: bytes) -> dict[str, str]:
    """Keys and values of a Java properties file (Latin-1 with `\\uXXXX` escapes)."""
    text = re.sub(r"\\\r?\n[ \t]*", "", content.decode("latin-1"))
    properties = {}
    for line in text.splitlines():
        match = re.match(r"\s*([^#!=:\s][^=:\s]*)\s*[=:]\s*(.*)", line)
        if match:
            unescaped = re.sub(r"\\u([0-9a-fA-F]{4})", lambda code: chr(int(code[1], 16)), match[2])
            properties[match[1]] = unescaped.strip()
    return properties


def _extract(item: FurnitureItem, folder: Path) -> None:
    """Write one object's folder, complete or not at all."""
    partial = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        files: dict[str, bytes] = {}
        for name, content in _files(item):
            files[name] = content
            if sum(map(len, files.values())) > MAX_OBJECT_BYTES:
                raise ValueError(f"over {MAX_OBJECT_BYTES / 1e6:.0f} MB unpacked: no object")
        models = [name for name in files if name.lower().endswith(".obj")]
        if not models:
            raise ValueError(f"its model is {PurePosixPath(item.model).suffix}, not OBJ")
        if item.rotation:
            rotation = [float(number) for number in item.rotation.split()]
            files[models[0]] = rotated_obj(files[models[0]], rotation)
        missing: list[str] = []
        for name, content in files.items():
            if name.lower().endswith(".mtl"):
                content, dropped = repaired_mtl(content, files)
                missing += dropped
            path = partial / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        source = {
            "folder": item.folder,
            "file": f"{item.folder}/{models[0]}",
            "name": item.name,
            "category": item.category,
            "author": item.author,
            "license": item.license,
            "catalogue": item.catalogue.name,
            "missing_textures": sorted(set(missing)),
        }
        (partial / "source.json").write_text(json.dumps(source, ensure_ascii=False) + "\n")
        os.replace(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _files(item: FurnitureItem) -> Iterator[tuple[str, bytes]]:
    """Names, relative to the model, and contents of the model and what lies beside it."""
    with zipfile.ZipFile(item.catalogue) as archive:
        if item.model.lower().endswith(".zip"):
            with zipfile.ZipFile(BytesIO(_member(archive, item.model))) as inner:
                models = [name for name in inner.namelist() if name.lower().endswith(".obj")]
                yield from _beside(inner, models[0] if models else "")
        else:
            yield from _beside(archive, item.model)


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    """A file of an archive, unless it is far larger unpacked than any object."""
    size = archive.getinfo(name).file_size
    if size > MAX_MEMBER_BYTES:
        raise ValueError(f"{name} has {size / 1e6:.0f} MB unpacked: this is no object")
    return archive.read(name)


def _beside(archive: zipfile.ZipFile, model: str) -> Iterator[tuple[str, bytes]]:
    yield PurePosixPath(model).name, _member(archive, model)
    folder = PurePosixPath(model).parent
    for entry in archive.infolist():
        path = PurePosixPath(entry.filename)
        if entry.is_dir() or folder not in path.parents or path.suffix.lower() in FORMATS:
            continue
        below = path.relative_to(folder)
        if ".." not in below.parts:
            yield str(below), _member(archive, entry.filename)


def _spdx(license_text: str) -> str:
    """SPDX identifier of the licences that the catalogues name."""
    text = license_text.lower()
    if "public domain" in text or "cc0" in text:
        return CC0
    if "creative commons attribution 3.0" in text:
        return "CC-BY-3.0-US" if "united states" in text else "CC-BY-3.0"
    return license_text


def _clean(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)


def _write_lines(path: Path, entries: list[dict]) -> None:
    with atomic_path(path) as partial:
        lines = [json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries]
        partial.write_text("".join(lines))
