"""Files: complete or not there when written, regular and bounded when read; and those shipped."""

import json
import math
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hi3d.errors import InputError

PACKAGE = Path(__file__).resolve().parent
SHIPPED_IN = (PACKAGE.parent, PACKAGE / "_shipped")
"""A checkout has configs/, data/ and scripts/ beside the package, an installation within it."""


def shipped(path: str | Path) -> Path:
    """A file or folder as given or, where there is none, that of this name the project ships.

    Args:
        path: relative ones are looked up in the working folder first, then among what the project
            ships: `configs/generate.yaml`, `data/models/nano/stage1`.

    Returns:
        The path where it is found, else `path` itself, so that an error names what was asked for.
    """
    path = Path(path)
    if path.is_absolute():
        return path
    found = [folder / path for folder in (Path(), *SHIPPED_IN) if (folder / path).exists()]
    return found[0] if found else path


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder, moved to `path` when the block ends well.

    The suffix is kept (`mesh.glb` is written as `.mesh.<pid>.part.glb`), so writers that choose a
    format by suffix work. After an exception the temporary file is deleted and `path` is as it was.

    Raises:
        InputError: the folder cannot be made or written to.
    """
    path = Path(path)
    make_folder(path.parent)
    partial = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield partial
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def make_folder(path: str | Path) -> Path:
    """Make `path` with its parents, and check that files can be written there.

    Raises:
        InputError: it is a file, or is not writable.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".{os.getpid()}.writable"
        probe.touch()
        probe.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot write to folder {path} ({error.strerror}): choose another output folder"
        ) from error
    return path


def regular_file(path: str | Path) -> Path:
    """The path, unless what lies there is a pipe, a socket or a device, which may never end.

    Raises:
        InputError: it is one. A file that is missing, or a folder, is left to the reader.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return path
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise InputError(f"{path} is not a regular file: give a file on a disk")
    return path


def parse_json(text: str | bytes) -> Any:
    """Plain values of JSON that others wrote.

    Raises:
        ValueError: it is no JSON, holds numbers that are not finite, or is nested too deeply.
    """
    try:
        return json.loads(text, parse_constant=_finite, parse_float=_finite)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"{number} is no finite number")
    return value


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(value, indent=2) + "\n")
