"""The stages of a run as a visitor sees them: a list with progress, and pictures as they come."""

import time
from pathlib import Path

from hi3d.demo.job import Job
from hi3d.pages.markup import Markup, element, joined
from hi3d.pages.media import picture, strip, video
from hi3d.pages.result_page import view_files
from hi3d.pages.viewer import how_to_get_viewer, viewer_script
from hi3d.pipelines.image_to_3d import CONTACT_SHEET, ORBIT, PAGE, REFERENCE, REFINED, TURNTABLE
from hi3d.pipelines.views_to_mesh import SPLATS, SURFACE, TEXTURE

STAGES = {
    REFERENCE.name: "Photo, cut out",
    ORBIT.name: "Orbit",
    REFINED.name: "Refined orbit",
    SPLATS.name: "Gaussian splats",
    SURFACE.name: "Surface",
    TEXTURE.name: "Texture",
    TURNTABLE.name: "Turntable",
    CONTACT_SHEET.name: "Contact sheet",
    PAGE.name: "Result page",
}
"""Steps of the chain in order, as people call them."""
FILES = {
    "mesh.glb": "GLB",
    "mesh_obj.zip": "OBJ",
    "splats.ply": "Splats, PLY",
    "turntable.mp4": "Video",
    "report.json": "Report",
    "index.html": "Result page",
}
"""What a visitor may take home, and its name on the page."""
ADDRESS = "gradio_api/file="
"""Before the path of a file that the server gives out."""
STRIP_HEIGHT, EVERY = 96, 2
"""Of the strips of views, of which every second view is shown."""


def message(text: str, kind: str = "note") -> Markup:
    """A line.

    Args:
        text: of any origin.
        kind: `note`, `done` or `error`.
    """
    role = "alert" if kind == "error" else "status"
    return element("p", text, class_=f"line {kind}", role=role)


def stages(job: Job) -> Markup:
    """The list of the stages, with the time that each took and how far the present one is."""
    if not job.started:
        return message(f"Waiting: {job.ahead} before you …" if job.ahead else "Starting …")
    now = time.monotonic()
    began = [(name, job.started[name]) for name in STAGES if name in job.started]
    ends = [start for _, start in began[1:]] + [now]
    times = {name: end - start for (name, start), end in zip(began, ends, strict=True)}
    present = began[-1][0] if began and job.is_alive() else None
    return element("ol", [_stage(name, times, present, job) for name in STAGES], class_="stages")


def _stage(name: str, times: dict[str, float], present: str | None, job: Job) -> Markup:
    label = element("span", STAGES[name], class_="name")
    if name == present:
        inner, done, total = job.progress
        known = total is not None and inner != name
        share = min(1.0, done / total) if known and total else None
        bar = element("progress", value=share, max=1, aria_label=STAGES[name])
        seconds = element("span", f"{times[name]:.0f} s", class_="seconds")
        return element("li", label, bar, seconds, class_="present", aria_current="step")
    if name in times:
        seconds = element("span", f"{times[name]:.1f} s", class_="seconds")
        return element("li", label, seconds, class_="past")
    return element("li", label, class_="coming")


def result_files(folder: Path) -> list[Path]:
    """The files of a result, for the visitor."""
    return [folder / name for name in FILES if (folder / name).is_file()]


def result(folder: Path | None) -> Markup:
    """The mesh to turn by hand, and the files to take home; an empty place without a result."""
    if folder is None:
        return element("div", "The mesh will stand here.", class_="mesh empty")
    if viewer_script() is None:
        mesh = message(how_to_get_viewer())
    else:
        mesh = element(
            "model-viewer",
            src=f"{ADDRESS}{folder / 'mesh.glb'}",
            alt="textured mesh",
            camera_controls=True,
            interaction_prompt="none",
            touch_action="pan-y",
            camera_orbit="0deg 75deg auto",
            shadow_intensity="0",
        )
    links = [
        element("a", FILES[path.name], href=f"{ADDRESS}{path}", download=path.name)
        for path in result_files(folder)
    ]
    return joined([element("div", mesh, class_="mesh"), element("nav", links, class_="files")])


def finished(folder: Path) -> tuple[bool, ...]:
    """Which results with a picture are there."""
    steps = (ORBIT, REFINED, SPLATS, SURFACE, TEXTURE, TURNTABLE)
    return tuple((folder / step.result).exists() for step in steps)


def previews(folder: Path) -> Markup:
    """Pictures of every finished stage, the newest first."""
    orbit, refined, splats, surface, mesh, turntable = finished(folder)
    shown = []
    if turntable:
        shown.append(video(folder / TURNTABLE.result, "Turntable"))
    if mesh:
        shown.append(picture(folder / "preview_mesh.png", "Textured mesh", STRIP_HEIGHT))
    if surface:
        shown.append(picture(folder / "preview_surface.png", "Surface", STRIP_HEIGHT))
    if splats:
        shown.append(picture(folder / "preview_splats.png", "Gaussian splats", STRIP_HEIGHT))
    if refined:
        shown.append(_orbit(folder / "refined", "Refined orbit, stage 2"))
    if orbit:
        shown.append(_orbit(folder / "orbit", "Orbit, stage 1"))
    return element("div", joined(shown), class_="previews")


def _orbit(folder: Path, label: str) -> Markup:
    return strip(view_files(folder)[::EVERY], label, STRIP_HEIGHT)
