"""Published numbers stand beside tables of their objects and protocol, and nowhere else."""

from dataclasses import replace

from hi3d.evaluation.published import published_beside, published_cells
from hi3d.evaluation.score_table import Column, ScoreTable
from hi3d.evaluation.score_text import PUBLISHED, markdown_text

TABLE = ScoreTable(
    title="GSO",
    protocol="syncdreamer",
    columns={"psnr": Column("PSNR", "dB"), "chamfer": Column("Chamfer", better="lower")},
    rows=[],
    settings={"objects": "data/eval/gso30.yaml"},
)


def test_rows_of_the_papers_tables():
    rows = {(row.method, row.source): row for row in published_beside(TABLE)}
    ours = rows["Hi3D", "Hi3D, Tables 1 and 2"]
    assert (ours.psnr, ours.ssim, ours.lpips) == (24.26, 0.864, 0.119)
    assert (ours.chamfer, ours.iou64) == (0.0172, 0.6631)
    assert sum("Hi3D, Table" in source for _, source in rows) == 17
    head, cells = published_cells(TABLE)
    assert head == ["method", "PSNR (dB) ↑", "Chamfer ↓", "source", "differs"]
    assert ["EpiDiff", "20.49", "0.0343"] in [line[:3] for line in cells]
    assert f"## {PUBLISHED}" in markdown_text(TABLE)


def test_other_tables_have_none():
    for change in (
        {"protocol": "views512"},
        {"settings": {"objects": "data/eval/gso30_varied.yaml"}},
        {"settings": {"objects": "elsewhere/gso30.yaml"}},
        {"varied": {"key": "seed", "values": [0, 1]}},
    ):
        assert published_cells(replace(TABLE, **change))[1] == []
    assert PUBLISHED not in markdown_text(replace(TABLE, protocol="views512"))
