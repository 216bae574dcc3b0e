"""Draws small_model_curve.svg beside it: the grid predictor's losses over its training.

Measured by the training itself: the means of 100 steps, with augmentation and dropout, and those of
two photos of each of 200 validation orbits, without.
"""

from itertools import pairwise
from pathlib import Path

PANEL, HEIGHT, LEFT, TOP, BOTTOM = 340, 230, 52, 34, 44
COLORS = ("#4763b8", "#c2571f")
NAMES = ("training", "validation")
MINUTES = [
    0.62,
    1.12,
    1.63,
    2.13,
    2.63,
    3.13,
    3.65,
    4.15,
    4.65,
    5.15,
    5.67,
    6.17,
    6.67,
    7.17,
    7.67,
    7.93,
]
MEASURES: dict[str, tuple[tuple[float, ...], list[list[float]]]] = {
    "loss of occupancy": (
        (0.26, 0.28, 0.30, 0.32, 0.34, 0.36),
        [
            [
                0.3603,
                0.341,
                0.3304,
                0.3233,
                0.3167,
                0.3076,
                0.3012,
                0.2959,
                0.2906,
                0.2852,
                0.2814,
                0.2766,
                0.2749,
                0.273,
                0.2723,
                0.2723,
            ],
            [
                0.3589,
                0.3426,
                0.334,
                0.3297,
                0.3266,
                0.3239,
                0.3237,
                0.3237,
                0.3247,
                0.3272,
                0.3281,
                0.3301,
                0.3314,
                0.3332,
                0.3345,
                0.3351,
            ],
        ],
    ),
    "loss of rendered views": (
        (0.08, 0.10, 0.12, 0.14, 0.16, 0.18),
        [
            [
                0.1737,
                0.153,
                0.1413,
                0.1349,
                0.1278,
                0.1191,
                0.1141,
                0.1091,
                0.105,
                0.1001,
                0.0985,
                0.0944,
                0.0924,
                0.0913,
                0.0906,
                0.0914,
            ],
            [
                0.1741,
                0.1523,
                0.1436,
                0.1376,
                0.1344,
                0.1302,
                0.1295,
                0.1284,
                0.128,
                0.1288,
                0.129,
                0.129,
                0.1292,
                0.1299,
                0.1305,
                0.1307,
            ],
        ],
    ),
    "loss of colors at surfaces": (
        (0.15, 0.16, 0.17, 0.18, 0.19, 0.20),
        [
            [
                0.199,
                0.1953,
                0.191,
                0.1876,
                0.1855,
                0.1825,
                0.18,
                0.1783,
                0.178,
                0.1758,
                0.1755,
                0.1749,
                0.1738,
                0.1734,
                0.1728,
                0.1717,
            ],
            [
                0.1738,
                0.1704,
                0.1681,
                0.1653,
                0.1629,
                0.161,
                0.1605,
                0.1597,
                0.1596,
                0.1594,
                0.1591,
                0.159,
                0.1591,
                0.1592,
                0.1592,
                0.1592,
            ],
        ],
    ),
}
LAST_MINUTE = 8


def text(x: float, y: float, words: str, anchor: str = "middle", color: str = "#333") -> str:
    """A line of text."""
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" fill="{color}">{words}</text>'


def panel(number: int, name: str, ticks: tuple[float, ...], values: list[list[float]]) -> list[str]:
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
        places = [(across(m), up(v)) for m, v in zip(MINUTES, found, strict=True)]
        for (x, y), (next_x, next_y) in pairwise(places):
            path = f"M{x:.1f} {y:.1f}L{next_x:.1f} {next_y:.1f}"
            drawn.append(f'<path d="{path}" stroke="{color}" stroke-width="2"/>')
    if number == 0:
        drawn += [
            text(end - 4, TOP + 12 + 16 * i, name, "end", color)
            for i, (name, color) in enumerate(zip(NAMES, COLORS, strict=True))
        ]
    return drawn


def main() -> None:
    """Write the picture."""
    width = PANEL * len(MEASURES)
    drawn = [f'<rect width="{width}" height="{HEIGHT}" fill="#fff"/>']
    for number, (name, (ticks, values)) in enumerate(MEASURES.items()):
        drawn += panel(number, name, ticks, values)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" '
    head += 'font-family="sans-serif" font-size="13" fill="none">'
    lines = [head, *drawn, "</svg>"]
    Path(__file__).with_suffix(".svg").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
