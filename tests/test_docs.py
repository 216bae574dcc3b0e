"""References of docstrings and Markdown files lead somewhere."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def pages():
    spec = importlib.util.spec_from_file_location("build_pages", ROOT / "docs/build_pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_reference_is_broken(pages):
    assert pages.broken_names(ROOT) + pages.broken_links(ROOT) == []


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "hi3d").mkdir()
    (tmp_path / "docs").mkdir()
    (tmp_path / "hi3d/views.py").write_text(
        '"""Views; `Views.save`."""\n'
        "class Views:\n"
        "    rgb_values: int\n"
        '    """See `hi3d.views.Views.save`, `cameras.json` and `<name>/model`."""\n'
        "    def save(self, output_path):\n"
        '        """To `output_path`, with `rgb_values`, as `torch.save` does; `plain` words."""\n'
    )
    return tmp_path


def test_names_that_exist_are_not_reported(pages, tree):
    assert pages.broken_names(tree) == []


@pytest.mark.parametrize(
    "name",
    [
        "hi3d.views.Views.load",
        "hi3d.view",
        "Views.load",
        "VIews",
        "save_views",
        "views.save_all",
        "SIDE",
    ],
)
def test_a_planted_broken_name_is_reported(pages, tree, name):
    (tree / "hi3d/grid.py").write_text(f'"""A grid."""\ndef f():\n    """As `{name}` does."""\n')
    assert pages.broken_names(tree) == [f"hi3d/grid.py:3: `{name}` names nothing"]


def test_planted_broken_links_are_reported(pages, tree):
    (tree / "README.md").write_text("[a](docs/a.md) [b](docs/b.md#part) [c](https://a.org) [d](#e)")
    (tree / "docs/b.md").write_text("`hi3d/views.py` `hi3d/view.py` ![p](images/p.svg)")
    assert pages.broken_links(tree) == [
        "README.md: docs/a.md is not there",
        "docs/b.md: images/p.svg is not there",
        "docs/b.md: hi3d/view.py is not there",
    ]


def test_arguments_that_begin_a_docstring_are_indented(pages):
    docstring = "Args:\nfolder: of orbits\n    and shards.\n\nRaises:\n    InputError: none."
    assert pages.with_indented_arguments(docstring) == (
        "Args:\n    folder: of orbits\n        and shards.\n\nRaises:\n    InputError: none."
    )
    assert pages.with_indented_arguments("A sentence.\n\nArgs:") == "A sentence.\n\nArgs:"
