"""What the page's owner decides, and what visitors may."""

from dataclasses import dataclass, field, replace
from typing import Any, cast

from hi3d.config import check_choice, check_elevation, check_number, shortened
from hi3d.diffusion.memory.modes import MEMORY_MODES
from hi3d.errors import InputError
from hi3d.pipelines.many.seeds import seeds_in
from hi3d.text_to_image.generate import PromptConfig

TEXTURE_SIDES = (512, 1024, 2048, 4096, 8192)


@dataclass
class LimitsConfig:
    """How much one visitor may ask for."""

    upload_mb: int = 20
    """Largest upload, 1 to 1000."""
    megapixels: int = 40
    """Largest photo, 1 to 100."""
    steps: int = 50
    """Most sampling steps of each stage, 1 to 1000."""
    interpolated_views: int = 32
    """Largest M, 0 to 1000."""
    texture: int = 4096
    """Largest side of the texture, 1 to 8192."""
    waiting: int = 8
    """Visitors who may wait while one's mesh is made, 1 to 1000."""
    kept_minutes: int = 60
    """After which the files of a visitor who does nothing are deleted, 1 to 10000."""

    def __post_init__(self) -> None:
        check_number("limits.upload_mb", self.upload_mb, 1, 1000)
        check_number("limits.megapixels", self.megapixels, 1, 100)
        check_number("limits.steps", self.steps, 1, 1000)
        check_number("limits.interpolated_views", self.interpolated_views, 0, 1000)
        check_number("limits.texture", self.texture, 1, 8192)
        check_number("limits.waiting", self.waiting, 1, 1000)
        check_number("limits.kept_minutes", self.kept_minutes, 1, 10_000)


@dataclass
class DemoConfig(PromptConfig):
    """Settings of `scripts/demo.py`: those of `scripts/generate.py`, and limits for visitors."""

    limits: LimitsConfig = field(default_factory=LimitsConfig)

    @property
    def texture_sides(self) -> list[int]:
        """Sides of the texture that a visitor may choose."""
        given = self.mesh.texture.resolution
        return sorted({given, *(side for side in TEXTURE_SIDES if side <= self.limits.texture)})


@dataclass(frozen=True)
class Choices:
    """What a visitor may set; everything else is the owner's."""

    seed: int
    """0 to 2^63 - 1."""
    elevation_deg: float | None
    """Above -90 and below 90; None estimates it."""
    steps: int
    """Sampling steps of both stages."""
    interpolated_views: int
    """M."""
    texture: int
    """Side of the texture."""
    memory: str
    """`fast`, `balanced` or `low`."""


def whole(key: str, value: object) -> int:
    """A whole number, as forms and programs send it.

    Raises:
        InputError: it is none.
    """
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise InputError(f"{key} is {shortened(value)}: give a whole number")


def choices_of(
    elevation_deg: float,
    estimate_elevation: bool,
    seed: float,
    steps: float,
    interpolated_views: float,
    texture: float,
    memory: str,
) -> Choices:
    """Choices as forms and programs send them, in this order.

    Raises:
        InputError: a whole number is none.
    """
    return Choices(
        seed=whole("seed", seed),
        elevation_deg=None if estimate_elevation else elevation_deg,
        steps=whole("steps", steps),
        interpolated_views=whole("interpolated_views", interpolated_views),
        texture=whole("texture", texture),
        memory=memory,
    )


def chosen(config: DemoConfig, choices: Choices) -> DemoConfig:
    """The owner's settings with a visitor's choices.

    Raises:
        InputError: a choice is beyond what the owner allows.
    """
    limits, orbit, mesh = config.limits, config.orbit, config.mesh
    seeds_in(choices.seed)
    check_number("steps", choices.steps, 1, max(limits.steps, orbit.num_inference_steps))
    most = max(limits.interpolated_views, mesh.interpolated_views)
    check_number("interpolated_views", choices.interpolated_views, 0, most)
    check_choice("texture", str(choices.texture), tuple(map(str, config.texture_sides)))
    check_choice("memory", choices.memory, tuple(MEMORY_MODES))
    if choices.elevation_deg is not None:
        check_elevation(choices.elevation_deg)
    refiner = config.refiner
    if choices.steps != orbit.num_inference_steps:
        refiner = replace(refiner, num_inference_steps=choices.steps)
    return replace(
        config,
        seed=choices.seed,
        elevation_deg="auto" if choices.elevation_deg is None else str(choices.elevation_deg),
        memory=cast(Any, choices.memory),
        orbit=replace(orbit, num_inference_steps=choices.steps),
        refiner=refiner,
        mesh=replace(
            mesh,
            interpolated_views=choices.interpolated_views,
            texture=replace(mesh.texture, resolution=choices.texture),
            export=["glb", "obj"],
        ),
        resume=False,
        dry_run=False,
    )
