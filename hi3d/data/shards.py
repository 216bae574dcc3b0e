"""Orbits in WebDataset shards, read at any place from disks and from end to end through URLs."""

import lzma
import posixpath
import tarfile
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hi3d.data.shard_urls import (
    index_urls,
    is_url,
    one_line,
    opened,
    place_of,
    read_index,
    refusal,
    shard_urls,
)
from hi3d.errors import InputError
from hi3d.orbits.broken_orbits import (
    BAD_CAMERAS,
    MISSING_FILE,
    MISSING_SHARD,
    TRUNCATED_SHARD,
    UNSORTED_SHARD,
    BrokenOrbitError,
)
from hi3d.orbits.decoding import parse_cameras
from hi3d.orbits.encoding import IMAGE_SUFFIXES
from hi3d.progress import console, track

BROKEN_SHARD = (tarfile.TarError, OSError, ValueError, EOFError, zlib.error, lzma.LZMAError)
"""What reading a shard raises that breaks off or cannot be opened."""
MAX_FILE_BYTES = 1 << 30
"""Of an orbit's file: a compressed shard can claim more than the memory holds."""


@dataclass(frozen=True)
class Shard:
    """One tar file."""

    url: str
    """Path or URL, in webdataset's syntax."""
    uids: tuple[str, ...] = field(repr=False)
    """Its complete orbits, in stored order."""

    @property
    def is_local(self) -> bool:
        """A file of this machine, which can be read at any place."""
        return not is_url(self.url)


@dataclass(frozen=True)
class ShardOrbit:
    """The files of one orbit, as bytes or as places in a local shard."""

    uid: str
    url: str
    """Of the shard."""
    members: Mapping[str, bytes | tuple[int, int]] = field(repr=False)
    """By name: the bytes, or offset and size in bytes."""

    def __contains__(self, name: str) -> bool:
        return name in self.members

    def read(self, name: str) -> bytes:
        """Bytes of a file.

        Raises:
            BrokenOrbitError: it is missing or cut short, or the shard cannot be opened.
        """
        if not self.members:
            if not is_url(self.url) and not Path(self.url).is_file():
                raise BrokenOrbitError(MISSING_SHARD, f"no shard at {self.url}: copy it")
            raise BrokenOrbitError(
                TRUNCATED_SHARD, f"{self.url} lacks {self.uid}: render the shard again"
            )
        member = self.members.get(name)
        if member is None:
            kind = BAD_CAMERAS if name == "json" else MISSING_FILE
            raise BrokenOrbitError(kind, f"{self.label(name)} is missing: render the shard again")
        if isinstance(member, bytes):
            return member
        offset, size = member
        try:
            with open(self.url, "rb") as shard:
                shard.seek(offset)
                data = shard.read(size)
        except FileNotFoundError as error:
            raise BrokenOrbitError(MISSING_SHARD, f"no shard at {self.url}: copy it") from error
        except OSError as error:
            raise BrokenOrbitError(
                TRUNCATED_SHARD, f"cannot read shard {self.url} ({error.strerror}): render it again"
            ) from error
        if len(data) < size:
            raise BrokenOrbitError(
                TRUNCATED_SHARD, f"{self.label(name)} is cut short: render the shard again"
            )
        return data

    def label(self, name: str) -> str:
        """How errors name a file."""
        return f"{self.url}: {self.uid}.{name}"

    def content(self) -> dict[str, Any]:
        """What `<uid>.json` says.

        Raises:
            BrokenOrbitError: it is missing or no camera file.
        """
        return parse_cameras(self.read("json"), self.label("json"))

    @property
    def is_whole(self) -> bool:
        """Whether there are cameras, and an image for each."""
        try:
            num_views = len(self.content()["frames"])
        except BrokenOrbitError:
            return False
        return all(
            any(f"{view:03d}.{suffix}" in self.members for suffix in IMAGE_SUFFIXES)
            for view in range(num_views)
        )


def find_shards(
    source: str | Path | Sequence[str | Path], strict: bool = False, allow_missing: bool = False
) -> list[Shard]:
    """The complete shards of a data set. Hidden files are unfinished.

    What orbits a shard holds is read from the `index*.json` beside the shards. A shard that no
    index knows is read through once; so is one that has grown since. Of one that is smaller than
    its index says, the index is believed, so that the lost orbits are noticed and counted.

    Args:
        source: a folder of shards, one shard, a list of shards; or URLs of shards with webdataset's
            braces and `::`, for instance `https://host/orbits-{000000..000123}.tar` or
            `pipe:aws s3 cp s3://bucket/orbits-{000000..000123}.tar -`; or the path or URL of an
            `index.json`, which names all shards beside it, or of its folder.
        strict: a shard that cannot be read through is an error rather than a warning.
        allow_missing: a shard that is not there or not given by its server is a warning, not an
            error.

    Raises:
        InputError: there is not one orbit; `strict` and a shard is broken; a shard is not there.
    """
    urls = _present(shard_urls(source), allow_missing)
    index: dict[tuple[str, str], dict[str, Any]] = {}
    for place, shard in {place_of(url)[0]: url for url in urls}.items():
        for index_url in index_urls(shard):
            index |= {(place, entry["file"]): entry for entry in read_index(index_url)}
    lost = sorted(name for _, name in set(index) - {place_of(url) for url in urls})
    if lost and _is_folder(source):
        _tell_lost(source, lost, strict or not allow_missing)
    known, unknown = {}, []
    for url in urls:
        entry = index.get(place_of(url))
        if entry is None or (not is_url(url) and Path(url).stat().st_size > entry["num_bytes"]):
            unknown.append(url)
        else:
            known[url] = tuple(entry["uids"])
    for url in track(unknown, "listing shards") if len(unknown) > 20 else unknown:
        known[url] = tuple(_list_uids(url, strict, allow_missing))
    if not any(known.values()):
        raise InputError(f"{source} holds no orbit that can be read: run scripts/render_orbits.py")
    return [Shard(url, known[url]) for url in urls if known[url]]


def _present(urls: list[str], allow_missing: bool) -> list[str]:
    """Those of the shards that are URLs or are there."""
    there = [url for url in urls if is_url(url) or Path(url).is_file()]
    gone = sorted(set(urls) - set(there))
    if gone and (not allow_missing or not there):
        raise InputError(f"no shard at {gone[0]}: run scripts/render_orbits.py")
    for url in gone:
        console.print(f"no shard at {url}: it is left out", markup=False)
    return there


def _tell_lost(source: Any, lost: list[str], is_error: bool) -> None:
    message = f"{source} lacks {len(lost)} shards of its index: copy {', '.join(lost[:3])}"
    message += ", ..." if len(lost) > 3 else ""
    if is_error:
        raise InputError(message)
    console.print(message, markup=False)


def _is_folder(source: str | Path | Sequence[str | Path]) -> bool:
    return isinstance(source, (str, Path)) and not is_url(source) and Path(source).is_dir()


def member_name(member: tarfile.TarInfo) -> tuple[str, str] | None:
    """Uid and name of an orbit's file: `./train.v1/cup.000.png` is 000.png of train.v1/cup.

    Returns:
        The two, or None for what is no file of an orbit: folders, links, hidden files.
    """
    folder, base = posixpath.split(posixpath.normpath(member.name))
    stem, dot, name = base.partition(".")
    if not member.isreg() or not stem or not dot:
        return None
    return posixpath.join(folder, stem), name.lower()


def _list_uids(url: str, strict: bool, allow_missing: bool) -> list[str]:
    """Complete orbits of a shard, by reading it through; those before the cut of a broken one.

    Raises:
        InputError: `strict`, and the shard is broken; not `allow_missing`, and it is not there.
    """
    uids: list[str] = []
    error: Exception | None = None
    try:
        if is_url(url):
            with opened(url) as stream, tarfile.open(fileobj=stream, mode="r|*") as tar:
                uids.extend(
                    uid for uid, name in filter(None, map(member_name, tar)) if name == "json"
                )
        else:
            members, error = local_members(url)
            uids.extend(uid for uid, names in members.items() if "json" in names)
    except BROKEN_SHARD as broken:
        error = broken
    if error is None:
        return uids
    problem = _problem(url, error)
    if strict or (problem.kind == MISSING_SHARD and not allow_missing):
        raise InputError(str(problem)) from error
    console.print(f"{problem}; {len(uids)} orbits of it are used", markup=False)
    return uids


def _problem(url: str, error: Exception) -> BrokenOrbitError:
    """What is wrong with a shard that could not be read."""
    refused = refusal(url)
    if refused:
        return BrokenOrbitError(
            MISSING_SHARD, f"no shard at {url} ({refused}): check the address and the server"
        )
    fix = "check that its command gives the whole shard" if is_url(url) else "render it again"
    return BrokenOrbitError(TRUNCATED_SHARD, f"cannot read shard {url} ({one_line(error)}): {fix}")


def local_members(
    path: str,
) -> tuple[dict[str, dict[str, tuple[int, int]]], Exception | None]:
    """Offset and size of every file of a local shard, by uid and name.

    Returns:
        The table, and the error where the shard breaks off, or None.
    """
    table: dict[str, dict[str, tuple[int, int]]] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                found = member_name(member)
                if found:
                    table.setdefault(found[0], {})[found[1]] = (member.offset_data, member.size)
    except BROKEN_SHARD as error:
        return table, error
    return table, None


def stream_orbits(shard: Shard, wanted: Collection[str]) -> Iterator[ShardOrbit]:
    """Read orbits of a shard from its beginning to the last wanted one, in stored order.

    Orbits that are not wanted are passed over; those that lack files come last.

    Raises:
        BrokenOrbitError: the shard ends or breaks before all are read, or an orbit's files do not
            lie side by side.
    """
    left = set(wanted)
    incomplete: dict[str, ShardOrbit] = {}
    try:
        for orbit in _neighbors(shard.url, left):
            if orbit.uid in incomplete:
                raise BrokenOrbitError(
                    UNSORTED_SHARD,
                    f"{shard.url}: the files of {orbit.uid} do not lie side by side: pack the "
                    "shard sorted by name (tar --sort=name)",
                )
            if not orbit.is_whole:
                incomplete[orbit.uid] = orbit
                continue
            left.discard(orbit.uid)
            yield orbit
            if not left:
                return
    except BROKEN_SHARD as error:
        if isinstance(error, BrokenOrbitError):
            raise
        raise _problem(shard.url, error) from error
    left.difference_update(incomplete)
    yield from incomplete.values()
    if left:
        raise BrokenOrbitError(
            TRUNCATED_SHARD, f"{shard.url} lacks orbits of its index: render the shard again"
        )


def _neighbors(url: str, wanted: Collection[str]) -> Iterator[ShardOrbit]:
    """Neighboring files of one wanted orbit, together."""
    orbit, files = "", dict[str, bytes | tuple[int, int]]()
    with opened(url) as stream, tarfile.open(fileobj=stream, mode="r|*") as tar:
        for member in tar:
            uid, name = member_name(member) or ("", "")
            if not uid:
                continue
            if uid != orbit and files:
                yield ShardOrbit(orbit, url, files)
                files = {}
            orbit = uid
            if uid in wanted and member.size > MAX_FILE_BYTES:
                raise tarfile.ReadError(f"{member.name} has {member.size} bytes")
            if uid in wanted:
                content = tar.extractfile(member)
                files[name] = content.read() if content else b""
            tar.members = []  # type: ignore[attr-defined]
    if files:
        yield ShardOrbit(orbit, url, files)
