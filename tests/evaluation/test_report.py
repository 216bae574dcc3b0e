"""The report: worst first, failures shown, names as text, meshes drawn, and the other formats."""

import csv
import io

import numpy as np
import pytest
import torch
from PIL import Image

from hi3d.evaluation.report import varied_numbers, worst_first, write_report
from hi3d.evaluation.score_table import Column, ScoreRow, ScoreTable, save_score_table
from hi3d.evaluation.score_text import csv_text, latex_text, markdown_text
from hi3d.mesh import SurfaceMesh, save_mesh
from tests.pages.browser import open_page

EVIL = "<script>alert(1)</script>|&_"
COLUMNS = {"psnr": Column("PSNR", "dB", "higher"), "chamfer": Column("Chamfer", "", "lower")}


def scores(**more) -> ScoreTable:
    rows = [
        ScoreRow("0", "good", 0, {"psnr": 25.0, "chamfer": 0.01}, None, {"splats": 2.0}),
        ScoreRow("0", EVIL, 0, {"psnr": 15.0, "chamfer": 0.03}, None, {"splats": 4.0}),
        ScoreRow("16", "good", 0, {"psnr": 26.0, "chamfer": 0.02}),
        ScoreRow("16", EVIL, 0, {"psnr": None, "chamfer": None}, "no view shows an object"),
        ScoreRow("0", "middle", 0, {"psnr": 20.0, "chamfer": 0.02}),
        ScoreRow("16", "middle", 0, {"psnr": 10.0, "chamfer": 0.02}),
    ]
    return ScoreTable("M & <b>", "syncdreamer", COLUMNS, more.pop("rows", rows), **more)


def test_failures_come_first_then_the_worst():
    assert worst_first(scores()) == [EVIL, "middle", "good"]


def test_numbers_that_are_varied_give_a_line_and_words_do_not():
    assert varied_numbers(scores(varied={"key": "M", "values": [0, 16]})) == [0.0, 16.0]
    assert varied_numbers(scores(varied={"key": "M", "values": ["0", "16"]})) is None
    assert varied_numbers(scores()) is None


def test_markdown_has_one_cell_per_score_and_no_html():
    text = markdown_text(scores())
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert lines[0] == "| method | PSNR (dB) ↑ | Chamfer ↓ | objects | failures |"
    assert lines[2].startswith("| 0 | **20.00 ± 2.89** | ")
    assert lines[3].startswith("| 16 | 18.00 ± 8.00 (2 of 3) | ")
    assert "<script" not in text
    assert all(line.replace(r"\|", "").count("|") == 7 for line in lines[4:])


def test_csv_gives_every_digit_and_is_no_formula():
    rows = [ScoreRow("=1+1", "a,b\n", 3, {"psnr": 0.1 + 0.2})]
    read = list(csv.DictReader(io.StringIO(csv_text(scores(rows=rows)))))
    assert read[0]["method"] == "'=1+1"
    assert read[0]["object"] == "a,b\n"
    assert (float(read[0]["psnr"]), read[0]["chamfer"], read[0]["seed"]) == (0.1 + 0.2, "", "3")


def test_latex_is_booktabs_with_escaped_names():
    rows = [
        ScoreRow(r"50%_\a{}", "x", None, {"psnr": 1.0}),
        ScoreRow("b", "x", None, {"psnr": 2.0}),
    ]
    text = latex_text(scores(rows=rows))
    assert r"50\%\_\textbackslash{}a\{\} & 1.000 & -- \\" in text
    assert r"b & \textbf{2.000} & -- \\" in text
    assert r"Method & PSNR (dB) $\uparrow$ & Chamfer $\downarrow$ \\" in text
    assert text.count("rule") == 3


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "objects").mkdir()
    pixels = np.full((64, 256, 3), 200, np.uint8)
    Image.fromarray(pixels).save(tmp_path / "objects" / "views.png")
    vertices = torch.tensor([[0.5, 0, -0.4], [-0.5, 0.4, -0.4], [-0.5, -0.4, -0.4], [0, 0, 0.5]])
    faces = torch.tensor([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]])
    red = torch.tensor([0.9, 0.1, 0.1]).expand(4, 3).contiguous()
    save_mesh(SurfaceMesh(vertices, faces, red), tmp_path / "objects" / "a.glb")
    save_mesh(SurfaceMesh(vertices * 0.5, faces, red), tmp_path / "objects" / "truth.glb")
    files = {"views": "objects/views.png", "error": "objects/missing.png"}
    meshes = {"ours": "objects/a.glb", "truth": "objects/truth.glb"}
    first = ScoreRow("0", EVIL, 0, {"psnr": 1.0}, None, {"splats": 1.0}, files, meshes)
    other = ScoreRow("16", EVIL, 0, {"psnr": 2.0}, "splats: no view", None, files, {})
    table = scores(rows=[first, other], varied={"key": "M", "values": [0, 16]})
    save_score_table(tmp_path / "table.json", table)
    return tmp_path


def test_the_page_opens_on_a_phone_without_errors_or_network(folder):
    seen = open_page(write_report(folder), 2, folder, width=390, dark=True)
    assert (seen.complaints, seen.requests) == ([], [])
    assert EVIL in seen.text
    assert "splats: no view" in seen.text
    assert "missing.png cannot be read" in seen.text
    assert seen.text.count("truth") == 1  # once for both methods
    assert seen.overflow <= 0
    assert seen.pixels[2, 2].max() < 60
    areas = []
    for x, y, width, height in np.array(seen.boxes).astype(int):
        inside = seen.pixels[y + 5 : y + height - 5, x + 5 : x + width - 5].astype(int)
        areas.append(float((inside[..., 0] > inside[..., 1] + 60).mean()))
    assert min(areas) > 0.02
    assert {path.name for path in folder.glob("table.*")} == {
        *("table.json", "table.md", "table.csv", "table.tex")
    }
