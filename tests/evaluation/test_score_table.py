"""Tables of scores against independent numpy computations."""

import json

import numpy as np
import pytest

from hi3d.errors import InputError
from hi3d.evaluation.score_table import (
    Column,
    ScoreRow,
    ScoreTable,
    joined,
    load_score_table,
    save_score_table,
    summary,
)

COLUMNS = {"psnr": Column("PSNR", "dB", "higher"), "chamfer": Column("Chamfer", "", "lower")}


def table_of(rows, **given):
    return ScoreTable("A title", "syncdreamer", COLUMNS, rows, **given)


def full_table(values, method="ours"):
    """values: [objects, seeds] of PSNR."""
    return table_of(
        [
            ScoreRow(method, f"object {o}", s, {"psnr": float(value)})
            for o, seeds in enumerate(values)
            for s, value in enumerate(seeds)
        ]
    )


def test_means_and_errors_are_those_of_numpy():
    values = np.random.default_rng(0).normal(20, 3, (7, 4))
    score = summary(full_table(values))["ours"].scores["psnr"]
    assert score.mean == pytest.approx(values.mean(), rel=1e-12)
    by_object, by_seed = values.mean(1), values.mean(0)
    assert score.error_objects == pytest.approx(by_object.std(ddof=1) / np.sqrt(7), rel=1e-12)
    assert score.error_seeds == pytest.approx(by_seed.std(ddof=1) / np.sqrt(4), rel=1e-12)
    assert score.num_objects == 7


def test_seeds_are_averaged_before_objects_so_that_a_lost_seed_does_not_weigh():
    rows = [
        ScoreRow("ours", "a", 0, {"psnr": 10.0}),
        ScoreRow("ours", "a", 1, {"psnr": 20.0}),
        ScoreRow("ours", "b", 0, {"psnr": 30.0}),
        ScoreRow("ours", "b", 1, {"psnr": None}, error="the splats are empty"),
    ]
    found = summary(table_of(rows))["ours"]
    assert found.scores["psnr"].mean == pytest.approx((15 + 30) / 2)
    # Over seeds only object a, which has both: 10 and 20.
    assert found.scores["psnr"].error_seeds == pytest.approx(np.std([10, 20], ddof=1) / 2**0.5)
    assert (found.num_objects, found.num_seeds, found.num_failures) == (2, 2, 1)


def test_one_object_has_no_standard_error_and_a_missing_score_no_mean():
    found = summary(table_of([ScoreRow("ours", "a", None, {"psnr": 10.0})]))["ours"].scores
    assert (found["psnr"].mean, found["psnr"].error_objects) == (10.0, None)
    assert (found["chamfer"].mean, found["chamfer"].num_objects) == (None, 0)


def test_a_table_comes_back_as_it_was_saved(tmp_path):
    row = ScoreRow(
        *("ours", "<script>", 3, {"psnr": 1.5, "chamfer": None}, None, {"splats": 2.0}),
        *({"input": "objects/x/input.png"}, {"ours": "objects/x/mesh.glb"}),
    )
    varied = {"key": "mesh.interpolated_views", "values": [0, 16]}
    table = table_of([row], varied=varied, settings={"seed": 0}, versions={"torch": "2"})
    save_score_table(tmp_path / "table.json", table)
    assert load_score_table(tmp_path) == load_score_table(tmp_path / "table.json") == table


def test_scores_that_are_not_finite_are_null(tmp_path):
    rows = [ScoreRow("ours", "a", 0, {"psnr": float("inf"), "chamfer": float("nan")})]
    save_score_table(tmp_path / "table.json", table_of(rows))
    content = json.loads((tmp_path / "table.json").read_text())
    assert content["rows"][0]["scores"] == {"psnr": None, "chamfer": None}


def test_protocols_are_not_mixed():
    first, second = full_table([[1.0]]), full_table([[2.0]], "theirs")
    assert joined([first, second], "both").methods == ["ours", "theirs"]
    other = ScoreTable("Other", "view 0 excluded", COLUMNS, [])
    with pytest.raises(InputError, match="syncdreamer, view 0 excluded"):
        joined([first, other], "both")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"columns": {}, "rows": [{"psnr": 1}]}'])
def test_what_is_no_table_is_one_line(tmp_path, text):
    (tmp_path / "table.json").write_text(text)
    with pytest.raises(InputError, match="no readable table"):
        load_score_table(tmp_path)


@pytest.mark.parametrize("path", ["/etc/passwd", "../secret.png"])
def test_files_beyond_the_folder_are_refused(path):
    with pytest.raises(InputError, match="leaves the table's folder"):
        ScoreRow("ours", "a", pictures={"input": path})


def test_a_column_says_which_way_is_better():
    assert COLUMNS["psnr"].heading == "PSNR (dB) ↑"
    assert COLUMNS["chamfer"].heading == "Chamfer ↓"
    with pytest.raises(InputError, match="give one of higher, lower"):
        Column("PSNR", better="more")
