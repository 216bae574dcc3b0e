"""Every visitor has a folder that no other one sees, and that is deleted when they leave."""

import secrets
import shutil
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from hi3d.demo.job import Job
from hi3d.pipelines.image_to_3d import Photo

ENDING_SECONDS = 5.0
"""For which a cancelled job is waited for before its files are deleted."""


@dataclass
class Visitor:
    """What one browser tab, or one program, has here."""

    folder: Path
    """Under a name that cannot be guessed."""
    photo: Photo | None = None
    """Cut out and framed."""
    job: Job | None = None
    """The last one."""
    uploads: set[Path] = field(default_factory=set)
    """Files as the server received them."""
    seen: float = field(default_factory=time.monotonic)
    runs: int = 0
    pictures: int = 0

    def keep_picture(self, picture: Image.Image) -> Path:
        """A file of a picture, under a name that no earlier one had, which browsers may hold."""
        self.pictures += 1
        path = self.folder / f"picture_{self.pictures}.webp"
        picture.save(path, quality=90)
        return path

    def new_run(self) -> Path:
        """An empty place for the next result; the last one is deleted."""
        shutil.rmtree(self.folder / f"run_{self.runs}", ignore_errors=True)
        self.runs += 1
        return self.folder / f"run_{self.runs}"

    def cancel(self) -> None:
        """End the job, if one is at work."""
        if self.job is not None:
            self.job.cancel()

    @property
    def is_busy(self) -> bool:
        """Whether a job is at work."""
        return self.job is not None and self.job.is_alive()


class Visitors:
    """All that are here now."""

    def __init__(self, root: Path, kept_seconds: float):
        """Args:
        root: folder of all temporary files, the server's own too.
        kept_seconds: after which the files of who does nothing are deleted.
        """
        self.root, self.kept_seconds = root, kept_seconds
        self._here: dict[str, Visitor] = {}
        self._lock = threading.Lock()

    def of(self, key: str | None) -> Visitor:
        """The visitor of a session; a program without one is a new visitor each time."""
        key = key or secrets.token_urlsafe()
        with self._lock:
            if key not in self._here:
                folder = self.root / f"visitor_{secrets.token_urlsafe(24)}"
                folder.mkdir(mode=0o700, parents=True)
                self._here[key] = Visitor(folder)
            visitor = self._here[key]
            visitor.seen = time.monotonic()
            return visitor

    def leave(self, key: str | None) -> None:
        """End a visitor's job and delete their files, also the uploads that no other one sent."""
        with self._lock:
            visitor = self._here.pop(key or "", None)
            others = set().union(*(other.uploads for other in self._here.values()))
        if visitor is None:
            return
        visitor.cancel()
        if visitor.job is not None:
            visitor.job.join(ENDING_SECONDS)
        for upload in visitor.uploads - others:
            with suppress(OSError):
                upload.unlink()
                upload.parent.rmdir()
        shutil.rmtree(visitor.folder, ignore_errors=True)

    def clean(self, visitor: Visitor) -> None:
        """Delete once more what a job wrote whose visitor has left."""
        with self._lock:
            here = any(other is visitor for other in self._here.values())
        if not here:
            shutil.rmtree(visitor.folder, ignore_errors=True)

    def sweep(self) -> None:
        """Delete what belongs to visitors who have done nothing for long, and stray uploads."""
        now = time.monotonic()
        with self._lock:
            here = dict(self._here)
        for key, visitor in here.items():
            if not visitor.is_busy and now - visitor.seen > self.kept_seconds:
                self.leave(key)
        folders = {visitor.folder for visitor in here.values()}
        for path in self.root.iterdir():
            if path not in folders and time.time() - path.stat().st_mtime > self.kept_seconds:
                shutil.rmtree(path, ignore_errors=True)

    def close(self) -> None:
        """Delete everything."""
        for key in list(self._here):
            self.leave(key)
        shutil.rmtree(self.root, ignore_errors=True)
