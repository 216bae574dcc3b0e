"""Draws small_model_curve.svg beside it: the grid predictor's validation over its trainings.

Measured by the trainings themselves on the first 60 validation orbits, without a seed.
"""

from itertools import pairwise
from pathlib import Path

PANEL, HEIGHT, LEFT, TOP, BOTTOM = 340, 230, 52, 34, 44
COLORS = ("#4763b8", "#2f8f5b", "#c2571f")
TRAININGS = ("2,066 objects, 3,200 steps", "4,000 more", "with ImageNet features")
HOURS = [  # of one core, after the first 4,060 steps, which took 1.6
    [0.28, 0.55, 0.83, 1.10],
    [1.40, 1.70, 2.00, 2.30],
    [2.55, 2.80, 3.05, 3.30],
]
MEASURES: dict[str, tuple[tuple[float, ...], list[list[float]]]] = {
    "own azimuth": (
        (0.12, 0.16, 0.20, 0.24, 0.28),
        [
            [0.197, 0.203, 0.220, 0.216],
            [0.138, 0.219, 0.242, 0.252],
            [0.233, 0.263, 0.252, 0.240],
        ],
    ),
    "PSNR in dB": (
        (22.5, 23.0, 23.5, 24.0),
        [[22.75, 23.53, 23.25, 23.60], [23.34, 23.78, 23.68, 23.86], [23.72, 23.79, 23.80, 23.93]],
    ),
    "error of the elevation in degrees": (
        (5.0, 6.0, 7.0, 8.0, 9.0),
        [[8.05, 7.35, 6.45, 6.31], [8.77, 6.38, 6.44, 6.39], [7.08, 5.81, 6.34, 5.67]],
    ),
}
SHIPPED = (2, 1)
"""Training and validation whose weights ship."""
LAST_HOUR = 3.5


def text(x: float, y: float, words: str, anchor: str = "middle", color: str = "#333") -> str:
    """A line of text."""
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" fill="{color}">{words}</text>'


def panel(number: int, name: str, ticks: tuple[float, ...], values: list[list[float]]) -> list[str]:
    """One measure over the hours."""
    start, end = number * PANEL + LEFT, (number + 1) * PANEL - 12

    def across(hour: float) -> float:
        return start + (end - start) * hour / LAST_HOUR

    def up(value: float) -> float:
        return (
            HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * (value - ticks[0]) / (ticks[-1] - ticks[0])
        )

    drawn = [text((start + end) / 2, 18, name)]
    for tick in ticks:
        drawn.append(f'<path d="M{start} {up(tick):.1f}H{end}" stroke="#ddd"/>')
        drawn.append(text(start - 6, up(tick) + 4, f"{tick:g}", "end"))
    drawn += [text(across(hour), HEIGHT - BOTTOM + 18, f"{hour}") for hour in range(4)]
    drawn.append(text((start + end) / 2, HEIGHT - 8, "hours of a core"))
    for training, (hours, found) in enumerate(zip(HOURS, values, strict=True)):
        color = COLORS[training]
        places = [(across(h), up(v)) for h, v in zip(hours, found, strict=True)]
        for (x, y), (next_x, next_y) in pairwise(places):
            path = f"M{x:.1f} {y:.1f}L{next_x:.1f} {next_y:.1f}"
            drawn.append(f'<path d="{path}" stroke="{color}" stroke-width="2"/>')
        for i, (x, y) in enumerate(places):
            radius = 7 if (training, i) == SHIPPED else 3.5
            drawn.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{color}"/>')
    if number == 1:
        drawn += [
            text(end - 4, HEIGHT - BOTTOM - 44 + 16 * i, words, "end", COLORS[i])
            for i, words in enumerate(TRAININGS)
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
