"""Tables hold every row, and their mean hides no gap."""

import json
import math

import pytest

from hi3d.evaluation.tables import markdown_table, mean_over_objects, write_results

RESULTS = {"chair": {"psnr": 20.0, "ssim": 0.5}, "shoe": {"psnr": 30.0, "ssim": 0.75}}


def test_mean_is_over_objects():
    assert mean_over_objects(RESULTS) == {"psnr": 25.0, "ssim": 0.625}
    assert math.isnan(mean_over_objects({"a": {"psnr": 1.0}, "b": {}})["psnr"])
    with pytest.raises(ValueError, match="no results"):
        mean_over_objects({})


def test_markdown_table():
    table = markdown_table({**RESULTS, "hat": {"ssim": 1.0}}, decimals=2)
    assert table.splitlines() == [
        "| object | psnr | ssim |",
        "|---|---:|---:|",
        "| chair | 20.00 | 0.50 |",
        "| shoe | 30.00 | 0.75 |",
        "| hat | – | 1.00 |",
    ]


def test_json_holds_rows_and_mean(tmp_path):
    write_results(tmp_path / "scores.json", {"same": {"psnr": math.inf, "ssim": 1.0}})
    assert json.loads((tmp_path / "scores.json").read_text()) == {
        "objects": {"same": {"psnr": None, "ssim": 1.0}},
        "mean": {"psnr": None, "ssim": 1.0},
    }
