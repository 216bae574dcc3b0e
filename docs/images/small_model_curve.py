"""Draws small_model_curve.svg beside it: the grid predictor's losses over its training.

Measured by the training itself: the means of 100 steps, with augmentation and dropout, and those of
two photos of each of 200 validation orbits, without.
"""

from itertools import pairwise
from pathlib import Path

PANEL, HEIGHT, LEFT, TOP, BOTTOM = 340, 230, 52, 34, 44
COLORS = ("#4763b8", "#c2571f")
NAMES = ("training", "validation")
MEASURES = {
    "loss of occupancy": (0.26, 0.28, 0.30, 0.32, 0.34, 0.36),
    "loss of rendered views": (0.08, 0.10, 0.12, 0.14, 0.16, 0.18),
    "loss of colors at surfaces": (0.15, 0.16, 0.17, 0.18, 0.19, 0.20),
}
"""Each with the values on its axis."""
LOG = """
 0.62 0.3603 0.3589 0.1737 0.1741 0.1990 0.1738
 1.12 0.3410 0.3426 0.1530 0.1523 0.1953 0.1704
 1.63 0.3304 0.3340 0.1413 0.1436 0.1910 0.1681
 2.13 0.3233 0.3297 0.1349 0.1376 0.1876 0.1653
 2.63 0.3167 0.3266 0.1278 0.1344 0.1855 0.1629
 3.13 0.3076 0.3239 0.1191 0.1302 0.1825 0.1610
 3.65 0.3012 0.3237 0.1141 0.1295 0.1800 0.1605
 4.15 0.2959 0.3237 0.1091 0.1284 0.1783 0.1597
 4.65 0.2906 0.3247 0.1050 0.1280 0.1780 0.1596
 5.15 0.2852 0.3272 0.1001 0.1288 0.1758 0.1594
 5.67 0.2814 0.3281 0.0985 0.1290 0.1755 0.1591
 6.17 0.2766 0.3301 0.0944 0.1290 0.1749 0.1590
 6.67 0.2749 0.3314 0.0924 0.1292 0.1738 0.1591
 7.17 0.2730 0.3332 0.0913 0.1299 0.1734 0.1592
 7.67 0.2723 0.3345 0.0906 0.1305 0.1728 0.1592
 7.93 0.2723 0.3351 0.0914 0.1307 0.1717 0.1592
"""
"""Minutes, and each measure in training and in validation."""
LAST_MINUTE = 8


def text(x: float, y: float, words: str, anchor: str = "middle", color: str = "#333") -> str:
    """A line of text."""
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" fill="{color}">{words}</text>'


def panel(
    number: int,
    name: str,
    ticks: tuple[float, ...],
    times: list[float],
    values: list[list[float]],
) -> list[str]:
    """One measure over the minutes."""
    start, end = number * PANEL + LEFT, (number + 1) * PANEL - 12

    def across(minute: float) -> float:
        return start + (end - start) * minute / LAST_MINUTE

    def up(value: float) -> float:
        return (
            HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * (value - ticks[0]) / (ticks[-1] - ticks[0])
        )

    drawn = [text((start + end) / 2, 18, name)]
    for tick in ticks:
        drawn.append(f'<path d="M{start} {up(tick):.1f}H{end}" stroke="#ddd"/>')
        drawn.append(text(start - 6, up(tick) + 4, f"{tick:g}", "end"))
    minutes = range(0, LAST_MINUTE + 1, 2)
    drawn += [text(across(minute), HEIGHT - BOTTOM + 18, f"{minute}") for minute in minutes]
    drawn.append(text((start + end) / 2, HEIGHT - 8, "minutes of an H200"))
    for color, found in zip(COLORS, values, strict=True):
        places = [(across(m), up(v)) for m, v in zip(times, found, strict=True)]
        for (x, y), (next_x, next_y) in pairwise(places):
            path = f"M{x:.1f} {y:.1f}L{next_x:.1f} {next_y:.1f}"
            drawn.append(f'<path d="{path}" stroke="{color}" stroke-width="2"/>')
    if number == 0:
        drawn += [
            text(end - 4, TOP + 12 + 16 * i, words, "end", color)
            for i, (words, color) in enumerate(zip(NAMES, COLORS, strict=True))
        ]
    return drawn


def main() -> None:
    """Write the picture."""
    width = PANEL * len(MEASURES)
    drawn = [f'<rect width="{width}" height="{HEIGHT}" fill="#fff"/>']
    rows = [[float(number) for number in line.split()] for line in LOG.split("\n") if line]
    times, *columns = (list(column) for column in zip(*rows, strict=True))
    for number, (name, ticks) in enumerate(MEASURES.items()):
        drawn += panel(number, name, ticks, times, columns[2 * number : 2 * number + 2])
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" '
    head += 'font-family="sans-serif" font-size="13" fill="none">'
    lines = [head, *drawn, "</svg>"]
    Path(__file__).with_suffix(".svg").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
