"""What every script does around its one call: arguments, one-line errors, exit codes."""

import argparse
import contextlib
import errno
import math
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

from hi3d.config import shortened
from hi3d.errors import InputError
from hi3d.files import REFUSALS, system_error
from hi3d.progress import console, set_quiet
from hi3d.settings import describe_settings

_OVERRIDE = re.compile(r"^[A-Za-z_][\w.]*=")
_SCRIPT = re.compile(r"(?:python )?scripts/(\w+)\.py")
KEPT = "what was finished is kept; see --help for how to go on"
CLEANING_SECONDS = 3
SHOWN_PATH = 1000  # characters: a place is told whole
"""For which a second signal does not disturb the first one's cleaning."""


def make_parser(description: str, example: str, *settings: str) -> argparse.ArgumentParser:
    """A parser with `--config`, `--quiet` and any number of `key=value` overrides.

    The namespace gets `overrides`, a list of `key=value` strings, from `parse_arguments`.

    Args:
        description: one or two sentences.
        example: a command that works.
        settings: `module:Class` of each config that the script takes; `--help` lists their keys.
    """
    if sys.argv[0].startswith("hi3d "):
        example = _SCRIPT.sub(lambda script: "hi3d " + script[1].replace("_", "-"), example)
    parser = _Parser(
        description=description,
        epilog=f"Options of the config are set by key=value. Example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.settings = settings
    parser.add_argument("--config", metavar="FILE", help="YAML file with the settings")
    parser.add_argument("--quiet", action="store_true", help="no progress bars or messages")
    return parser


def parse_arguments(
    parser: argparse.ArgumentParser, argv: list[str] | None = None
) -> argparse.Namespace:
    """Parse `argv`; every `key=value` word, wherever it stands, goes to `overrides`.

    A word that is the name of a file is the file, also `cup_v=2.jpg` and `-cup.jpg`; what comes
    after `--` is never an option or an override.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    end = words.index("--") if "--" in words else len(words)
    names = words[end + 1 :]
    options, overrides = [], []
    for word in words[:end]:
        is_file = _is_there(word)
        if is_file and re.match(r"-[^-]", word):
            names.append(word)
        elif _OVERRIDE.match(word) and not is_file:
            overrides.append(word)
        else:
            options.append(word)
    names = [f"./{name}" if name.startswith("-") else name for name in names]
    arguments = parser.parse_intermixed_args([*options, *names])
    arguments.overrides = overrides
    set_quiet(arguments.quiet)
    return arguments


def run(main: Callable[[], None]) -> None:
    """Call `main`; an `InputError` is one line and exit code 2.

    So is what the system refuses, wherever it is raised: a full disk, a file that may not be read
    or written, too little memory. An interrupt is exit code 130, SIGTERM 143, SIGHUP 129; the
    files that were being written are removed.
    """
    try:
        with _stopped_by_signals():
            main()
            sys.stdout.flush()
    except InputError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        console.print(f"interrupted: {KEPT}")
        sys.exit(130)
    except _Stopped as stop:
        console.print(f"ended by {signal.Signals(stop.number).name}: {KEPT}")
        sys.exit(stop.code)
    except MemoryError:
        _fail("out of memory: give smaller inputs or settings, or more memory")
    except Exception as error:
        refusal = system_error(error)
        known = isinstance(error, OSError) or (refusal and refusal.errno in REFUSALS)
        if refusal is None or not known:
            raise
        _fail(_refusal_line(refusal))


def _refusal_line(error: OSError) -> str:
    """Cause, place and what to do about an error that has a number."""
    assert error.errno is not None
    if error.errno == errno.EPIPE:
        _drop_output()
    place = f": {shortened(error.filename, SHOWN_PATH)}" if error.filename else ""
    fix = f": {REFUSALS[error.errno]}" if error.errno in REFUSALS else ""
    return f"{os.strerror(error.errno)}{place}{fix}"


def _fail(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:  # Python would try once more at its end, and complain
        _drop_output()
    sys.exit(2)


def _drop_output() -> None:
    """Let what is left of the standard output go nowhere."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Stopped(SystemExit):
    """A signal asked the process to end."""

    def __init__(self, number: int):
        super().__init__(128 + number)
        self.number = number


@contextlib.contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Raise `_Stopped` at a signal that would end the process with its files half written.

    Signals that are ignored (nohup) stay so; forked workers end at once, as without this.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    last = -math.inf

    def stop(number: int, _: object) -> None:
        nonlocal last
        now = time.monotonic()
        if os.getpid() != process:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif now - last > CLEANING_SECONDS:  # the same request may come twice, to process and group
            last = now
            came.append(number)
            raise _Stopped(number)

    process, came = os.getpid(), list[int]()
    handled = {
        number: signal.signal(number, stop)
        for number in (signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) == signal.SIG_DFL
    }
    try:
        yield
    except Exception:
        if came:  # libraries swallow what is raised while they are imported, and then fail
            raise _Stopped(came[0]) from None
        raise
    finally:
        for number, before in handled.items():
            if signal.getsignal(number) is stop:
                signal.signal(number, before)


def _is_there(word: str) -> bool:
    try:
        return Path(word).exists()
    except OSError:  # too long for a name
        return False


class _Parser(argparse.ArgumentParser):
    """A parser whose help ends in the settings of the config."""

    settings: tuple[str, ...] = ()

    def format_help(self) -> str:
        """The usual help, then one entry for every setting."""
        tables = [
            f"\n{name.partition(':')[2]}, key=default:\n{describe_settings(name)}\n"
            for name in self.settings
        ]
        return super().format_help() + "".join(tables)
