"""Draws data-flow.svg beside it: steps as boxes with their folders, values on the arrows."""

from html import escape
from itertools import pairwise
from pathlib import Path

WIDTH, BOX_WIDTH, BOX_HEIGHT = 1080, 150, 62
TRAINING, GENERATION, RECONSTRUCTION, END = "#e9e4f5", "#dfeefa", "#e2f3e4", "#ffffff"
ROWS: list[tuple[float, str, list[tuple[float, str, str, str]]]] = [
    (
        62,
        TRAINING,
        [
            (10, "objects", "files", ""),
            (190, "read", "hi3d/assets", "parts"),
            (400, "draw", "hi3d/rendering", "rgb, depth"),
            (632, "write, read", "hi3d/orbits, data", "batches"),
            (860, "train", "hi3d/training", ""),
        ],
    ),
    (
        232,
        GENERATION,
        [
            (10, "photo", "a file", ""),
            (170, "1 cut out", "hi3d/photo", "ReferenceImage"),
            (470, "2 stage 1: orbit", "hi3d/pipelines", "Views 16×512²"),
            (760, "3 stage 2: refine", "hi3d/pipelines", "Views 16×1024²"),
        ],
    ),
    (
        390,
        RECONSTRUCTION,
        [
            (10, "4 fit splats", "hi3d/splatting", "GaussianSplats"),
            (310, "5 view between", "hi3d/splatting", "Views 16+M"),
            (600, "6 fit NeuS", "hi3d/surface/neus", "signed distance"),
            (900, "7 trace, close", "hi3d/surface", ""),
        ],
    ),
    (
        532,
        RECONSTRUCTION,
        [
            (310, "8 bake texture", "hi3d/texture", "SurfaceMesh, texture"),
            (660, "GLB", "a file", ""),
        ],
    ),
]
ENDS = {"objects", "photo", "GLB"}
"""Files instead of steps: drawn narrower, in white."""


def text(x: float, y: float, words: str, size: int, style: str = "", anchor: str = "middle") -> str:
    """One line of text."""
    place = f'x="{x}" y="{y}" font-size="{size}" text-anchor="{anchor}"'
    return f"<text {place} {style}>{escape(words)}</text>"


def box(x: float, y: float, title: str, folder: str, fill: str) -> str:
    """A step with its folder below its name."""
    width = width_of(title)
    middle = x + width / 2
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{BOX_HEIGHT}" rx="9" '
        f'fill="{END if title in ENDS else fill}" stroke="#445" stroke-width="1.3"/>'
        + text(middle, y + 26, title, 15, 'font-weight="600"')
        + text(middle, y + 47, folder, 13, 'fill="#345" font-family="monospace"')
    )


def width_of(title: str) -> int:
    """Width of a step's box."""
    return 90 if title in ENDS else BOX_WIDTH


def arrow(points: list[tuple[float, float]]) -> str:
    """An arrow along corners."""
    path = " ".join(f"{x},{y}" for x, y in points)
    stroke = 'fill="none" stroke="#334" stroke-width="1.8" marker-end="url(#tip)"'
    return f'<polyline points="{path}" {stroke}/>'


def value(x: float, y: float, words: str) -> str:
    """What an arrow carries."""
    return text(x, y, words, 14, 'fill="#912" font-style="italic"')


def row(y: float, fill: str, steps: list[tuple[float, str, str, str]]) -> list[str]:
    """Steps of one line with the arrows between neighbours."""
    parts = [box(x, y, title, folder, fill) for x, title, folder, _ in steps]
    centre = y + BOX_HEIGHT / 2
    for (x, title, _, carried), (following, *_rest) in pairwise(steps):
        start = x + width_of(title)
        parts.append(arrow([(start, centre), (following - 3, centre)]))
        parts.append(value((start + following) / 2, centre - 9, carried))
    return parts


def picture() -> str:
    """The whole SVG."""
    parts = [part for y, fill, steps in ROWS for part in row(y, fill, steps)]
    for x, y, words in (
        (10, 46, "Training"),
        (10, 216, "Generation"),
        (100, 374, "Reconstruction"),
    ):
        parts.append(text(x, y, words, 18, 'font-weight="700"', "start"))
    # The trained model goes into both stages, the degraded orbits into the training of stage 2.
    parts += [arrow([(935, 124), (935, 170), (545, 170), (545, 229)])]
    parts += [arrow([(835, 170), (835, 229)]), value(740, 163, "model folder (hi3d/diffusion)")]
    parts += [text(935, 30, "hi3d/degradation", 14, 'fill="#345" font-family="monospace"')]
    parts += [arrow([(935, 36), (935, 59)])]
    # Lines wrap: the refined orbit to the splats, the mesh to its texture.
    parts += [arrow([(910, 263), (990, 263), (990, 330), (85, 330), (85, 387)])]
    parts += [value(990, 254, "Views 16×1024²")]
    parts += [arrow([(975, 452), (975, 492), (385, 492), (385, 529)])]
    parts += [value(680, 485, "SurfaceMesh")]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} 610" '
        'font-family="Helvetica, Arial, sans-serif" role="img" '
        'aria-label="From a photo to a textured mesh: steps, folders and values">'
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" '
        'markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0,0 L8,4 L0,8 z" fill="#334"/></marker></defs>'
        f'<rect width="{WIDTH}" height="610" fill="#ffffff"/>' + "\n".join(parts) + "</svg>\n"
    )


if __name__ == "__main__":
    Path(__file__).with_name("data-flow.svg").write_text(picture())
