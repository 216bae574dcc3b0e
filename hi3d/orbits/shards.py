"""Orbits in WebDataset shards: tar files with an index beside them, local or behind URLs.

`hi3d.orbits.shard_writer` fills them safely.
"""

import json
import re
import tarfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hi3d.errors import InputError
from hi3d.files import write_json
from hi3d.orbits.broken_orbits import BAD_CAMERAS, MISSING_FILE, TRUNCATED_SHARD, BrokenOrbitError
from hi3d.orbits.decoding import parse_cameras
from hi3d.orbits.encoded_orbit import EncodedOrbit
from hi3d.progress import console, track

BLOCK = tarfile.BLOCKSIZE
END_OF_TAR = bytes(2 * BLOCK)
BROKEN_SHARD = (tarfile.TarError, OSError, ValueError)
"""What webdataset and tarfile raise for shards that break off or cannot be opened."""
TAR_NAME = re.compile(r"[^/\s]+\.tar\b")


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


def is_url(source: str | Path) -> bool:
    """Whether webdataset opens it rather than the file system: `https://`, `gs://`, `pipe:`, ..."""
    return re.match(r"[a-z][a-z0-9+]+:", str(source)) is not None


def find_shards(source: str | Path | Sequence[str | Path], strict: bool = False) -> list[Shard]:
    """The complete shards of a data set. Hidden files are unfinished.

    What orbits a shard holds is read from the `index*.json` beside the shards. A shard that no
    index knows is read through once; so is one that has grown since. Of one that is smaller than
    its index says, the index is believed, so that the lost orbits are noticed and counted. Shards
    that the index of a folder names and that are not there are told.

    Args:
        source: a folder of shards, one shard, a list of shards; or URLs of shards with webdataset's
            braces and `::`, for instance `https://host/orbits-{000000..000123}.tar` or
            `pipe:aws s3 cp s3://bucket/orbits-{000000..000123}.tar -`; or the path or URL of an
            `index.json`, which names all shards beside it.
        strict: a shard that cannot be read through, or is not there, is an error rather than a
            warning.

    Raises:
        InputError: there is not one orbit; `strict` and a shard is broken or not there.
    """
    urls = _shard_urls(source)
    index: dict[tuple[str, str], dict[str, Any]] = {}
    for place, shard in {_place(url)[0]: url for url in urls}.items():
        for index_url in _index_urls(shard):
            index |= {(place, entry["file"]): entry for entry in read_index(index_url)}
    lost = sorted(name for _, name in set(index) - {_place(url) for url in urls})
    if lost and _is_folder(source):
        message = f"{source} lacks {len(lost)} shards of its index: copy {', '.join(lost[:3])}"
        message += ", ..." if len(lost) > 3 else ""
        if strict:
            raise InputError(message)
        console.print(message, markup=False)
    known, unknown = {}, []
    for url in urls:
        entry = index.get(_place(url))
        if entry is None or (not is_url(url) and Path(url).stat().st_size > entry["num_bytes"]):
            unknown.append(url)
        else:
            known[url] = tuple(entry["uids"])
    for url in track(unknown, "listing shards") if len(unknown) > 20 else unknown:
        known[url] = tuple(_list_uids(url, strict))
    if not any(known.values()):
        raise InputError(f"{source} holds no orbit that can be read: run scripts/render_orbits.py")
    return [Shard(url, known[url]) for url in urls if known[url]]


def _shard_urls(source: str | Path | Sequence[str | Path]) -> list[str]:
    if not isinstance(source, (str, Path)):
        return [url for part in source for url in _shard_urls(part)]
    text = str(source)
    if text.endswith(".json"):
        folder = text.rpartition("/")[0] or "."
        names = [entry["file"] for entry in read_index(text)]
        for name in names:
            if re.fullmatch(r"[\w.+=-]+\.tar", str(name), re.ASCII) is None or name[0] in ".-":
                raise InputError(f"{text} names {name!r}: a shard is a plain file name ending .tar")
        if not names:
            raise InputError(f"{text} lists no shard: give the index.json of rendered orbits")
        urls = [f"{folder}/{name}" for name in names]
    elif is_url(text) or "{" in text or "::" in text:
        from webdataset.shardlists import expand_urls

        urls = expand_urls(text)
        if not all(TAR_NAME.search(url) for url in urls):
            raise InputError(f"{text} names no .tar: give URLs of shards, or of their index.json")
    elif Path(text).is_dir():
        urls = [str(p) for p in sorted(Path(text).glob("*.tar")) if not p.name.startswith(".")]
        if not urls:
            raise InputError(f"{text} holds no shard (*.tar): run scripts/render_orbits.py")
    else:
        urls = [text]
    for url in urls:
        if not is_url(url) and not Path(url).is_file():
            raise InputError(f"no shard at {url}: run scripts/render_orbits.py")
    return urls


def _is_folder(source: str | Path | Sequence[str | Path]) -> bool:
    return isinstance(source, (str, Path)) and not is_url(source) and Path(source).is_dir()


def _place(url: str) -> tuple[str, str]:
    """Where a shard lies, and its name; of a URL the first is what surrounds the name."""
    match = TAR_NAME.search(url)
    if is_url(url) and match:
        return TAR_NAME.sub("", url, count=1), match.group()
    return str(Path(url).parent), Path(url).name


def _index_urls(shard: str) -> list[str]:
    """Where the index of a shard may be: beside it, one or one for each part of the rendering."""
    if is_url(shard):
        return [TAR_NAME.sub("index.json", shard, count=1)]
    return [str(path) for path in Path(shard).parent.glob("index*.json")]


def read_index(url: str) -> list[dict[str, Any]]:
    """Entries with `file` and `uids`; none where there is no such file and shards must be read."""
    try:
        with _opened(url) as stream:
            entries = json.loads(stream.read())["shards"]
        return [entry for entry in entries if {"file", "uids", "num_bytes"} <= {*entry}]
    except (OSError, ValueError, KeyError, TypeError) as error:
        if is_url(url):
            console.print(
                f"no index at {url} ({error}): reading every shard once to count its orbits",
                markup=False,
            )
        return []


def _opened(url: str) -> Any:
    if not is_url(url):
        return open(url, "rb")
    import webdataset

    return webdataset.gopen(url)


def _list_uids(url: str, strict: bool) -> list[str]:
    """Complete orbits of a shard, by reading it through; those before the cut of a broken one.

    Raises:
        InputError: `strict`, and the shard is broken.
    """
    uids: list[str] = []
    try:
        if is_url(url):
            from webdataset.tariterators import tarfile_samples

            only_json = tarfile_samples(
                iter([{"url": url}]), select_files=lambda name: name.endswith(".json")
            )
            uids.extend(sample["__key__"] for sample in only_json)
            return uids
        members, error = local_members(url)
        uids.extend(uid for uid, names in members.items() if "json" in names)
        if error is None:
            return uids
    except BROKEN_SHARD as broken:
        error = broken
    message = f"cannot read shard {url} ({_one_line(error)}): render it again"
    if strict:
        raise InputError(message) from error
    console.print(f"{message}; {len(uids)} orbits of it are used", markup=False)
    return uids


def _one_line(error: Exception) -> str:
    """webdataset adds objects to the arguments of errors; the first is the message."""
    return " ".join(str(error.args[0] if error.args else error).split())


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
                uid, _, name = member.name.partition(".")
                table.setdefault(uid, {})[name] = (member.offset_data, member.size)
    except (tarfile.TarError, OSError) as error:
        return table, error
    return table, None


def stream_orbits(shard: Shard, wanted: Collection[str]) -> Iterator[ShardOrbit]:
    """Read orbits of a shard from its beginning to the last wanted one, in stored order.

    Orbits that are not wanted are passed over.

    Raises:
        BrokenOrbitError: the shard ends or breaks before all are read.
    """
    from webdataset.tariterators import tarfile_samples

    left = set(wanted)

    def select(name: str) -> bool:
        # An orbit is complete for webdataset when the next one begins, so every `<uid>.json` too.
        return name.endswith(".json") or name.partition(".")[0] in left

    message = f"{shard.url} lacks orbits of its index: render the shard again"
    try:
        for sample in tarfile_samples(iter([{"url": shard.url}]), select_files=select):
            uid = sample["__key__"]
            if uid in left:
                left.discard(uid)
                files = {name: data for name, data in sample.items() if name[:2] != "__"}
                yield ShardOrbit(uid, shard.url, files)
            if not left:
                return
    except BROKEN_SHARD as error:
        message = f"cannot read shard {shard.url} ({_one_line(error)}): render it again"
    raise BrokenOrbitError(TRUNCATED_SHARD, message)


def tar_bytes(orbit: EncodedOrbit) -> bytes:
    """The orbit's members of a tar file; the json comes last."""
    members = [(f"{orbit.uid}.{name}", data) for name, data in orbit.files(".")]
    blocks = []
    for name, data in [*members, (f"{orbit.uid}.json", orbit.cameras)]:
        header = tarfile.TarInfo(name)
        header.size = len(data)
        blocks += [header.tobuf(), data, bytes(-len(data) % BLOCK)]
    return b"".join(blocks)


def shard_entry(path: Path, uids: list[str]) -> dict[str, Any]:
    """What an index says of a shard."""
    return {
        "file": path.name,
        "num_orbits": len(uids),
        "num_bytes": path.stat().st_size,
        "uids": uids,
    }


def totals(shards: list[dict[str, Any]]) -> dict[str, Any]:
    """Orbits and bytes of all shards of an index."""
    return {key: sum(shard[key] for shard in shards) for key in ("num_orbits", "num_bytes")}


def complete_orbits(path: Path) -> tuple[list[str], int]:
    """The orbits of a shard that are there whole, also of one that a killed run left.

    Returns:
        Their uids in stored order, and the offset in bytes at which the last one ends.

    Raises:
        InputError: the file cannot be read.
    """
    uids: list[str] = []
    end = 0
    try:
        size = path.stat().st_size
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                member_end = member.offset_data + -(-member.size // BLOCK) * BLOCK
                if member_end > size:
                    break
                if member.name.endswith(".json"):
                    uids.append(member.name.removesuffix(".json"))
                    end = member_end
    except tarfile.ReadError:  # the end is missing, or all of it
        pass
    except OSError as error:
        raise InputError(f"cannot read shard {path} ({error}): move it away") from error
    return uids, end


def merge_indices(output: Path, num_parts: int) -> bool:
    """Write the `index.json` of a run in several parts, once every part is complete.

    Args:
        output: folder of the shards.
        num_parts: n of `shard=i/n`.

    Returns:
        Whether all parts are complete.
    """
    shards: list[dict[str, Any]] = []
    for part in range(num_parts):
        try:
            content = json.loads((output / f"index-{part:04d}.json").read_text())
        except (OSError, ValueError):
            return False
        if not content["complete"]:
            return False
        shards += content["shards"]
    write_json(output / "index.json", totals(shards) | {"complete": True, "shards": shards})
    return True
