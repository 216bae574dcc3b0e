"""The notebook runs from top to bottom, and is kept without outputs."""

import ast
import json
from pathlib import Path

import pytest
from PIL import Image

import hi3d
from tests.test_front_door import FEW_STEPS

NOTEBOOK = Path(__file__).parents[2] / "notebooks/photo_to_mesh.ipynb"


@pytest.fixture(scope="module")
def cells() -> list[dict]:
    return json.loads(NOTEBOOK.read_text())["cells"]


def run(source: str, names: dict) -> object:
    """Run a cell as Jupyter does; its last expression is what it shows."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names) if last else None


def test_ten_cells_without_outputs(cells):
    assert len(cells) == 10
    assert {cell["cell_type"] for cell in cells} == {"markdown", "code"}
    assert len({cell["id"] for cell in cells}) == 10
    for cell in cells:
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)


def test_the_cells_run_from_top_to_bottom(cells, tmp_path, monkeypatch, capsys):
    """As they stand, with fewer steps."""
    monkeypatch.chdir(tmp_path)
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert sum(source.count('["seed=0"]') for source in sources) == 1
    names: dict = {}
    shown = [run(source.replace('["seed=0"]', repr(FEW_STEPS)), names) for source in sources]
    sizes = [picture.size for picture in shown if isinstance(picture, Image.Image)]
    assert len(sizes) == 5
    assert sizes[1:] == [(256, 256), (1024, 128), (1024, 128), (1024, 128)]
    assert hi3d.load_mesh(tmp_path / "mailbox.glb").texture is not None
    assert "16 views of 64 pixels" in capsys.readouterr().out
