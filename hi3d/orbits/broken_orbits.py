"""Orbits that cannot be read: an error each, or a count of each kind."""

from collections import Counter

from hi3d.errors import InputError
from hi3d.progress import console

TRUNCATED_SHARD = "truncated shard"
MISSING_SHARD = "missing shard"
UNSORTED_SHARD = "unsorted shard"
MISSING_FILE = "missing view"
WRONG_SIZE = "wrong size"
UNREADABLE_IMAGE = "unreadable image"
BAD_CAMERAS = "bad camera file"


class BrokenOrbitError(InputError):
    """An orbit that cannot be read; `kind` is one of this module's constants."""

    def __init__(self, kind: str, message: str):
        """Args:
        kind: for counting.
        message: one line with the file, the cause and the fix.
        """
        super().__init__(message)
        self.kind = kind

    def __reduce__(self) -> tuple:
        return BrokenOrbitError, (self.kind, str(self))


class BrokenOrbitCounts:
    """Counts broken orbits by kind; the first of a kind is told at once, the counts at the end."""

    def __init__(self, where: str = "") -> None:
        """Args: where: names the process in messages."""
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, str] = {}
        self._where = where

    def add(self, error: BrokenOrbitError) -> None:
        """Note a broken orbit."""
        if error.kind not in self.examples:
            self.examples[error.kind] = str(error)
            console.print(
                f"{self._where}skipped an orbit, {error.kind}: {error}",
                markup=False,
            )
        self.counts[error.kind] += 1

    def report(self, period: str) -> None:
        """Print one line per kind, with the count and the first example, and count afresh."""
        for kind, count in sorted(self.counts.items()):
            console.print(
                f"{self._where}{period}: {count} orbits skipped, {kind}; "
                f"the first: {self.examples[kind]}",
                markup=False,
            )
        self.counts.clear()
