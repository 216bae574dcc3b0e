"""The dependency rule of the architecture, read from the import statements."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BASE = {"errors", "files", "progress", "report", "config", "command_line", "native"}
LAYERS = [
    {"cameras", "color"},
    {"views", "splats", "mesh"},
    {"diffusion", "degradation", "photo", "assets", "surface"},
    {"rendering", "splatting"},
    {"texture", "orbits"},
    {"data"},
    {"pipelines", "training", "evaluation"},
    {"nano"},
]
"""A part imports parts of earlier layers, itself and the base, never its own layer's others."""
KNOWN_VIOLATIONS = {
    ("diffusion", "nano"),
    ("pipelines", "nano"),
    ("training", "nano"),
    ("splatting", "evaluation"),
}
"""To be mended; each goes from this set with the change that mends it."""
ALLOWED_LIBRARIES = {
    "diffusers": {"diffusion", "pipelines", "training", "nano"},
    "transformers": {"diffusion", "pipelines", "training", "nano"},
    "gsplat": {"splatting"},
    "nerfacc": {"surface"},
    "pytorch_lightning": {"training", "nano"},
}
FILES = sorted((ROOT / "hi3d").rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Full names of all modules that a file imports, at any depth."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module)
    return names


def part(path: Path) -> str:
    """The package or module directly below hi3d that a file belongs to."""
    return path.relative_to(ROOT / "hi3d").parts[0].removesuffix(".py")


def layer(name: str) -> int:
    return next(i for i, names in enumerate(LAYERS) if name in names)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_layers(path):
    here = part(path)
    if here == "__init__":
        return
    for name in imported(path):
        if not name.startswith("hi3d."):
            library = name.split(".")[0]
            assert here in ALLOWED_LIBRARIES.get(library, {here}), f"{here} imports {library}"
            continue
        there = name.split(".")[1]
        if there in BASE or there == here:
            continue
        assert here not in BASE, f"the base imports {name}"
        if (here, there) not in KNOWN_VIOLATIONS:
            assert layer(there) < layer(here), f"{here} imports {name}"


@pytest.mark.parametrize("name", ["cameras.py", "diffusion/edm.py"])
def test_cameras_and_edm_need_only_torch(name):
    path = ROOT / "hi3d" / name
    standard = {"math", "dataclasses", "collections", "itertools"}
    assert {n.split(".")[0] for n in imported(path)} <= standard | {"torch"}


def test_scripts_are_short_and_nothing_imports_them():
    scripts = list((ROOT / "scripts").glob("*.py"))
    assert scripts
    for path in scripts:
        assert len(path.read_text().splitlines()) <= 60, path
    for path in FILES:
        assert not any(name.split(".")[0] == "scripts" for name in imported(path)), path


def test_every_test_folder_mirrors_the_package():
    for path in (ROOT / "tests").iterdir():
        if path.is_dir() and path.name not in ("__pycache__", "scripts"):
            assert (ROOT / "hi3d" / path.name).is_dir(), path
