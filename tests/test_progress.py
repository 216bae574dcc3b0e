"""Progress that is readable in a log file."""

import io

import pytest
from rich.console import Console

from hi3d import progress


@pytest.fixture
def log(monkeypatch) -> io.StringIO:
    """A console that is no terminal."""
    text = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=text, force_terminal=False, width=200))
    return text


def test_lines_appear_where_there_is_no_terminal(log, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    for _ in progress.track(range(5), "rays"):
        now[0] += 20
    lines = [line for line in log.getvalue().splitlines() if "left," in line]
    assert [line.split(",")[0] for line in lines] == ["rays 3/5", "rays 5/5"]


def test_quiet_prints_nothing(log):
    progress.set_quiet(True)
    assert list(progress.track(range(3), "rays")) == [0, 1, 2]
    progress.set_quiet(False)
    assert log.getvalue() == ""


def test_a_watcher_sees_every_step_and_can_end_the_work(log):
    seen = []

    def watcher(name: str, done: float, total: float | None) -> None:
        seen.append((name, done, total))
        if done == 2:
            raise KeyError("enough")

    with pytest.raises(KeyError), progress.watched(watcher):
        list(progress.track(range(5), "rays"))
    assert seen == [("rays", 1, 5), ("rays", 2, 5)]
    list(progress.track(range(2), "rays"))
    assert len(seen) == 2
