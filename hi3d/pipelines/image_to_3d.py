"""The chain: photo to textured mesh."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hi3d.config import config_to_dict
from hi3d.errors import InputError
from hi3d.files import make_folder
from hi3d.photo.framing import ForegroundConfig, extract_foreground
from hi3d.pipelines.loading import load_pipeline
from hi3d.pipelines.orbit import OrbitPipeline
from hi3d.pipelines.pictures import render_mesh, write_contact_sheet, write_turntable
from hi3d.pipelines.refiner import RefinerPipeline
from hi3d.pipelines.run_folder import RunFolder, holds_results
from hi3d.pipelines.sampler import SamplerConfig, seeded_generator
from hi3d.pipelines.views_to_mesh import MeshReconstructionConfig, reconstruct_mesh
from hi3d.progress import console
from hi3d.views import ReferenceImage, Views


@dataclass
class TurntableConfig:
    """The video of the result."""

    num_frames: int = 48
    resolution: int = 512
    elevation_deg: float = 20.0


@dataclass
class GenerateConfig:
    """Settings of `scripts/generate.py`."""

    seed: int = 0
    elevation_deg: str = "auto"
    """Elevation of the camera that took the photo in degrees, or `auto` to estimate it."""
    resume: bool = False
    """Go on with what an earlier run left in the folder."""
    stage1: str = "data/models/nano/stage1"
    """Model folder of stage 1."""
    stage2: str = "data/models/nano/stage2"
    """Model folder of stage 2."""
    foreground: ForegroundConfig = field(default_factory=ForegroundConfig)
    orbit: SamplerConfig = field(default_factory=SamplerConfig)
    refiner: SamplerConfig = field(default_factory=SamplerConfig)
    mesh: MeshReconstructionConfig = field(default_factory=MeshReconstructionConfig)
    turntable: TurntableConfig = field(default_factory=TurntableConfig)


def generate(photos: list[str], output: str, config: GenerateConfig) -> list[Path]:
    """Make a textured mesh of every photo, each in its own folder of `output`.

    Args:
        photos: image files.
        output: folder; a photo `cup.png` goes to `output/cup/`.
        config: settings.

    Returns:
        The folders.

    Raises:
        InputError: something is wrong with the settings, the output or a photo; with several
            photos the good ones are finished first.
    """
    elevation_deg = parse_elevation(config.elevation_deg)
    names = [Path(photo).stem for photo in photos]
    if len(set(names)) < len(names):
        raise InputError("two photos have the same name: rename one, or run them one by one")
    make_folder(output)
    folders, errors = [], []
    for photo, name in zip(photos, names, strict=True):
        try:
            folders.append(image_to_3d(photo, Path(output) / name, elevation_deg, config))
        except InputError as error:
            errors.append(str(error))
    if errors:
        raise InputError("; ".join(errors))
    return folders


def image_to_3d(
    photo: str, folder: Path, elevation_deg: float | None, config: GenerateConfig
) -> Path:
    """Photo to textured mesh; every step's result is kept in `folder`.

    Args:
        photo: image file.
        folder: result folder.
        elevation_deg: of the photo's camera, None to estimate it.
        config: settings.

    Returns:
        `folder`.

    Raises:
        InputError: the photo, a setting or a model folder is wrong, or `folder` holds results.
    """
    holds_results(folder, config.resume)
    # 1. Matting and framing come before anything is written, so that a bad photo leaves no trace.
    start = time.perf_counter()
    reference = extract_foreground(photo, config.foreground)
    foreground_seconds = round(time.perf_counter() - start, 3)
    settings = config_to_dict(config)
    settings.pop("resume")
    inputs = {"photo": str(photo), "elevation_deg": elevation_deg}
    run = RunFolder(folder, inputs, settings, config.seed, config.resume)

    def make_reference(facts: dict[str, Any]) -> ReferenceImage:
        reference.save(folder / "reference.png")
        facts["seconds"] = foreground_seconds
        return ReferenceImage.load(folder / "reference.png")

    def make_orbit(facts: dict[str, Any]) -> Views:
        pipeline = load_pipeline(OrbitPipeline, config.stage1)
        result = pipeline(reference, elevation_deg, config.orbit, seeded_generator(config.seed))
        facts.update(device=str(pipeline.device), elevation_deg=result.elevation_deg)
        result.views.save(folder / "orbit")
        return Views.load(folder / "orbit")

    def make_refined(facts: dict[str, Any]) -> Views:
        pipeline = load_pipeline(RefinerPipeline, config.stage2)
        refined = pipeline(orbit, reference, config.refiner, seeded_generator(config.seed + 1))
        facts.update(device=str(pipeline.device))
        refined.save(folder / "refined")
        return Views.load(folder / "refined")

    def make_turntable(facts: dict[str, Any]) -> None:
        table = config.turntable
        path = folder / "turntable.mp4"
        write_turntable(mesh, path, table.elevation_deg, table.num_frames, table.resolution)

    def make_contact_sheet(facts: dict[str, Any]) -> None:
        rendered = render_mesh(mesh, refined.cameras.resized(256, 256))
        rows = {"stage 1": orbit.rgb, "stage 2": refined.rgb, "textured mesh": rendered.rgb}
        write_contact_sheet(folder / "contact_sheet.png", reference, rows)

    reference = run.step(
        "foreground",
        folder / "reference.png",
        make_reference,
        lambda: ReferenceImage.load(folder / "reference.png"),
    )
    # 2. Stage 1: the orbit.
    orbit = run.step(
        "stage1",
        folder / "orbit" / "cameras.json",
        make_orbit,
        lambda: Views.load(folder / "orbit"),
    )
    # 3. Stage 2: the refined orbit.
    refined = run.step(
        "stage2",
        folder / "refined" / "cameras.json",
        make_refined,
        lambda: Views.load(folder / "refined"),
    )
    # 4. Splats, NeuS and texture.
    mesh = reconstruct_mesh(refined, run, config.mesh, config.seed)
    # 5. Pictures.
    run.step("turntable", folder / "turntable.mp4", make_turntable, lambda: None)
    run.step("contact_sheet", folder / "contact_sheet.png", make_contact_sheet, lambda: None)
    run.report.save(folder / "report.json")
    for name in ("mesh.glb", "turntable.mp4", "contact_sheet.png"):
        console.print(f"{name.split('.')[0].replace('_', ' ')}: {folder / name}")
    return folder


def parse_elevation(value: str) -> float | None:
    """`auto` to None, a number to degrees.

    Raises:
        InputError: neither.
    """
    if value == "auto":
        return None
    try:
        return float(value)
    except ValueError as error:
        raise InputError(f"elevation_deg={value}: give a number of degrees, or auto") from error
