"""Where the shards of a data set are: folders, URLs, commands, and the index beside them."""

import re
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hi3d.errors import InputError
from hi3d.orbits.shards import index_entries
from hi3d.progress import console

TAR_NAME = re.compile(r"[^/\s?]+\.tar\b")
PLAIN_NAME = re.compile(r"[\w+=][\w.+=-]*\.tar", re.ASCII)
"""A shard's name in an index: it may become part of a shell's command."""
ANSWER_SECONDS = 20
NO_INDEX = (OSError, ValueError, KeyError, TypeError)
"""What reading an index can raise."""


def is_url(source: str | Path) -> bool:
    """Whether webdataset opens it rather than the file system: `https://`, `gs://`, `pipe:`, ..."""
    return re.match(r"[a-z][a-z0-9+]+:", str(source)) is not None


def opened(url: str) -> Any:
    """A stream of the bytes of a path or URL, to be used in a `with`."""
    if not is_url(url):
        return open(url, "rb")
    import webdataset

    return webdataset.gopen(url)


def refusal(url: str) -> str | None:
    """Why a web server does not give a file; None where it does, and for other URLs and paths."""
    if not url.startswith(("http://", "https://")):
        return None
    try:
        request = urllib.request.Request(url, headers={"Range": "bytes=0-0"})
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS):
            return None
    except urllib.error.HTTPError as error:
        return f"the server answers {error.code} {error.reason}"
    except (OSError, ValueError) as error:
        return f"the server cannot be reached: {one_line(getattr(error, 'reason', error))}"


def one_line(error: Any) -> str:
    """An error's message; webdataset adds objects to the arguments, the first is the message."""
    text = error.args[0] if isinstance(error, ValueError) and error.args else error
    return " ".join(str(text).split()) or type(error).__name__


def shard_urls(source: str | Path | Sequence[str | Path]) -> list[str]:
    """Paths or URLs of the shards of `source`, which `hi3d.data.shards.find_shards` describes.

    Raises:
        InputError: there are none, or the index that names them cannot be read.
    """
    if not isinstance(source, (str, Path)):
        return [url for part in source for url in shard_urls(part)]
    text = str(source)
    path, query = split_query(text)
    if re.match(r"[a-z][a-z0-9+]+://[^\s{]+$", text) and not re.search(r"\.(tar|json)\b|::", path):
        path = f"{path.rstrip('/')}/index.json"
        text = path + query
    if path.endswith(".json"):
        urls = _indexed_urls(text)
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
    return urls


def _indexed_urls(url: str) -> list[str]:
    """The shards that an `index.json` names, beside it."""
    try:
        entries = _entries(url)
    except NO_INDEX as error:
        reason = refusal(url) or one_line(error)
        raise InputError(
            f"cannot read the index {url} ({reason}): give the index.json of rendered orbits"
        ) from error
    for entry in entries:
        if not PLAIN_NAME.fullmatch(entry["file"]):
            raise InputError(
                f"{url} names {entry['file']!r}: a shard is a plain file name ending .tar"
            )
    if not entries:
        raise InputError(f"{url} lists no shard: give the index.json of rendered orbits")
    path, query = split_query(url)
    folder = path.rpartition("/")[0] or "."
    return [f"{folder}/{entry['file']}{query}" for entry in entries]


def split_query(url: str) -> tuple[str, str]:
    """An address without its query string, and that with its question mark.

    What signs an address is often there. Paths and commands have none.
    """
    if not re.match(r"[a-z][a-z0-9+]+://", url):
        return url, ""
    path, mark, query = url.partition("?")
    return path, mark + query


def read_index(url: str) -> list[dict[str, Any]]:
    """Entries with `file`, `uids` and `num_bytes`; none where shards must be read instead."""
    try:
        return _entries(url)
    except NO_INDEX as error:
        if is_url(url):
            console.print(
                f"no index at {url} ({refusal(url) or one_line(error)}): reading every shard once "
                "to count its orbits",
                markup=False,
            )
        return []


def _entries(url: str) -> list[dict[str, Any]]:
    if not is_url(url) and not Path(url).is_file():
        raise FileNotFoundError("no such file")
    with opened(url) as stream:
        return index_entries(stream.read())


def place_of(url: str) -> tuple[str, str]:
    """Where a shard lies, and its name; of a URL the first is what surrounds the name."""
    match = TAR_NAME.search(url)
    if is_url(url) and match:
        return TAR_NAME.sub("", url, count=1), match.group()
    return str(Path(url).parent), Path(url).name


def index_urls(shard: str) -> list[str]:
    """Where the index of a shard may be: beside it, one or one for each part of the rendering."""
    if is_url(shard):
        return [TAR_NAME.sub("index.json", shard, count=1)]
    return [str(path) for path in sorted(Path(shard).parent.glob("index*.json"))]
