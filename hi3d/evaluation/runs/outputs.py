"""What a method makes of one object: views and mesh."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from hi3d.evaluation.methods.layouts import LAYOUTS
from hi3d.evaluation.methods.reading import read_output
from hi3d.evaluation.runs.config import MethodConfig
from hi3d.evaluation.truth import Truth
from hi3d.mesh import SurfaceMesh
from hi3d.pipelines.loading import load_pipeline
from hi3d.pipelines.orbit import OrbitPipeline
from hi3d.pipelines.refiner import RefinerPipeline
from hi3d.pipelines.run_folder import RunFolder
from hi3d.pipelines.sampler import seeded_generator
from hi3d.pipelines.views_to_mesh import reconstruct_mesh
from hi3d.report import RunReport
from hi3d.views import ReferenceImage, Views


@dataclass(frozen=True)
class Output:
    """Of one object by one method with one seed."""

    rgb: Tensor | None  # [V, 3, H, W]
    """Views of the tables' cameras over white; None where there are none."""
    mesh: SurfaceMesh | None
    """In the truth's coordinates."""


@functools.cache
def pipeline(kind: Any, folder: str) -> Any:
    """A pipeline, loaded once per process."""
    return load_pipeline(kind, folder)


def make_output(
    method: MethodConfig, seed: int | None, name: str, truth: Truth, folder: Path, meshes: bool
) -> tuple[Output, dict[str, float]]:
    """Generate, reconstruct or read.

    Args:
        method: of the output.
        seed: None where nothing is drawn.
        name: of the object.
        truth: of the object, whose photo is given to the method.
        folder: to keep views and mesh in.
        meshes: whether to reconstruct.

    Returns:
        The output, and the seconds of each step.

    Raises:
        InputError: there is no output, or it is broken.
    """
    if method.kind == "files":
        layout = LAYOUTS[method.reader]
        found = read_output(layout, Path(method.folder), name, seed)
        scored = found.rgb if layout.same_cameras else None
        return Output(scored, found.mesh if meshes else None), {}
    if method.kind == "repeat":
        return Output(truth.photo.rgb.expand(len(truth.views), -1, -1, -1), None), {}
    config = method.generate_config(seed or 0, truth.views.cameras.elevation_deg[0].item())
    report = RunReport({"object": name}, {}, config.seed)
    views = truth.views
    if method.kind == "generate":
        with report.step("stage1"):
            photo = ReferenceImage(truth.photo.rgb[0], truth.photo.alpha[0])
            elevation = None if config.elevation_deg == "auto" else float(config.elevation_deg)
            stage1 = pipeline(OrbitPipeline, config.stage1)
            orbit = stage1(photo, elevation, config.orbit, seeded_generator(config.seed)).views
        with report.step("stage2"):
            stage2 = pipeline(RefinerPipeline, config.stage2)
            generator = seeded_generator(config.seed + 1)
            views = stage2(orbit, photo, config.refiner, generator)
        views = Views(views.rgb.cpu(), views.alpha.cpu(), views.cameras.to("cpu"))
        views.save(folder / "refined")
    mesh = None
    if meshes:
        with report.step("mesh"):
            run = RunFolder(folder / "mesh", {"object": name}, {}, config.seed, resume=True)
            mesh = reconstruct_mesh(views, run, config.mesh, config.seed).to("cpu")
    steps = report.content["steps"]
    seconds = {step: float(entry["seconds"]) for step, entry in steps.items()}
    return Output(views.rgb if method.kind == "generate" else None, mesh), seconds
