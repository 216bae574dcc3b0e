"""What happens when a visitor sends, draws, makes or cancels something."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from hi3d.demo.camera_picture import camera_picture, cutout_picture
from hi3d.demo.job import Job, one_line
from hi3d.demo.settings import Choices, chosen
from hi3d.demo.shown import finished, message, previews, stages
from hi3d.demo.studio import Studio
from hi3d.demo.uploads import NAME, take_upload
from hi3d.demo.visitors import Visitor, Visitors
from hi3d.errors import InputError
from hi3d.pages.markup import Markup
from hi3d.pipelines.image_to_3d import Photo

T = TypeVar("T")
POLL_SECONDS = 0.4
START_ELEVATION_DEG = 15.0
"""Of the slider where no estimate is at hand."""


@dataclass(frozen=True)
class Taken:
    """A photo that was received."""

    cutout: Path
    """Picture over a checkerboard."""
    camera: Path
    """Picture on the ground that a camera at this elevation sees."""
    elevation_deg: float
    """As given by the owner, or as estimated."""


@dataclass(frozen=True)
class Shown:
    """What a visitor sees of a run."""

    stages: Markup
    previews: Markup | None = None
    """None where it is as before."""
    result: Path | None = None
    """Folder of the finished result."""


class Desk:
    """Where visitors bring photos and fetch meshes."""

    def __init__(self, studio: Studio, visitors: Visitors):
        """Args:
        studio: makes everything.
        visitors: who is here.
        """
        self.studio, self.visitors = studio, visitors

    def take_photo(self, key: str | None, sent: str | Path) -> Taken:
        """Receive a photo.

        Args:
            key: of the visitor.
            sent: the file as the server received it.

        Raises:
            InputError: it is no photo of an object, or too large.
        """
        visitor = self.visitors.of(key)
        visitor.uploads.add(Path(sent))
        visitor.photo = None
        try:
            kept = take_upload(sent, visitor.folder, self.studio.config.limits)
            return self._taken(visitor, self.studio.cut_out(kept))
        except Exception as error:
            raise InputError(one_line(error, visitor.folder)) from error

    def draw(self, key: str | None, prompt: str) -> Iterator[Markup | Taken]:
        """Draw a prompt: a line while it is drawn, then what `take_photo` gives.

        Raises:
            InputError: it cannot be drawn.
        """
        visitor = self.visitors.of(key)
        visitor.photo = None
        job = self._started(visitor, lambda: self.studio.draw(prompt, visitor.folder / NAME))
        for _ in self._followed(visitor, job):
            yield stages(job) if not job.started and job.ahead else message("Drawing …")
        assert job.result is not None
        yield self._taken(visitor, job.result)

    def estimate(self, key: str | None) -> float | None:
        """Elevation of the camera of the visitor's photo; None without a photo or while busy."""
        photo = self.visitors.of(key).photo
        return None if photo is None else self.studio.elevation_deg(photo)

    def camera(self, key: str | None, elevation_deg: float) -> Path | None:
        """Picture of the visitor's photo on another ground; None without a photo."""
        visitor = self.visitors.of(key)
        if visitor.photo is None or not -90 < elevation_deg < 90:
            return None
        return visitor.keep_picture(camera_picture(visitor.photo.reference, elevation_deg))

    def make(self, key: str | None, choices: Choices) -> Iterator[Shown]:
        """Make the mesh of the visitor's photo; says again and again how far it is.

        Raises:
            InputError: a choice is out of range, there is no photo, or its mesh cannot be made.
        """
        visitor = self.visitors.of(key)
        photo, config = visitor.photo, chosen(self.studio.config, choices)
        if photo is None:
            raise InputError("there is no photo yet: send one first")
        folder = visitor.new_run()
        job = self._started(visitor, lambda: self.studio.make(photo, config, folder))
        seen: tuple[bool, ...] | None = None
        try:
            for _ in self._followed(visitor, job):
                now = finished(folder)
                yield Shown(stages(job), previews(folder) if now != seen else None)
                seen = now
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        yield Shown(stages(job), previews(folder), folder)

    def cancel(self, key: str | None) -> None:
        """End what the visitor has at work."""
        self.visitors.of(key).cancel()

    def _taken(self, visitor: Visitor, photo: Photo) -> Taken:
        visitor.photo, reference = photo, photo.reference
        estimate = self.studio.elevation_deg(photo)
        angle = START_ELEVATION_DEG if estimate is None else estimate
        cutout = visitor.keep_picture(cutout_picture(reference))
        return Taken(cutout, visitor.keep_picture(camera_picture(reference, angle)), angle)

    def _started(self, visitor: Visitor, work: Callable[[], T]) -> Job[T]:
        def cleaned() -> T:
            try:
                return work()
            finally:
                self.visitors.clean(visitor)

        job = Job(cleaned, self.studio.turns)
        visitor.job = job
        job.start()
        return job

    def _followed(self, visitor: Visitor, job: Job) -> Iterator[None]:
        """Yield until the job has ended; whoever stops listening cancels it."""
        try:
            while job.is_alive():
                yield
                job.join(POLL_SECONDS)
        finally:
            if job.is_alive():
                job.cancel()
        if job.error is not None:
            raise InputError(one_line(job.error, visitor.folder)) from job.error
