"""Builds the API pages from the docstrings: `python docs/build_pages.py --output outputs/docs`.

Broken references end it with exit code 1 and one line each: names in single backticks in
docstrings, links and paths in the Markdown files. The pages need no network.
"""

import argparse
import ast
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
OUTSIDE = {"AutoencoderKL", "textureInfo", "map_Kd", "map_d", "f_rest"}
OUTSIDE |= {"DefaultStrategy", "DataLoader"}
"""Names of file formats and of other libraries that docstrings speak of without their module."""
LIBRARIES = {"torch", "rich", "gsplat", "trimesh", "omegaconf"}
"""Dotted names of these are not followed."""
NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*(\(\))?")
FILE = re.compile(
    r".*\.(c|exr|glb|gltf|html|jpg|jsonl?|md|npz|obj|ply|png|py|safetensors|tar|toml|txt|ya?ml)"
)
PATH_IN_MARKDOWN = re.compile(
    r"`((?:hi3d|tests|scripts|configs|benchmarks|docs|data/examples|data/weights)/[\w./-]*)`"
)

Documented = ast.Module | ast.ClassDef | ast.FunctionDef


class Names:
    """All names that the package defines.

    Attributes:
        paths: full names of modules, of their classes, functions and constants, and of members
            (`hi3d.views.Views.rgb`).
        words: every name that occurs anywhere: those of paths, parameters, imports, and strings
            that are names (keys of files and settings).
    """

    def __init__(self, root: Path) -> None:
        self.paths: set[str] = set()
        self.words: set[str] = set(OUTSIDE)
        for path in sorted((root / "hi3d").rglob("*.py")):
            module = module_name(path, root)
            self.paths.add(module)
            tree = ast.parse(path.read_text())
            self._add(tree, module)
            self.words |= words_of(tree)
        self.words |= {part for path in self.paths for part in path.split(".")}

    def _add(self, scope: ast.AST, prefix: str) -> None:
        for node in ast.iter_child_nodes(scope):
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                self.paths.add(f"{prefix}.{node.name}")
                if isinstance(node, ast.ClassDef):
                    self._add(node, f"{prefix}.{node.name}")
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                self.paths |= {f"{prefix}.{t.id}" for t in targets if isinstance(t, ast.Name)}
            if isinstance(node, ast.FunctionDef):
                self.paths |= {
                    f"{prefix}.{inner.attr}"
                    for inner in ast.walk(node)
                    if isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Store)
                }

    def knows(self, reference: str) -> bool:
        """Whether a text in single backticks names something, or is no reference at all."""
        reference = reference.removesuffix("()")
        first, *rest = reference.split(".")
        if first == "hi3d":
            return reference in self.paths
        if first in LIBRARIES or len(reference) == 1:
            return True
        if (
            rest and first == first.lower()
        ):  # a field of a parameter, a key or a function of a module
            return all(name in self.words for name in (first, *rest))
        if rest:
            return any(path.endswith(f".{reference}") for path in self.paths)
        looks_like_code = "_" in first.strip("_") or first != first.lower()
        return not looks_like_code or first in self.words


def words_of(tree: ast.AST) -> set[str]:
    """Parameters, imported names and strings that are names."""
    words: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            words.add(node.arg)
        elif isinstance(node, ast.ImportFrom):
            words |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Attribute):
            words.add(node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            words |= {node.value} if node.value.isidentifier() else set()
    return words


def module_name(path: Path, root: Path) -> str:
    """`hi3d.views` for hi3d/views.py; a package has the name of its folder."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of every docstring of a file, those below fields and constants too."""
    for scope in ast.walk(ast.parse(path.read_text())):
        for node in scope.body if isinstance(scope, Documented) else []:
            value = node.value if isinstance(node, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield node.lineno, value.value


def broken_names(root: Path) -> list[str]:
    """Names in single backticks in docstrings that nothing has, as lines `file:line: name`."""
    names = Names(root)
    found = []
    for path in sorted((root / "hi3d").rglob("*.py")):
        for line, text in docstrings(path):
            for reference in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text):
                if FILE.fullmatch(reference) or not NAME.fullmatch(reference):
                    continue
                if not names.knows(reference):
                    found.append(f"{path.relative_to(root)}:{line}: `{reference}` names nothing")
    return found


def broken_links(root: Path) -> list[str]:
    """Links and paths (`hi3d/views.py`) in Markdown files that lead nowhere, as lines."""
    found = []
    for path in [*sorted(root.glob("*.md")), *sorted((root / "docs").glob("*.md"))]:
        if path.name == "CHANGELOG.md":  # it speaks of what is no more
            continue
        text = path.read_text()
        links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
        targets = [(link, path.parent / link) for link in links if "://" not in link]
        targets += [(name, root / name) for name in PATH_IN_MARKDOWN.findall(text)]
        found += [
            f"{path.relative_to(root)}: {name} is not there"
            for name, target in targets
            if not target.exists()
        ]
    return found


def with_indented_arguments(docstring: str) -> str:
    """Indents the arguments of an `__init__` whose docstring begins with them.

    The formatter puts them below `Args:` without indentation, where pdoc would see one paragraph.
    """
    if not docstring.startswith("Args:\n"):
        return docstring
    arguments, blank_line, rest = docstring.partition("\n\n")
    return arguments.replace("\n", "\n    ") + blank_line + rest


def write_pages(output: Path) -> list[str]:
    """Writes the pages and returns what pdoc complains of."""
    import pdoc  # type: ignore[import-not-found, unused-ignore]
    from pdoc import docstrings as formats
    from pdoc import render

    plain_google = formats.google
    formats.google = lambda text: plain_google(with_indented_arguments(text))
    render.configure(docformat="google", footer_text="hi3d: one photo to a textured mesh")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pdoc.pdoc("hi3d", output_directory=output)
    return [str(warning.message) for warning in caught if "pdoc" in warning.filename]


def main() -> None:
    """Checks the references and builds the pages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "outputs/docs")
    output: Path = parser.parse_args().output
    complaints = broken_names(ROOT) + broken_links(ROOT) or write_pages(output)
    if complaints:
        sys.exit("\n".join(complaints))
    print(f"{output / 'index.html'}")


if __name__ == "__main__":
    main()
