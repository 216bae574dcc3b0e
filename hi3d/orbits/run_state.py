"""The state of a rendering run in its output folder: lock, settings and failed objects."""

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hi3d.errors import InputError
from hi3d.files import REFUSALS, atomic_path, refused_writes
from hi3d.orbits.config import OrbitRenderConfig

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
OPTIONAL = {"stretch": 0.0}
"""Settings that a `settings.json` may lack, and what holds then."""


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file, so that no two runs write the same files. A killed run's lock is free.

    Raises:
        InputError: another process holds it.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise InputError(
                f"another run writes to {path.parent}: wait for it, or use another folder or shard"
            ) from error
        except OSError:  # a file system without locks
            pass
        with contextlib.suppress(FileNotFoundError):
            if os.fstat(descriptor).st_ino == path.stat().st_ino:
                break
        os.close(descriptor)  # its last holder deleted it in between
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def remove_partial_notes(output: Path, part_tag: str) -> None:
    """Remove the temporary files of index, settings, failures and report that a kill left behind.

    Args:
        output: folder of a run whose lock is held.
        part_tag: of the run's part; the files of other parts are left alone.
    """
    for name in ("index", "settings", "failures", "report"):
        for path in output.glob(f".{name}{part_tag}.[0-9]*.part.json*"):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def full_disk_is_an_input_error(output: Path) -> Iterator[None]:
    """Name a full disk, and whatever else the system refuses to write, in one line.

    Raises:
        InputError: the block raised such an error.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        if error.errno not in DISK_FULL:
            raise InputError(
                f"{error.strerror}: {error.filename or output}: {REFUSALS[error.errno]}; what was "
                "finished is kept"
            ) from error
        raise InputError(
            f"no space left for {output}: free some and run the same command again; what was "
            "finished is kept"
        ) from error


def check_settings(output: Path, config: OrbitRenderConfig) -> None:
    """Refuse to mix orbits of different settings; note the settings in a fresh folder.

    Raises:
        InputError: `settings.json` of the folder differs or is no such file, or there are orbits
            without it.
    """
    path = output / "settings.json"
    if not path.exists():
        if next(output.glob("*.tar"), None) or next(output.glob("*/*.png"), None):
            raise InputError(f"{output} holds data of something else: use another folder")
        partial = output / f".settings{config.part_tag}.json"
        try:
            with refused_writes(path):
                partial.write_text(json.dumps(config.content, indent=2) + "\n")
                os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    try:
        theirs, ours = OPTIONAL | dict(json.loads(path.read_text())), config.content
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path} is no settings file ({error}): use another folder") from error
    for name in ours | theirs:
        if theirs.get(name) != ours.get(name):
            raise InputError(
                f"{output} was rendered with {name}={theirs.get(name)}, not {ours.get(name)}: "
                f"use the same, or another folder"
            )


def merge_failures(output: Path, part_tags: Sequence[str]) -> None:
    """Write `failures.jsonl` with the failures of all parts, in their order.

    Args:
        output: folder of the run.
        part_tags: of every part; a part without a file had no failures.
    """
    with atomic_path(output / "failures.jsonl") as partial, partial.open("w") as file:
        for tag in part_tags:
            with contextlib.suppress(FileNotFoundError):
                file.write((output / f"failures{tag}.jsonl").read_text())


class FailureLog:
    """`failures.jsonl`: one line per object that failed and has not been rendered since."""

    def __init__(self, path: Path):
        """Read the file, without the half line that a kill may have left.

        Args:
            path: of the file, which need not be there.
        """
        self.path = path
        self.entries: dict[str, dict[str, Any]] = {}
        """By uid of the object."""
        with contextlib.suppress(FileNotFoundError):
            for line in path.read_text(errors="replace").splitlines():
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    entry = json.loads(line)
                    self.entries[entry["uid"]] = entry
        self._write()

    def add(self, uid: str, location: str, reason: str, cause: str, seconds: float) -> None:
        """Record a failure, in place of an earlier one of the same object."""
        known = uid in self.entries
        self.entries[uid] = {
            "object": location,
            "uid": uid,
            "reason": reason,
            "cause": cause,
            "seconds": round(seconds, 3),
        }
        if known:
            self._write()
        else:
            with self.path.open("a") as file:
                file.write(json.dumps(self.entries[uid]) + "\n")

    def remove(self, uid: str) -> None:
        """Forget an object's failure, where it had one."""
        if self.entries.pop(uid, None) is not None:
            self._write()

    def _write(self) -> None:
        partial = self.path.with_name(f".{self.path.name}.part")
        try:
            partial.write_text("".join(json.dumps(e) + "\n" for e in self.entries.values()))
            os.replace(partial, self.path)
        except OSError:
            partial.unlink(missing_ok=True)
            raise
