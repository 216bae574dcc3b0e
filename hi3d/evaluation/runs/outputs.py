"""What a method makes of one object: views and mesh."""

import functools
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from hi3d.evaluation.methods.layouts import LAYOUTS
from hi3d.evaluation.methods.reading import read_output
from hi3d.evaluation.runs.config import MethodConfig
from hi3d.evaluation.truth import Truth
from hi3d.mesh import SurfaceMesh
from hi3d.pipelines.image_to_3d import (
    ORBIT,
    REFERENCE,
    REFINED,
    GenerateConfig,
    Photo,
    predicted_start,
)
from hi3d.pipelines.loading import StagePipeline
from hi3d.pipelines.run_folder import RunFolder
from hi3d.pipelines.steps import run_steps
from hi3d.pipelines.views_to_mesh import reconstruct_mesh
from hi3d.views import ReferenceImage


@dataclass(frozen=True)
class Output:
    """Of one object by one method with one seed."""

    rgb: Tensor | None  # [V, 3, H, W]
    """Views of the tables' cameras over white; None where there are none."""
    mesh: SurfaceMesh | None
    """In the truth's coordinates."""


def make_output(
    method: MethodConfig, seed: int | None, name: str, truth: Truth, folder: Path, meshes: bool
) -> tuple[Output, dict[str, float]]:
    """Generate, reconstruct or read.

    Args:
        method: of the output.
        seed: None where nothing is drawn.
        name: of the object.
        truth: of the object, whose photo is given to the method.
        folder: of the steps' results; those that are there and made alike are read.
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
    run = RunFolder(folder, {"object": name, "truth": truth.folder.name}, {}, config.seed, True)
    views, rgb, reference, start = truth.views, None, None, None
    if method.kind == "generate":
        photo = photo_of(truth, config)
        made = run_steps([REFERENCE, ORBIT, REFINED], photo, run)
        views = made[REFINED].to("cpu")
        rgb, reference, start = views.rgb, photo.reference, functools.partial(predicted_start, made)
    mesh = None
    if meshes:
        mesh = reconstruct_mesh(views, run, config.mesh, config.seed, reference, start).to("cpu")
    steps = run.report.content["steps"]
    return Output(rgb, mesh), {
        step: float(entry["seconds"]) for step, entry in steps.items() if "seconds" in entry
    }


def photo_of(truth: Truth, config: GenerateConfig) -> Photo:
    """The truth's photo as it is: framed anew it would show the object in another size.

    Args:
        truth: of the object.
        config: of the chain.
    """
    image = ReferenceImage(truth.photo.rgb[0], truth.photo.alpha[0])
    elevation = None if config.elevation_deg == "auto" else float(config.elevation_deg)
    kept = kept_pipelines(config.stage1, config.stage2, config.memory)
    return Photo(image, truth.folder.name, 0.0, elevation, config, kept)


@functools.cache
def kept_pipelines(
    stage1: str, stage2: str, memory: str
) -> dict[type[StagePipeline], StagePipeline]:
    """Pipelines of two model folders, which stay loaded in a process."""
    del stage1, stage2, memory
    return {}
