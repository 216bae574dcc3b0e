"""What every script does around its one call: arguments, one-line errors, exit codes."""

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path

from hi3d.config import shortened
from hi3d.errors import InputError
from hi3d.progress import console, set_quiet
from hi3d.settings import describe_settings

_OVERRIDE = re.compile(r"^[A-Za-z_][\w.]*=")
_SCRIPT = re.compile(r"(?:python )?scripts/(\w+)\.py")


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
    """Call `main`; an `InputError` is one line and exit code 2, an interrupt exit code 130.

    So is what the system refuses: a full disk, a file that may not be read, a path too long.
    """
    try:
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.errno is None:
            raise
        place = f": {shortened(error.filename)}" if error.filename else ""
        print(f"error: {error.strerror}{place}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        console.print("interrupted: what was finished is kept; see --help for how to go on")
        sys.exit(130)


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
