"""Pages in a browser: nothing goes wrong, nothing is loaded, meshes are drawn, names are text."""

import numpy as np
import pytest
import torch

from hi3d.mesh import SurfaceMesh, save_mesh
from hi3d.pages import document, viewer
from hi3d.pages.document import inline, page, write_page
from hi3d.pages.markup import Markup, element, facts, joined, table
from hi3d.pages.media import MeshBudget, mesh
from tests.pages.browser import open_page

EVIL = "<script>document.title='taken'</script>\"'&"
RED = (0.9, 0.1, 0.1)


@pytest.fixture
def tetrahedron(tmp_path):
    vertices = torch.tensor([[0.5, 0, -0.4], [-0.5, 0.4, -0.4], [-0.5, -0.4, -0.4], [0, 0, 0.5]])
    faces = torch.tensor([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]])
    path = tmp_path / "mesh.glb"
    save_mesh(SurfaceMesh(vertices, faces, torch.tensor(RED).expand(4, 3).contiguous()), path)
    return path


def test_text_is_escaped_in_children_and_attributes():
    made = element("p", EVIL, [EVIL], alt=EVIL)
    assert "<script>" not in made
    assert made.count("&lt;script&gt;") == 3
    assert '"' not in made.split('alt="')[1].split('"')[0]
    assert joined([Markup("<b>"), "<b>"]) == "<b>&lt;b&gt;"
    assert "<script>" not in table([EVIL], [[EVIL, EVIL]])


def test_attributes_and_empty_elements():
    assert element("img", class_="a", data_x=1, hidden=True, alt=None) == (
        '<img class="a" data-x="1" hidden/>'
    )


def test_settings_are_shown_by_dotted_key():
    nested = {"a": {"b": 1, "c": {"d": [2]}}, "e": {}}
    assert facts(nested) == [("a.b", "1"), ("a.c.d", "[2]"), ("e", "{}")]


def test_a_script_does_not_end_its_element():
    assert inline("x='</script>'") == r"x='<\/script>'"


def test_meshes_beyond_the_budget_are_named(tetrahedron):
    budget = MeshBudget(max_bytes=tetrahedron.stat().st_size)
    assert "model-viewer" in mesh(tetrahedron, "first", budget)
    assert mesh(tetrahedron, EVIL, budget) == ""
    assert "1 meshes are left out" in budget.note()
    assert "<script>" not in budget.note()
    assert "cannot be read" in mesh(tetrahedron.with_name("no.glb"), "x", budget)


def test_without_the_viewer_a_line_says_how_to_get_it(tetrahedron, monkeypatch):
    monkeypatch.setattr(document, "viewer_script", lambda: None)
    made = page("A page", [mesh(tetrahedron, "x", MeshBudget())])
    assert "registry.npmjs.org" in made
    assert viewer.VERSION in made
    assert 'class="without-viewer"' in made


def test_a_mesh_is_drawn_without_errors_and_network(tetrahedron, tmp_path):
    path = tmp_path / "index.html"
    budget = MeshBudget()
    meshes = element("div", [mesh(tetrahedron, EVIL, budget, "pair") for _ in range(2)])
    write_page(path, EVIL, [meshes, table([EVIL, "b"], [[EVIL, "2"]])])
    seen = open_page(path, 2, tmp_path)
    assert seen.complaints == []
    assert seen.requests == []
    assert seen.text.count("document.title='taken'") == 5  # title, captions, head and row
    assert len(seen.boxes) == 2
    for x, y, width, height in np.array(seen.boxes).astype(int):
        inside = seen.pixels[y + 5 : y + height - 5, x + 5 : x + width - 5].astype(int)
        red = (inside[..., 0] > inside[..., 1] + 60) & (inside[..., 0] > inside[..., 2] + 60)
        assert 0.03 < red.mean() < 0.9
