"""Where objects come from: files, folders, lists, Google Scanned Objects, Objaverse."""

import difflib
import functools
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from hi3d.assets.load import SUFFIXES
from hi3d.errors import InputError

OBJAVERSE = "objaverse:"
LVIS = "objaverse:lvis"
OBJAVERSE_UID = re.compile(r"[0-9a-f]{32}")
LIST_SUFFIXES = (".txt", ".json")
MAX_UID_LENGTH = 80  # leaves room for suffixes in the 100 characters of a plain tar name


def find_objects(objects: str | Path | Sequence[str | Path]) -> dict[str, str]:
    """Locations of objects by uid; `fetch_object` turns a location into a file.

    The uid of a file in a folder is its path below the folder with `__` for slashes, without
    suffix, dots and characters that are unsafe in file names; that of a single file its name; that
    of a scanned object (`<name>/meshes/model.obj`) its folder's name; that of an Objaverse object
    its Objaverse uid. Where two files would share one, a hash of the path is added.

    Args:
        objects: one or several of: an object file; a folder, searched recursively without hidden
            files; a list file (`.txt`: one of these a line, `#` starts a comment; `.json`: a list
            of these, or lists by category) with paths relative to its own folder; an Objaverse
            uid; `objaverse:<uid>`; `objaverse:lvis` or `objaverse:lvis:<category>`.

    Raises:
        InputError: something is not there, nothing is given, or Objaverse cannot be asked.
    """
    entries = [objects] if isinstance(objects, (str, Path)) else list(objects)
    if not entries:
        raise InputError("the list of objects is empty: give at least one file")
    names: dict[Path, Path] = {}
    objaverse_uids: list[str] = []
    for entry in entries:
        for found, name in _expanded(entry, Path(), lists=True):
            if name is None:
                objaverse_uids.append(found)
            else:
                names.setdefault(Path(found), name)
    if objaverse_uids:
        _objaverse_call("load_uids")  # here once rather than in every worker at the same time
    by_uid = {uid: str(path) for uid, path in _by_uid(names).items()}
    return by_uid | {uid: OBJAVERSE + uid for uid in objaverse_uids}


def collection_root(objects: str | Path | Sequence[str | Path], location: str) -> Path | None:
    """The folder given, or that of the list given, which a file was found through; else None.

    Args:
        objects: of `find_objects`.
        location: of a file that it found.
    """
    for entry in [objects] if isinstance(objects, (str, Path)) else objects:
        path = Path(entry).absolute()
        folder = path.parent if path.suffix.lower() in LIST_SUFFIXES else path
        if folder.is_dir() and Path(location).absolute().is_relative_to(folder):
            return folder
    return None


def fetch_object(location: str) -> Path:
    """The local file of a location, downloaded to the `objaverse` package's cache if need be.

    Raises:
        InputError: the download fails, or Objaverse has no such object.
    """
    if not location.startswith(OBJAVERSE):
        return Path(location)
    uid = location.removeprefix(OBJAVERSE)
    path = _objaverse_call("load_objects", [uid]).get(uid)
    if path is None:
        raise InputError(f"Objaverse has no object {uid}: check the uid")
    return Path(path)


def _expanded(entry: str | Path, folder: Path, lists: bool) -> Iterator[tuple[str, Path | None]]:
    """Files with the names that their uids are made of; Objaverse uids with None.

    Args:
        entry: of `find_objects`.
        folder: that relative paths start from.
        lists: whether list files may be given.
    """
    text = str(entry)
    if text == LVIS or text.startswith(LVIS + ":"):
        for uid in _lvis_uids(text.removeprefix(LVIS).removeprefix(":")):
            yield uid, None
        return
    path = folder / text
    uid = text.removeprefix(OBJAVERSE)
    if text.startswith(OBJAVERSE) or (OBJAVERSE_UID.fullmatch(uid) and not path.exists()):
        if not OBJAVERSE_UID.fullmatch(uid):
            raise InputError(f"{text} is no Objaverse uid: give 32 hexadecimal digits, or {LVIS}")
        yield uid, None
    elif path.is_dir():
        yield from _in_folder(path)
    elif not path.is_file():
        raise InputError(f"no object at {path}: give a mesh file, a folder or a list of them")
    elif path.suffix.lower() in LIST_SUFFIXES:
        if not lists:
            raise InputError(f"{path} is a list in a list: name its objects instead")
        for line in _list_entries(path):
            yield from _expanded(line, path.parent, lists=False)
    elif path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path} is not an object file: give one of {', '.join(SUFFIXES)}")
    else:
        scanned = _scanned_object(path)
        yield str(path), Path(path.name if scanned is None else f"{scanned.name}.obj")


def _in_folder(root: Path) -> Iterator[tuple[str, Path]]:
    """Object files below `root`; of a scanned object's formats, its OBJ."""
    files = []
    for path in sorted(root.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
        if path.suffix.lower() in SUFFIXES and not hidden and path.is_file():
            files.append(path)
    if not files:
        raise InputError(f"{root} holds no object ({', '.join(SUFFIXES)})")
    scanned: dict[Path, Path] = {}
    for path in sorted(files, key=lambda path: path.suffix.lower() != ".obj"):
        if (folder := _scanned_object(path)) is not None:
            scanned.setdefault(folder, path)
    for path in files:
        folder = _scanned_object(path)
        if folder is None:
            yield str(path), path.relative_to(root)
        elif scanned[folder] == path:
            below = root.absolute() in folder.parents
            name = folder.relative_to(root.absolute()) if below else Path(folder.name)
            yield str(path), name.parent / f"{name.name}.obj"


def _scanned_object(path: Path) -> Path | None:
    """Folder of a Google Scanned Object by the place of its mesh, `<folder>/meshes/model.*`."""
    path = path.absolute()
    return path.parents[1] if path.parent.name == "meshes" and path.stem == "model" else None


def _list_entries(path: Path) -> list[str]:
    """The objects that a list file names."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".txt":
            lines = [line.strip() for line in text.splitlines()]
            entries: Any = [line for line in lines if line and not line.startswith("#")]
        else:
            entries = json.loads(text)
            if isinstance(entries, dict):
                entries = [entry for group in entries.values() for entry in group]
    except ValueError as error:
        raise InputError(f"{path} is no list of objects ({error}): write one a line") from error
    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
        raise InputError(f"{path} is no list of objects: use a JSON list of paths or uids")
    if not entries:
        raise InputError(f"{path} names no object: write one a line")
    return list(dict.fromkeys(entries))


def _lvis_uids(category: str) -> list[str]:
    """Objaverse uids of an LVIS category, or of all with ""."""
    annotations: dict[str, list[str]] = _objaverse_call("load_lvis_annotations")
    if category and category not in annotations:
        near = difflib.get_close_matches(category, annotations, 1)
        hint = f"did you mean {near[0]}?" if near else "see objaverse.load_lvis_annotations()"
        raise InputError(f"LVIS has no category {category}: {hint}")
    groups = [annotations[category]] if category else annotations.values()
    return list(dict.fromkeys(uid for group in groups for uid in group))


def _objaverse_call(function: str, *arguments: Any) -> Any:
    """Result of a function of the `objaverse` package, without what it prints."""
    try:
        import objaverse
    except ImportError as error:
        raise InputError(
            "Objaverse needs the objaverse package: pip install 'hi3d[objaverse]'"
        ) from error
    # load_objects parses the list of all 800,000 paths at every call, which takes seconds.
    load_paths = getattr(objaverse, "_load_object_paths", None)
    if load_paths is not None and not hasattr(load_paths, "cache_info"):
        objaverse._load_object_paths = functools.cache(load_paths)
    try:
        with redirect_stdout(io.StringIO()):
            return getattr(objaverse, function)(*arguments)
    except (EOFError, ValueError) as error:
        folder = getattr(objaverse, "BASE_PATH", "~/.objaverse")
        raise InputError(
            f"an index of Objaverse is cut off ({error}): delete the .json.gz files in {folder}"
        ) from error
    except OSError as error:
        raise InputError(f"Objaverse cannot be reached ({error}): check the network") from error


def _by_uid(names: dict[Path, Path]) -> dict[str, Path]:
    """Files by uid.

    Args:
        names: for each file, the relative path that its uid is made of.
    """

    def clean(name: Path) -> str:
        return re.sub(r"[^A-Za-z0-9_-]", "_", "__".join(name.with_suffix("").parts)) or "object"

    num_uids = Counter(clean(name) for name in names.values())
    num_names = Counter(names.values())
    by_uid = {}
    for path, name in names.items():
        uid = clean(name)
        if num_uids[uid] > 1 or len(uid) > MAX_UID_LENGTH:
            # Lists of files can hold the same name twice: then only the whole path differs.
            distinct = name if num_names[name] == 1 else path
            digest = hashlib.sha256(distinct.as_posix().encode()).hexdigest()[:8]
            uid = f"{uid[: MAX_UID_LENGTH - 9]}-{digest}"
        by_uid[uid] = path
    return by_uid
