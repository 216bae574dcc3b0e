"""Plots: bars reach a standard error from the mean, gaps are gaps, labels are text."""

import re

import pytest

from hi3d.pages.plots import Point, dot_plot, line_plot


def circles(svg: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r'<circle cx="(.*?)" cy="(.*?)"', svg)]


def test_a_line_plot_is_linear_in_both_directions():
    points = [Point("0", 1.0), Point("16", 2.0), Point("48", 4.0)]
    (x0, y0), (x1, y1), (x2, y2) = circles(line_plot("PSNR", "M", [0, 16, 48], points))
    assert (x2 - x0) / (x1 - x0) == pytest.approx(3, abs=0.02)
    assert (y2 - y0) / (y1 - y0) == pytest.approx(3, abs=0.02)
    assert y2 < y0


def test_an_error_bar_reaches_one_standard_error():
    svg = line_plot("PSNR", "M", [0, 1], [Point("0", 1.0, 1.0), Point("1", 2.0)])
    (_, low), (_, high) = circles(svg)
    bar = re.search(r'y1="([\d.]+)" x2="[\d.]+" y2="([\d.]+)" class="bar"', svg)
    assert bar is not None
    assert float(bar[1]) - float(bar[2]) == pytest.approx(2 * (low - high), abs=0.3)


def test_missing_values_are_left_out():
    assert len(circles(line_plot("t", "M", [0, 1], [Point("0", None), Point("1", 2.0)]))) == 1
    svg = dot_plot("t", [Point("a", None), Point("b", 2.0, 0.1)])
    assert len(circles(svg)) == 1
    assert "–" in svg
    assert "no values" in line_plot("t", "M", [], [])
    assert "no values" in dot_plot("t", [Point("a", None)])


@pytest.mark.parametrize("value", [0.0, 1e-9, -5.0, 1e12])
def test_equal_values_are_in_the_middle(value):
    svg = line_plot("t", "M", [0, 1], [Point("0", value), Point("1", value)])
    assert "nan" not in svg
    assert len({y for _, y in circles(svg)}) == 1


def test_labels_are_text():
    evil = "<script>"
    for svg in (line_plot(evil, evil, [0], [Point(evil, 1.0)]), dot_plot(evil, [Point(evil, 1.0)])):
        assert "<script" not in svg
