"""What a config dataclass says about its keys, read from its source without importing it.

`--help` is then there at once, and the docstring under a field is its only description.
"""

import ast
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1]
KEY_WIDTH, HELP_WIDTH = 38, 100
REQUIRED = "REQUIRED"
COMPUTED = "{...}"
"""A group, or a mapping, whose default is made by code."""


@dataclass(frozen=True)
class Setting:
    """A leaf key of a config."""

    key: str
    """With the names of its groups: `mesh.splats.steps`."""
    default: str
    """As it is written on the command line."""
    text: str
    """The docstring under the field, on one line; empty if there is none."""


def settings_of(name: str) -> list[Setting]:
    """The leaf keys of a config dataclass, those of its bases first.

    Args:
        name: `module:Class`, for example `hi3d.pipelines.image_to_3d:GenerateConfig`.
    """
    module, _, class_name = name.partition(":")
    return list({setting.key: setting for setting in _settings(module, class_name, "")}.values())


def describe_settings(name: str) -> str:
    """A table of `key=default` and the first sentence about each.

    Args:
        name: as for `settings_of`.
    """
    lines = []
    for setting in settings_of(name):
        left = f"  {setting.key}={setting.default}"
        sentence = re.split(r"(?<=\.)\s(?=[A-Z])", setting.text, maxsplit=1)[0].rstrip(".")
        right = textwrap.wrap(sentence, HELP_WIDTH - KEY_WIDTH) or [""]
        if len(left) >= KEY_WIDTH:
            lines.append(left)
        else:
            lines.append(f"{left:{KEY_WIDTH}}{right.pop(0)}".rstrip())
        lines += [" " * KEY_WIDTH + line for line in right if line]
    return "\n".join(lines)


def _settings(module: str, class_name: str, prefix: str) -> Iterator[Setting]:
    tree = _parsed(module)
    definition = _class_in(tree, class_name)
    assert definition is not None, f"{module} has no class {class_name}"
    for base in definition.bases:
        place = _place(tree, module, base)
        if place:
            yield from _settings(*place, prefix)
    for node, after in zip(definition.body, [*definition.body[1:], None], strict=True):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        key = prefix + node.target.id
        place = _place(tree, module, node.annotation)
        factory = _factory(node.value)
        if place and isinstance(factory, ast.Name) and factory.id == place[1]:
            yield from _settings(*place, f"{key}.")
        else:
            yield Setting(key, _written(tree, node.value), _docstring(after))


def _place(tree: ast.Module, module: str, annotation: ast.expr) -> tuple[str, str] | None:
    """Module and name of the dataclass that an annotation or a base names, if it is one of ours."""
    if isinstance(annotation, ast.BinOp):  # X | None
        annotation = annotation.left
    if not isinstance(annotation, ast.Name):
        return None
    if _class_in(tree, annotation.id):
        return module, annotation.id
    for node in tree.body:
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("hi3d."):
            continue
        if any(alias.name == annotation.id for alias in node.names):
            imported = str(node.module)
            return (
                (imported, annotation.id) if _class_in(_parsed(imported), annotation.id) else None
            )
    return None


def _parsed(module: str) -> ast.Module:
    return ast.parse((SOURCE / (module.replace(".", "/") + ".py")).read_text())


def _class_in(tree: ast.Module, name: str) -> ast.ClassDef | None:
    """The dataclass of this name; enums are values, not groups."""
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    found = classes.get(name)
    decorators = map(ast.unparse, found.decorator_list) if found else ()
    return found if any("dataclass" in decorator for decorator in decorators) else None


def _written(tree: ast.Module, value: ast.expr | None) -> str:
    """A default as it is written on the command line."""
    factory = _factory(value)
    if factory is not None:
        if not isinstance(factory, ast.Lambda) or not isinstance(factory.body, ast.List):
            return COMPUTED
        value = factory.body
    if isinstance(value, ast.Name):
        constants = {
            ast.unparse(node.targets[0]): node.value
            for node in tree.body
            if isinstance(node, ast.Assign)
        }
        if value.id == "MISSING":
            return REQUIRED
        value = constants.get(value.id, value)
    if isinstance(value, ast.Attribute):  # a member of an enum
        return value.attr
    if isinstance(value, ast.Constant):
        words = {"None": "null", "True": "true", "False": "false"}
        return words.get(str(value.value), str(value.value))
    return re.sub("[ '\"]", "", ast.unparse(value)) if value is not None else REQUIRED


def _factory(value: ast.expr | None) -> ast.expr | None:
    """The `default_factory` of a field."""
    keywords = value.keywords if isinstance(value, ast.Call) else []
    return next((k.value for k in keywords if k.arg == "default_factory"), None)


def _docstring(node: ast.stmt | None) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return " ".join(str(node.value.value).split())
    return ""
