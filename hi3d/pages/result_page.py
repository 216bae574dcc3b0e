"""The page of one photo's result: photo, orbits, the mesh to turn, turntable, timings, settings."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hi3d.pages.document import write_page
from hi3d.pages.markup import Markup, element, facts, folded, table
from hi3d.pages.media import MeshBudget, mesh, picture, sha256_of, strip, video

COSTS = {"seconds": "seconds", "cpu_seconds": "CPU seconds", "peak_memory_gb": "peak memory, GB"}
"""By name in the report."""
FILES = ("mesh.glb", "splats.ply", "turntable.mp4", "contact_sheet.png")


def write_result_page(path: Path, report: Mapping[str, Any]) -> None:
    """Write the page of a run beside its results.

    Args:
        path: `index.html` in the run's folder.
        report: content of the run's `report.json`.
    """
    folder = path.parent
    budget = MeshBudget()
    photo = Path(str(report["inputs"].get("photo", "photo"))).stem
    shown = element(
        "div",
        picture(folder / "reference.png", "photo, cut out", height=420),
        mesh(folder / "mesh.glb", "textured mesh: drag to turn it", budget),
        video(folder / "turntable.mp4", "turntable"),
        class_="row",
    )
    body = [
        budget.note(),
        shown,
        element("h2", "Orbit"),
        strip(view_files(folder / "orbit"), "stage 1"),
        strip(view_files(folder / "refined"), "stage 2", height=256),
        element("h2", "Steps"),
        steps_table(report["steps"]),
        folded("Settings", _pairs(facts(report["config"]))),
        folded("Inputs and versions", _pairs(_told(report))),
        folded("Files", _pairs([(name, sha256_of(folder / name)) for name in FILES])),
    ]
    write_page(path, photo, body)


def view_files(folder: Path) -> list[Path]:
    """Pictures of a folder of views, in order."""
    return sorted(path for path in folder.glob("*.png") if path.stem.isdigit())


def steps_table(steps: Mapping[str, Mapping[str, Any]]) -> Markup:
    """What every step cost."""
    rows = [
        [name, *(f"{entry[cost]:.2f}" if cost in entry else "–" for cost in COSTS)]
        for name, entry in steps.items()
    ]
    return table(["step", *COSTS.values()], rows)


def _told(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    names = ("inputs", "seed", "device", "num_threads", "versions")
    return facts({name: report[name] for name in names if name in report})


def _pairs(pairs: list[tuple[str, str]]) -> Markup:
    return table(["", ""], [[key, element("code", text)] for key, text in pairs])
