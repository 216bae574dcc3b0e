"""What every script does around its one call: arguments, one-line errors, exit codes."""

import argparse
import re
import sys
from collections.abc import Callable

from hi3d.errors import InputError
from hi3d.progress import console, set_quiet

_OVERRIDE = re.compile(r"^[A-Za-z_][\w.]*=")


def make_parser(description: str, example: str) -> argparse.ArgumentParser:
    """A parser with `--config`, `--quiet` and any number of `key=value` overrides.

    The namespace gets `overrides`, a list of `key=value` strings, from `parse_arguments`.
    """
    parser = argparse.ArgumentParser(
        description=description,
        epilog=f"Options of the config are set by key=value. Example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", metavar="FILE", help="YAML file with the settings")
    parser.add_argument("--quiet", action="store_true", help="no progress bars or messages")
    return parser


def parse_arguments(
    parser: argparse.ArgumentParser, argv: list[str] | None = None
) -> argparse.Namespace:
    """Parse `argv`; every `key=value` word, wherever it stands, goes to `overrides`."""
    words = sys.argv[1:] if argv is None else argv
    overrides = [word for word in words if _OVERRIDE.match(word)]
    arguments = parser.parse_args([word for word in words if not _OVERRIDE.match(word)])
    arguments.overrides = overrides
    set_quiet(arguments.quiet)
    return arguments


def run(main: Callable[[], None]) -> None:
    """Call `main`; an `InputError` is one line and exit code 2, an interrupt exit code 130."""
    try:
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        console.print("interrupted: what was finished is kept; see --help for how to go on")
        sys.exit(130)
