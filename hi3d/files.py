"""Files: complete or not there when written, regular and bounded when read; and those shipped."""

import errno
import json
import math
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hi3d.errors import InputError

PACKAGE = Path(__file__).resolve().parent
SHIPPED_IN = (PACKAGE.parent, PACKAGE / "_shipped")
"""A checkout has configs/, data/ and scripts/ beside the package, an installation within it."""
REFUSALS = {
    errno.ENOSPC: "free some space, then run the same command again",
    errno.EDQUOT: "free some space, then run the same command again",
    errno.EFBIG: "raise the limit of a file's size (ulimit -f)",
    errno.EROFS: "choose another folder",
    errno.EACCES: "check who may read and write there",
    errno.EPERM: "check who may read and write there",
    errno.EIO: "check the disk",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}
"""What to do where the system refuses, by its number."""
PROBE_BYTES = 1 << 20


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
        OSError: the system refuses to write, whatever the writer made of it; it names `path`.
    """
    path = Path(path)
    make_folder(path.parent)
    partial = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        with refused_writes(path):
            yield partial
            os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def refused_writes(path: str | Path) -> Iterator[None]:
    """Raise what the system refuses within the block as an OSError that names `path`.

    Writers of images, weights and archives raise errors of their own without cause or place.

    Raises:
        OSError: the system refuses to write; other errors go on as they are.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        cause = system_error(error) or _refused_probe(Path(path).parent)
        if cause is None or cause.errno not in REFUSALS:
            raise
        named = str(cause.filename or "")
        place = named if named and ".part" not in named else str(path)
        raise OSError(cause.errno, os.strerror(cause.errno), place) from error


def system_error(error: BaseException | None) -> OSError | None:
    """The refusal of the system behind an error: itself, its cause, or what its text says.

    Args:
        error: of any kind; those of worker processes and native writers hold only the text.

    Returns:
        An error with a number, or None where the system refused nothing.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, OSError) and error.errno is not None:
            return error if error.errno in REFUSALS or not seen else None
        number = _number_in(str(error))
        if number is not None:
            return OSError(number, os.strerror(number))
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None


def _number_in(text: str) -> int | None:
    found = re.findall(r"\[Errno (\d+)\]|\(os error (\d+)\)|Os \{ code: (\d+)", text)
    if found:
        return int("".join(found[-1]))
    return next((number for number in REFUSALS if os.strerror(number) in text), None)


def _refused_probe(folder: Path) -> OSError | None:
    """Why nothing can be written to a folder, where a writer does not say; None where it can be."""
    probe = folder / f".{os.getpid()}.writable"
    try:
        probe.write_bytes(bytes(PROBE_BYTES))
    except OSError as error:
        return error
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)
    return None


def make_folder(path: str | Path) -> Path:
    """Make `path` with its parents, and check that files can be written there.

    Raises:
        InputError: it is a file, or is not writable.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".{os.getpid()}.writable"
        try:
            probe.touch()
        finally:
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
