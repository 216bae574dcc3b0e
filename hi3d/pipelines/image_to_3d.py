"""The chain: photo to textured mesh, as one list of steps after another."""

import time
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from PIL import Image

from hi3d.config import (
    check_choice,
    check_number,
    check_path,
    config_to_dict,
    load_config,
    parse_elevation,
)
from hi3d.diffusion.memory.modes import MEMORY_MODES
from hi3d.errors import InputError
from hi3d.files import shipped
from hi3d.mesh import SurfaceMesh
from hi3d.pages.result_page import write_result_page
from hi3d.pages.viewer import viewer_script
from hi3d.photo.framing import ForegroundConfig, extract_foreground
from hi3d.pipelines.loading import StagePipeline, check_model, load_pipeline
from hi3d.pipelines.many.seeds import one_seed, seeds_in
from hi3d.pipelines.orbit import OrbitPipeline
from hi3d.pipelines.pictures import render_mesh, write_contact_sheet, write_turntable
from hi3d.pipelines.refiner import RefinerPipeline
from hi3d.pipelines.run_folder import RunFolder, check_output, content_hash, holds_results
from hi3d.pipelines.sampler import SamplerConfig, seeded_generator
from hi3d.pipelines.steps import Context, Step, run_steps
from hi3d.pipelines.upscaling import UPSCALERS, upscaled
from hi3d.pipelines.views_to_mesh import MeshReconstructionConfig, reconstruct_mesh
from hi3d.surface.grid import GridField
from hi3d.surface.neus.start import predicted_field
from hi3d.views import ReferenceImage, Views

DEFAULT_CONFIG = "configs/generate.yaml"
"""Photo to mesh with the small model that the project ships."""
TURNTABLE_ELEVATION_DEG = 20.0
P = TypeVar("P", bound=StagePipeline)


@dataclass
class TurntableConfig:
    """The video of the result."""

    num_frames: int = 48
    """Of one turn, at 16 frames per second, 1 to 3600."""
    resolution: int = 512
    """Side of the video in pixels, even, 16 to 4096."""

    def __post_init__(self) -> None:
        check_number("turntable.num_frames", self.num_frames, 1, 3600)
        check_number("turntable.resolution", self.resolution, 16, 4096)
        if self.resolution % 2:
            raise InputError(f"turntable.resolution is {self.resolution}: give an even number")


@dataclass
class GenerateConfig:
    """Settings of `scripts/generate.py`."""

    seed: Any = 0
    """Of all steps, 0 to 2^63 - 1: the same seed gives the same files. A list such as [0,1,2,3]
    makes a result of each, side by side."""
    elevation_deg: str = "auto"
    """Elevation of the camera that took the photo in degrees, above -90 and below 90, or `auto` to
    estimate it."""
    elevation_from: Literal["regressor", "denoising"] = "regressor"
    """What `auto` asks: the part of stage 1 that was trained for it, or stage 1's UNet, by the
    elevation with which it denoises best."""
    resume: bool = False
    """Go on with what an earlier run left in the folder."""
    dry_run: bool = False
    """Print the memory that both stages need on the card, step by step, and make nothing."""
    memory: Literal["fast", "balanced", "low"] = "fast"
    """How much sampling holds at once: `fast`: everything; `balanced`: guidance and layers piece by
    piece; `low`: smaller pieces, and networks on the GPU in their turn. The output is the same."""
    stage1: str = "data/models/nano/stage1"
    """Model folder of stage 1."""
    stage2: str = "data/models/nano/stage2"
    """Model folder of stage 2."""
    refine_with: str = "stage2"
    """`stage2`, or to see what it is worth `none`, `bicubic` or `real-esrgan` (extra
    `realesrgan`)."""
    foreground: ForegroundConfig = field(default_factory=ForegroundConfig)
    orbit: SamplerConfig = field(default_factory=SamplerConfig)
    refiner: SamplerConfig = field(default_factory=SamplerConfig)
    mesh: MeshReconstructionConfig = field(default_factory=MeshReconstructionConfig)
    turntable: TurntableConfig = field(default_factory=TurntableConfig)

    def __post_init__(self) -> None:
        seeds_in(self.seed)
        parse_elevation(self.elevation_deg)
        check_choice("elevation_from", self.elevation_from, ("regressor", "denoising"))
        check_choice("memory", self.memory, tuple(MEMORY_MODES))
        check_path("stage1", self.stage1)
        check_path("stage2", self.stage2)
        check_choice("refine_with", self.refine_with, ("stage2", *UPSCALERS))


@dataclass(frozen=True)
class Photo3D:
    """A photo in 3D, and what led to it."""

    reference: ReferenceImage
    """The photo, cut out and framed."""
    orbit: Views
    """16 views of stage 1."""
    refined: Views
    """16 views of stage 2, at its resolution."""
    mesh: SurfaceMesh
    """The textured mesh."""


@dataclass(frozen=True)
class Photo:
    """What the steps from the photo to the refined orbit are given."""

    reference: ReferenceImage
    sha256: str
    """Of the photo's content."""
    foreground_seconds: float
    elevation_deg: float | None
    """Of the photo's camera, None to estimate it."""
    config: GenerateConfig
    kept: dict[type[StagePipeline], StagePipeline] | None = None
    """Pipelines that stay loaded for a later step or the next seed; None keeps none."""

    def pipeline(self, pipeline_class: type[P], path: str) -> P:
        """A stage's pipeline, loaded once where it is kept."""
        if self.kept is None:
            return load_pipeline(pipeline_class, path, self.config.memory)
        if pipeline_class not in self.kept:
            self.kept[pipeline_class] = load_pipeline(pipeline_class, path, self.config.memory)
        return cast(P, self.kept[pipeline_class])


@dataclass(frozen=True)
class Pictures:
    """What the steps that draw the result are given."""

    result: Photo3D
    turntable: TurntableConfig
    report: dict[str, Any]
    """Of the run so far."""


# 1. Matting and framing: the reference image.
def make_reference(context: Context[Photo]) -> ReferenceImage:
    """The reference image, which is there before the run begins: a bad photo leaves no trace."""
    context.facts["seconds"] = context.settings.foreground_seconds
    return context.settings.reference


REFERENCE: Step[Photo, ReferenceImage] = Step(
    "foreground",
    "reference.png",
    make_reference,
    lambda context, image, path: image.save(path),
    ReferenceImage.load,
    lambda photo: {"photo": photo.sha256, "foreground": config_to_dict(photo.config.foreground)},
)


# 2. Stage 1: the orbit.
def make_orbit(context: Context[Photo]) -> Views:
    """Orbit of the reference image."""
    photo = context.settings
    config, generator = photo.config, seeded_generator(photo.config.seed)
    pipeline = photo.pipeline(OrbitPipeline, config.stage1)
    orbit = pipeline(
        context[REFERENCE],
        photo.elevation_deg,
        config.orbit,
        generator,
        elevation_from=config.elevation_from,
    )
    context.facts.update(device=pipeline.computes_on, elevation_deg=orbit.elevation_deg)
    return orbit.views


def save_views(context: Context[Photo], views: Views, path: Path) -> None:
    """Write views to the folder of their `cameras.json`."""
    views.save(path.parent)


def load_views(path: Path) -> Views:
    """Read the folder of a `cameras.json`."""
    return Views.load(path.parent)


def orbit_settings(photo: Photo) -> dict[str, Any]:
    """What the orbit depends on beside the reference image."""
    config = photo.config
    named = {"seed": config.seed, "stage1": config.stage1, "elevation_deg": photo.elevation_deg}
    if photo.elevation_deg is None:
        named["elevation_from"] = config.elevation_from
    return named | {"orbit": config_to_dict(config.orbit)}


ORBIT = Step("stage1", "orbit/cameras.json", make_orbit, save_views, load_views, orbit_settings)


# 3. Stage 2: the refined orbit.
def make_refined(context: Context[Photo]) -> Views:
    """The orbit at twice its resolution."""
    config = context.settings.config
    if config.refine_with != "stage2":
        return upscaled(context[ORBIT], config.refine_with)
    pipeline = context.settings.pipeline(RefinerPipeline, config.stage2)
    context.facts.update(device=pipeline.computes_on)
    generator = seeded_generator(config.seed + 1)
    return pipeline(context[ORBIT], context[REFERENCE], config.refiner, generator)


def refined_settings(photo: Photo) -> dict[str, Any]:
    """What the refined orbit depends on beside the orbit."""
    config = photo.config
    if config.refine_with != "stage2":
        return {"refine_with": config.refine_with}
    refiner = config_to_dict(config.refiner)
    return {"seed": config.seed, "stage2": config.stage2, "refiner": refiner}


REFINED = Step(
    "stage2", "refined/cameras.json", make_refined, save_views, load_views, refined_settings
)


# 4. Splats, NeuS and texture are the steps of `views_to_mesh`.
def predicted_start(made: Context[Photo]) -> GridField | None:
    """The object that stage 1 made its orbit from, where its model predicts one as a whole."""
    photo = made.settings
    if not predicts_grid(photo.config):
        return None
    pipeline = photo.pipeline(OrbitPipeline, photo.config.stage1)
    elevation_deg = made[ORBIT].cameras.elevation_deg[0].item()
    generator = seeded_generator(photo.config.seed)
    grid = pipeline.predicted_grid(made[REFERENCE], elevation_deg, generator)
    return None if grid is None else predicted_field(*grid)


# 5. Pictures of the result.
def save_turntable(context: Context[Pictures], value: None, path: Path) -> None:
    """Write the video of one turn."""
    table, mesh = context.settings.turntable, context.settings.result.mesh
    write_turntable(mesh, path, TURNTABLE_ELEVATION_DEG, table.num_frames, table.resolution)


def save_contact_sheet(context: Context[Pictures], value: None, path: Path) -> None:
    """Write the reference image with the views of both stages and of the mesh."""
    result = context.settings.result
    rendered = render_mesh(result.mesh, result.refined.cameras.resized(256, 256))
    rows = {
        "stage 1": result.orbit.rgb,
        "stage 2": result.refined.rgb,
        "textured mesh": rendered.rgb,
    }
    write_contact_sheet(path, result.reference, rows)


def save_page(context: Context[Pictures], value: None, path: Path) -> None:
    """Write the page of what lies in the folder."""
    write_result_page(path, context.settings.report)


def page_settings(_: Pictures) -> dict[str, Any]:
    """Whether meshes can be turned, so that a resumed run adds the viewer once it is at hand."""
    return {"viewer": viewer_script() is not None}


def nothing(_: object) -> None:
    """The value of a step that only draws."""


TURNTABLE = Step(
    "turntable",
    "turntable.mp4",
    nothing,
    save_turntable,
    nothing,
    lambda pictures: {"turntable": config_to_dict(pictures.turntable)},
)
CONTACT_SHEET = Step("contact_sheet", "contact_sheet.png", nothing, save_contact_sheet, nothing)
PAGE = Step("page", "index.html", nothing, save_page, nothing, page_settings)


def image_to_3d(
    photo: str | Path | Image.Image,
    config: GenerateConfig | None = None,
    output: str | Path | None = None,
) -> Photo3D:
    """Photo to textured mesh.

    Args:
        photo: image file or PIL image of one object.
        config: settings; None = those of configs/generate.yaml.
        output: folder in which every step's result is kept, with pictures and a report; None
            writes nothing.

    Returns:
        The mesh, the orbits and the reference image.

    Raises:
        InputError: the photo, a setting or a model folder is wrong, or `output` holds results.
    """
    config = config or load_config(GenerateConfig, shipped(DEFAULT_CONFIG))
    one_seed(config.seed)
    return one_result(photo, read_photo(photo, config, output), output)


def read_photo(
    photo: str | Path | Image.Image, config: GenerateConfig, output: str | Path | None = None
) -> Photo:
    """The photo, cut out and framed, once everything else is found right.

    Raises:
        InputError: as `image_to_3d`.
    """
    elevation_deg = parse_elevation(config.elevation_deg)
    check_models(config)
    if output is not None:
        check_output(Path(output))
        holds_results(Path(output), config.resume)
    start = time.perf_counter()
    reference = extract_foreground(photo, config.foreground)
    seconds = round(time.perf_counter() - start, 3)
    kept: dict[type[StagePipeline], StagePipeline] | None = {} if predicts_grid(config) else None
    return Photo(reference, content_hash(photo), seconds, elevation_deg, config, kept)


def run_folder(photo: str | Path | Image.Image, given: Photo, output: str | Path) -> RunFolder:
    """The folder of a run, with what it is given in its report."""
    settings = config_to_dict(given.config)
    resume = settings.pop("resume")
    name = "in memory" if isinstance(photo, Image.Image) else str(photo)
    inputs = {"photo": name, "elevation_deg": given.elevation_deg}
    return RunFolder(output, inputs, settings, given.config.seed, resume)


def one_result(photo: str | Path | Image.Image, given: Photo, output: str | Path | None) -> Photo3D:
    """The chain with one seed.

    Args:
        photo: as `image_to_3d`; its name goes to the report.
        given: of `read_photo`.
        output: folder; None writes nothing.
    """
    config = replace(given.config, seed=one_seed(given.config.seed))
    given = replace(given, config=config)
    run = None if output is None else run_folder(photo, given, output)
    made = run_steps([REFERENCE, ORBIT, REFINED], given, run)
    start = partial(predicted_start, made)
    mesh = reconstruct_mesh(made[REFINED], run, config.mesh, config.seed, made[REFERENCE], start)
    result = Photo3D(made[REFERENCE], made[ORBIT], made[REFINED], mesh)
    if run is not None:
        pictures = Pictures(result, config.turntable, run.report.content)
        run_steps([TURNTABLE, CONTACT_SHEET, PAGE], pictures, run)
    return result


def predicts_grid(config: GenerateConfig) -> bool:
    """Whether stage 1 makes its orbit from the object as a whole, from which NeuS may start."""
    held, parts = check_model(OrbitPipeline, config.stage1)
    return bool(held.grid_parts & parts.keys())


def check_models(config: GenerateConfig) -> None:
    """Look at both model folders without loading a network.

    Raises:
        InputError: one is missing, incomplete or of the other stage, or the elevation is neither
            given nor estimated by stage 1.
    """
    held, parts = check_model(OrbitPipeline, config.stage1)
    check_model(RefinerPipeline, config.stage2)
    asks_part = config.elevation_deg == "auto" and config.elevation_from == "regressor"
    if asks_part and not held.elevation_parts & parts.keys():
        raise InputError(
            f"{config.stage1} has no part that estimates the camera's elevation: give "
            "elevation_deg=NUMBER, or elevation_from=denoising"
        )
