"""The dependency rule of the architecture, read from the import statements.

`violations` takes the root of a checkout, so that the tests can hand it small trees that break one
rule each.
"""

import ast
import textwrap
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

BASE = {"errors", "files", "progress", "report", "config", "settings", "command_line", "native"}
VALUES = {"cameras", "color", "views", "splats", "mesh"}
ORBITS = {"workers", "assets", "rendering", "orbits"}
RECONSTRUCTION = {"splatting", "surface", "texture"}
GENERATION = {"photo", "degradation", "diffusion"}
ABOVE_DATA = {"pipelines", "training", "evaluation"}

MAY_IMPORT: dict[str, set[str]] = {
    **{name: BASE - {name} for name in BASE},
    "cameras": BASE,
    "views": BASE | {"cameras"},
    "splats": BASE | {"cameras"},
    "color": BASE,
    "mesh": BASE | {"color"},
    "photo": BASE | VALUES,
    "degradation": BASE | VALUES,
    "diffusion": BASE | VALUES,
    "assets": BASE | VALUES,
    "splatting": BASE | VALUES,
    "surface": BASE | VALUES | {"splatting"},
    "workers": BASE,
    "rendering": BASE | VALUES | {"workers", "assets"},
    "texture": BASE | VALUES | {"splatting", "surface"},
    "orbits": BASE | VALUES | {"workers", "assets", "rendering"},
    "data": BASE | VALUES | {"orbits"},
    "images": BASE,
    "pages": BASE | VALUES,
    "pipelines": BASE | VALUES | GENERATION | RECONSTRUCTION | ORBITS | {"data", "images", "pages"},
    "training": BASE | VALUES | {"degradation", "diffusion", "orbits", "data", "images"},
    "text_to_image": BASE | VALUES | {"photo", "pipelines"},
    "demo": BASE | VALUES | {"photo", "diffusion", "pages", "pipelines", "text_to_image"},
    "evaluation": (
        BASE
        | VALUES
        | GENERATION
        | ORBITS
        | {"splatting", "surface", "data", "images", "pages", "pipelines"}
    ),
    "nano": BASE | VALUES | GENERATION | ORBITS | {"data", "pipelines", "training"},
    "__init__": BASE | VALUES | GENERATION | RECONSTRUCTION | ORBITS | {"data"} | ABOVE_DATA,
    "__main__": BASE | VALUES | ORBITS | {"data", "nano"} | ABOVE_DATA,
}
"""For every part (file or folder directly below hi3d) all the parts that it may import."""

LIBRARIES: dict[str, set[str]] = {
    "diffusers": {"diffusion", "pipelines", "training", "nano", "text_to_image"},
    "transformers": {"diffusion", "pipelines", "training", "nano", "evaluation"},
    "gsplat": {"splatting"},
    "nerfacc": {"surface"},
    "pytorch_lightning": {"training", "nano"},
    "ray": {"workers"},
    "bpy": {"rendering"},
}
"""Heavy libraries and the parts that may import them."""
IN_ONE_FILE = {"ray", "bpy", "gradio"}
ONLY_TORCH = {"cameras.py", "diffusion/edm.py"}
LIGHT = {"math", "dataclasses", "collections", "itertools", "typing", "torch"}
OUTSIDE = {"__pycache__", "scripts", "golden", "integrations"}
"""Folders of tests that mirror none of hi3d."""
MAX_LINES, MAX_SCRIPT_LINES, MAX_FILES = 400, 60, 15


def imported(path: Path) -> set[str]:
    """Full names of all modules (and names in them) that a file imports, at any depth."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            prefix = "." * node.level + (node.module or "")
            names |= {f"{prefix}.{alias.name}" for alias in node.names}
    return names


def module_graph(package: Path) -> dict[str, set[str]]:
    """For every module below hi3d (as `surface.grid`, packages too) the modules it imports."""

    def name_of(path: Path) -> str:
        parts = path.relative_to(package).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)

    files = {name_of(path): path for path in sorted(package.rglob("*.py"))}
    graph: dict[str, set[str]] = {}
    for name, path in files.items():
        graph[name] = set()
        for full in imported(path):
            parts = full.split(".")[1:] if full.startswith("hi3d.") else []
            ends = [".".join(parts[:end]) for end in range(len(parts), 0, -1)]
            target = next((end for end in ends if end in files), None)
            if target and target != name:
                graph[name].add(target)
    return graph


def reached(graph: dict[str, set[str]], start: set[str]) -> set[str]:
    """All modules that importing those of `start` imports, themselves left out."""
    seen: set[str] = set()
    waiting = list(start)
    while waiting:
        for name in graph[waiting.pop()] - seen:
            seen.add(name)
            waiting.append(name)
    return seen


def circles(graph: dict[str, set[str]]) -> set[str]:
    """Modules of one part (or of the base) that import each other in a circle, as lines."""
    found = set()
    places = {name: "base" if name in BASE else part_of(name) for name in graph}
    for place in set(places.values()):
        mine = {name for name in graph if places[name] == place}
        inside = {name: graph[name] & mine for name in mine}
        for name in mine:
            ring = {other for other in reached(inside, {name}) if name in reached(inside, {other})}
            if ring:
                names = sorted(other.removeprefix(f"{place}.") for other in ring)
                found.add(f"circle in {place}: {', '.join(names)}")
    return found


def part_of(module: str) -> str:
    """The file or folder directly below hi3d that a module belongs to."""
    return module.split(".")[0]


def wrong_imports(package: Path) -> set[str]:
    """Imports that the tables do not allow."""
    found = set()
    users: dict[str, set[Path]] = defaultdict(set)
    for path in sorted(package.rglob("*.py")):
        inside = path.relative_to(package)
        here = inside.parts[0].removesuffix(".py")
        libraries = set()
        for full in imported(path):
            first, *rest = full.split(".")
            if first == "":
                found.add(f"{inside.as_posix()}: relative import")
            elif first != "hi3d":
                libraries.add(first)
            elif rest and rest[0] not in MAY_IMPORT.get(here, BASE) | {here}:
                found.add(f"{here} imports {rest[0]}")
        for library in libraries:
            users[library].add(path)
            if library in {"scripts", "tests", "benchmarks"}:
                found.add(f"{here} imports {library}")
            if here not in LIBRARIES.get(library, {here}):
                found.add(f"{here} imports {library}")
        if inside.as_posix() in ONLY_TORCH and libraries - LIGHT:
            found.add(f"{inside.as_posix()} imports more than torch")
    found |= {
        f"{name} is imported in several files" for name in IN_ONE_FILE if len(users[name]) > 1
    }
    return found


def missing_rows(package: Path) -> set[str]:
    """Parts without a row in the table, and rows without a part."""
    parts = {
        path.stem
        for path in package.iterdir()
        if path.suffix == ".py" or (path / "__init__.py").is_file()
    }
    without_row = {f"{part} has no row in MAY_IMPORT" for part in parts - set(MAY_IMPORT)}
    return without_row | {f"{part} has a row but is not there" for part in set(MAY_IMPORT) - parts}


def wrong_sizes(root: Path) -> set[str]:
    """Files with too many lines and folders with too many files."""
    found = set()
    for top in ("hi3d", "scripts", "tests", "benchmarks"):
        limit = MAX_SCRIPT_LINES if top == "scripts" else MAX_LINES
        for path in (root / top).rglob("*.py"):
            if len(path.read_text().splitlines()) > limit:
                found.add(f"{path.relative_to(root).as_posix()} has more than {limit} lines")
        folders = [path for path in (root / top, *(root / top).rglob("*")) if path.is_dir()]
        for folder in folders:
            files = [
                path for path in folder.iterdir() if path.is_file() and path.name != "py.typed"
            ]
            if len(files) > MAX_FILES and folder.name != "__pycache__":
                found.add(f"{folder.relative_to(root).as_posix()} has more than {MAX_FILES} files")
    return found


def training_reaches_reconstruction(package: Path) -> set[str]:
    """Reconstruction modules that importing the training imports, over any number of steps."""
    graph = module_graph(package)
    start = {name for name in graph if part_of(name) == "training"}
    reconstruction = {part_of(name) for name in reached(graph, start)} & RECONSTRUCTION
    return {f"training reaches {part}" for part in reconstruction}


def violations(root: Path) -> set[str]:
    """Every rule that the checkout at `root` breaks, one short line each."""
    package = root / "hi3d"
    return (
        wrong_imports(package)
        | missing_rows(package)
        | circles(module_graph(package))
        | training_reaches_reconstruction(package)
        | wrong_sizes(root)
    )


def test_the_rule_holds():
    found = violations(ROOT)
    assert not found


def test_the_table_itself_has_no_circle():
    rows = {name: targets & set(MAY_IMPORT) for name, targets in MAY_IMPORT.items()}
    above_base = {name: targets - BASE for name, targets in rows.items() if name not in BASE}
    assert not [name for name in above_base if name in reached(above_base, {name})]


@pytest.fixture
def tree(tmp_path):
    """A checkout with one empty file for every row of the table, which breaks no rule."""
    for name in MAY_IMPORT:
        if name in BASE | VALUES | {"__init__", "__main__"}:
            write(tmp_path, f"hi3d/{name}.py", "")
        else:
            write(tmp_path, f"hi3d/{name}/__init__.py", "")
    write(tmp_path, "hi3d/diffusion/edm.py", "import math\nimport torch\n")
    write(tmp_path, "scripts/train.py", "from hi3d.training import trainer\n")
    return tmp_path


def write(root: Path, name: str, text: str) -> None:
    """Writes a file of a planted tree."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))


PLANTED = [
    ("upward", {"hi3d/views.py": "from hi3d.surface import grid"}, "views imports surface"),
    (
        "sideways",
        {"hi3d/photo/framing.py": "import hi3d.diffusion.edm"},
        "photo imports diffusion",
    ),
    ("of the package", {"hi3d/photo/framing.py": "from hi3d import nano"}, "photo imports nano"),
    (
        "within a function",
        {"hi3d/splats.py": "def f():\n    from hi3d.splatting import fit"},
        "splats imports splatting",
    ),
    (
        "a circle in the base",
        {"hi3d/errors.py": "from hi3d.files import x", "hi3d/files.py": "import hi3d.errors"},
        "circle in base: errors, files",
    ),
    (
        "for type checking",
        {
            "hi3d/mesh.py": "from typing import TYPE_CHECKING\n"
            "if TYPE_CHECKING:\n    from hi3d.texture.bake import Bake"
        },
        "mesh imports texture",
    ),
    (
        "relative",
        {"hi3d/data/loader.py": "from . import stream"},
        "data/loader.py: relative import",
    ),
    ("of a script", {"hi3d/data/loader.py": "import scripts.train"}, "data imports scripts"),
    (
        "of a heavy library",
        {"hi3d/surface/grid.py": "def f():\n    import diffusers.models"},
        "surface imports diffusers",
    ),
    ("more than torch", {"hi3d/cameras.py": "import numpy"}, "cameras.py imports more than torch"),
    (
        "of Ray in two files",
        {"hi3d/orbits/a.py": "import ray", "hi3d/orbits/b.py": "from ray import get"},
        "ray is imported in several files",
    ),
    (
        "a circle",
        {
            "hi3d/assets/a.py": "from hi3d.assets.b import x",
            "hi3d/assets/b.py": "from hi3d.assets import c",
            "hi3d/assets/c.py": "def f():\n    import hi3d.assets.a",
        },
        "circle in assets: a, b, c",
    ),
    (
        "training over a bridge",
        {
            "hi3d/training/stage1.py": "from hi3d.data.loader import x",
            "hi3d/data/loader.py": "from hi3d.surface.grid import y",
            "hi3d/surface/grid.py": "",
        },
        "training reaches surface",
    ),
    ("an unlisted part", {"hi3d/utils.py": ""}, "utils has no row in MAY_IMPORT"),
    ("a long file", {"hi3d/data/a.py": "x = 1\n" * 401}, "hi3d/data/a.py has more than 400 lines"),
    ("a long script", {"scripts/a.py": "x = 1\n" * 61}, "scripts/a.py has more than 60 lines"),
    (
        "a full folder",
        {f"hi3d/data/{letter}.py": "" for letter in "abcdefghijklmno"},
        "hi3d/data has more than 15 files",
    ),
]


@pytest.mark.parametrize(
    ("files", "line"), [row[1:] for row in PLANTED], ids=[r[0] for r in PLANTED]
)
def test_a_planted_violation_is_reported(tree, files, line):
    assert violations(tree) == set()
    for name, text in files.items():
        write(tree, name, text)
    assert line in violations(tree)


def test_a_row_without_a_part_is_reported(tree):
    (tree / "hi3d" / "mesh.py").unlink()
    assert violations(tree) == {"mesh has a row but is not there"}


def test_every_test_folder_mirrors_the_package():
    for path in (ROOT / "tests").iterdir():
        if path.is_dir() and path.name not in OUTSIDE:
            assert (ROOT / "hi3d" / path.name).is_dir(), path
