"""The web component that turns meshes: one file of npm, fetched once and kept with its checksum."""

import functools
import hashlib
import io
import tarfile
import threading
import time
import urllib.request
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path

from hi3d.errors import InputError
from hi3d.files import atomic_path
from hi3d.native import cache_folder

VERSION = "4.4.0"
URL = f"https://registry.npmjs.org/@google/model-viewer/-/model-viewer-{VERSION}.tgz"
MEMBER = "package/dist/model-viewer.min.js"
SHA256 = "18b2e711035aa4705ee281530a55dc2338ff05eed3d70ae16d54105282a75ed5"
PACKAGE_SHA512 = (
    "f33d52079b0f9732a86a4e66771fc3df56eb05a90f626dd08b7d447c0b9c1c05"
    "2bb6b1c709b69bca990abd2c11798854a4f6b1c89e3aa13e3bb9613f86bb3567"
)
"""Of the package, as the registry gives it (dist.integrity)."""
ANSWER_SECONDS, FETCH_SECONDS = 3.0, 20.0
"""Longest silence of the registry, and longest time for all of the package."""
CHUNK = 1 << 18
MAX_PACKAGE_BYTES = 32 << 20


@functools.cache
def viewer_script() -> str | None:
    """The component's JavaScript, from the cache or else from the registry; None without both.

    It is asked for once in a process, so that a machine without a network waits once.
    """
    path = kept_viewer()
    try:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() == SHA256:
            return content.decode()
    except OSError:
        pass
    try:
        content = member_of(fetched_package())
        with atomic_path(path) as partial:
            partial.write_bytes(content)
    except (OSError, ValueError, tarfile.TarError, InputError):
        return None
    return content.decode()


def kept_viewer() -> Path:
    """Where the file is kept."""
    return cache_folder() / f"model-viewer-{VERSION}.min.js"


def how_to_get_viewer() -> str:
    """What a page says where the component is not at hand."""
    return (
        "Meshes cannot be turned here: the viewer was not at hand when this page was made. Make it "
        f"again where registry.npmjs.org can be reached, or put dist/model-viewer.min.js of "
        f"@google/model-viewer {VERSION} at {kept_viewer()}."
    )


def fetched_package() -> bytes:
    """The package, within a few seconds.

    Raises:
        OSError: the registry cannot be reached, or takes too long.
        ValueError: what it gives is not the package.
    """
    download = _Download(URL)
    download.start()
    if download.answered.wait(ANSWER_SECONDS):
        download.join(FETCH_SECONDS)
    if download.content is None:
        raise TimeoutError("the registry is not reached, or too slow")
    if hashlib.sha512(download.content).hexdigest() != PACKAGE_SHA512:
        raise ValueError("the package has another checksum")
    return download.content


class _Download(threading.Thread):
    """Fetches a URL; whoever waits may give up, also while a name is being resolved."""

    def __init__(self, url: str):
        super().__init__(daemon=True)
        self.url = url
        self.answered = threading.Event()
        self.content: bytes | None = None

    def run(self) -> None:
        """Fetch; what goes wrong leaves `content` empty."""
        end, content = time.monotonic() + FETCH_SECONDS, bytearray()
        with suppress(OSError, ValueError, HTTPException):
            with urllib.request.urlopen(self.url, timeout=ANSWER_SECONDS) as answer:
                self.answered.set()
                while chunk := answer.read1(CHUNK):
                    content += chunk
                    if time.monotonic() > end or len(content) > MAX_PACKAGE_BYTES:
                        return
            self.content = bytes(content)
        self.answered.set()


def member_of(package: bytes) -> bytes:
    """The component's file in a package.

    Raises:
        ValueError: it is not there, or another one.
    """
    with tarfile.open(fileobj=io.BytesIO(package), mode="r:gz") as archive:
        found = archive.extractfile(MEMBER)
        content = b"" if found is None else found.read()
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise ValueError("the viewer has another checksum")
    return content
