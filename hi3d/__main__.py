"""The console command `hi3d NAME ...`: it runs scripts/NAME.py, which the installation carries."""

import ast
import sys
from difflib import get_close_matches
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import hi3d
from hi3d.command_line import run
from hi3d.files import shipped


def main() -> None:
    """Run the command that the first word names, on the words after it."""
    words = sys.argv[1:]
    scripts = commands()
    if not words or words[0] in ("-h", "--help"):
        print(overview(scripts))
    elif words[0] == "--version":
        print(f"hi3d {hi3d.__version__}")
    elif words[0] in scripts:
        sys.argv = [f"hi3d {words[0]}", *words[1:]]
        run(loaded(scripts[words[0]]).main)
    else:
        near = get_close_matches(words[0], scripts, n=1, cutoff=0.4)
        hint = f"did you mean '{near[0]}'?" if near else f"choose one of {', '.join(scripts)}"
        print(f"error: no command '{words[0]}': {hint}", file=sys.stderr)
        sys.exit(2)


def commands() -> dict[str, Path]:
    """The script of every command: `render-orbits` is scripts/render_orbits.py."""
    paths = sorted(shipped("scripts/generate.py").parent.glob("*.py"))
    return {path.stem.replace("_", "-"): path for path in paths}


def loaded(path: Path) -> ModuleType:
    """A script as a module; its `main` is not yet run."""
    spec = spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def overview(scripts: dict[str, Path]) -> str:
    """What `hi3d --help` prints: a line for every command, from the script's docstring."""
    width = max(map(len, scripts)) + 2
    lines = [f"  {name:{width}}{summary(path)}" for name, path in scripts.items()]
    return "\n".join(
        [
            "usage: hi3d COMMAND [arguments] [--config FILE] [key=value ...]",
            "       hi3d COMMAND --help",
            "       hi3d --version",
            "",
            "commands:",
            *lines,
        ]
    )


def summary(path: Path) -> str:
    """The first line of a script's docstring, up to its usage."""
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    return text.split("\n")[0].split(": scripts/")[0].rstrip(".")


if __name__ == "__main__":
    main()
