"""Views to a textured mesh: splats, interpolated views, NeuS, texture (paper, Section 4.4)."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from hi3d.assets.surface_mesh import load_mesh
from hi3d.cameras import Cameras, between_views, check_cameras
from hi3d.config import check_elevation, check_number, check_seed, config_to_dict, shortened
from hi3d.errors import InputError
from hi3d.mesh import SUFFIXES, SurfaceMesh, is_closed, save_mesh
from hi3d.pipelines.given_views import load_views
from hi3d.pipelines.pictures import preview_cameras, render_mesh, render_shape, write_preview
from hi3d.pipelines.run_folder import RunFolder
from hi3d.pipelines.steps import Context, Step, run_steps
from hi3d.pipelines.usable_views import usable_views, view_fault
from hi3d.pipelines.world_box import WorldBox, find_world_box
from hi3d.progress import console
from hi3d.splats import GaussianSplats
from hi3d.splatting.fit import SplatConfig, fit_splats, render_between_views
from hi3d.splatting.rasterization.render import rasterize
from hi3d.surface.grid import GridField
from hi3d.surface.initial_points import initial_points
from hi3d.surface.meshing import MeshingConfig, extract_mesh
from hi3d.surface.neus.config import NeusConfig
from hi3d.surface.neus.fit import fit_neus
from hi3d.surface.neus.networks import FieldKind
from hi3d.texture.bake import TextureConfig, bake_texture
from hi3d.views import ReferenceImage, Views, concatenate_views

MAX_PHOTO_SIDE = 1024  # pixels that a photo gives to the texture
Start = Callable[[], GridField | None]
"""Gives the predicted object that NeuS starts from; None where nothing is predicted."""


@dataclass
class MeshReconstructionConfig:
    """Settings of the reconstruction."""

    interpolated_views: int = 0
    """M of Section 4.4: views rendered from the splats between the given ones. They help where the
    given views do not agree (configs/generate.yaml has the paper's 16) and blur a surface that is
    seen alike from all sides: configs/ablation/m.yaml. 0 to 1000."""
    splats: SplatConfig = field(default_factory=SplatConfig)
    neus: NeusConfig = field(default_factory=NeusConfig)
    meshing: MeshingConfig = field(default_factory=MeshingConfig)
    texture: TextureConfig = field(default_factory=TextureConfig)
    export: list[str] = field(default_factory=lambda: ["glb"])
    """Formats of the textured mesh: glb (always written), obj, ply."""
    lit: bool = False
    """Viewers light the mesh. The views' light is in its colors already."""

    def __post_init__(self) -> None:
        check_number("interpolated_views", self.interpolated_views, 0, 1000)
        for name in self.export:
            if f".{name}" not in SUFFIXES:
                known = ", ".join(suffix[1:] for suffix in SUFFIXES)
                raise InputError(f"export holds {shortened(name)}: use {known}")


@dataclass
class ReconstructConfig(MeshReconstructionConfig):
    """Settings of `scripts/reconstruct.py`."""

    seed: int = 0
    """Of splats and NeuS, 0 to 2^63 - 1."""
    resume: bool = False
    """Go on with what an earlier run left in the folder."""
    elevation_deg: float | None = None
    """Of a standard orbit, above -90 and below 90, for folders without `cameras.json`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_seed(self.seed)
        if self.elevation_deg is not None:
            check_elevation(self.elevation_deg)


@dataclass(frozen=True)
class Reconstruction:
    """What the steps of the reconstruction are given."""

    views: Views
    """Those that can be trusted, on the device that computes."""
    left_out: dict[str, str]
    """Number of each other view, and what is wrong with it."""
    config: MeshReconstructionConfig
    seed: int
    photo: Views | None = None
    """The photo that the views were made from, with its camera, where it has more pixels."""
    box: WorldBox | None = None
    """Of the input's world, which the views' cameras have left; None where it is the unit cube."""
    start: Start | None = None
    """Asked when a surface is fitted that starts from a prediction."""

    @property
    def preview_cameras(self) -> Cameras:
        """Of the previews that lie beside the results."""
        return preview_cameras(self.views.cameras)


def make_splats(context: Context[Reconstruction]) -> GaussianSplats:
    """Gaussians fitted to the views."""
    given = context.settings
    splats = fit_splats_from_hull(given.views, given.config.splats, given.seed)
    context.facts.update(num_splats=len(splats), left_out=given.left_out)
    return splats


def save_splats(context: Context[Reconstruction], splats: GaussianSplats, path: Path) -> None:
    """Write `splats.ply`, and a preview before it."""
    given = context.settings
    with torch.no_grad():
        rendered = rasterize(splats, given.preview_cameras, backend=given.config.splats.backend)
    write_preview(path.with_name("preview_splats.png"), rendered.rgb)
    splats.save_ply(path)


def make_surface(context: Context[Reconstruction]) -> SurfaceMesh:
    """The surface fitted to the views and to those between them."""
    given = context.settings
    config, views = given.config, given.views
    splats = context[SPLATS].to(views.rgb.device)
    between = render_between_views(
        splats, views.cameras, config.interpolated_views, config.splats.backend
    )
    all_views = concatenate_views(views, between)
    asked = config.neus.field is FieldKind.predicted
    start = given.start() if asked and given.start is not None else None
    grid = fit_neus(all_views, config.neus, given.seed, start=start)
    surface = extract_mesh(grid, config.meshing, views.cameras, views)
    context.facts.update(
        num_views=len(all_views), num_faces=len(surface.faces), from_prediction=start is not None
    )
    return surface


def save_surface(context: Context[Reconstruction], surface: SurfaceMesh, path: Path) -> None:
    """Write `surface.ply`, and a preview before it."""
    shape = render_shape(surface, context.settings.preview_cameras)
    write_preview(path.with_name("preview_surface.png"), shape.rgb)
    save_mesh(surface, path)


def make_textured(context: Context[Reconstruction]) -> SurfaceMesh:
    """The surface with a texture baked from the views."""
    given = context.settings
    surface = context[SURFACE].to(given.views.rgb.device)
    textured = bake_texture(surface, given.views, given.config.texture, given.photo)
    context.facts.update(num_faces=len(textured.faces), closed=is_closed(textured))
    if given.box:
        context.facts.update(box=str(given.box))
        return given.box.mesh_outside(textured)
    return textured


def save_textured(context: Context[Reconstruction], textured: SurfaceMesh, path: Path) -> None:
    """Write `mesh.glb`, and before it a preview and the other formats."""
    box = context.settings.box
    inside = box.mesh_inside(textured) if box else textured
    rendered = render_mesh(inside, context.settings.preview_cameras)
    write_preview(path.with_name("preview_mesh.png"), rendered.rgb)
    for name in context.settings.config.export:
        if name != "glb":
            save_mesh(textured, path.with_suffix(f".{name}"), context.settings.config.lit)
    save_mesh(textured, path, context.settings.config.lit)


def splat_settings(given: Reconstruction) -> dict[str, Any]:
    """What the splats depend on."""
    splats = config_to_dict(given.config.splats)
    return {"views": views_hash(given.views), "seed": given.seed, "mesh.splats": splats}


def surface_settings(given: Reconstruction) -> dict[str, Any]:
    """What the surface depends on beside the splats."""
    config = given.config
    return {
        "seed": given.seed,
        "mesh.interpolated_views": config.interpolated_views,
        "mesh.neus": config_to_dict(config.neus),
        "mesh.meshing": config_to_dict(config.meshing),
    }


def texture_settings(given: Reconstruction) -> dict[str, Any]:
    """What the files of the textured mesh depend on beside the surface."""
    config = given.config
    return {
        "mesh.texture": config_to_dict(config.texture),
        "mesh.export": list(config.export),
        "mesh.lit": config.lit,
        "photo": None if given.photo is None else views_hash(given.photo),
    }


def views_hash(views: Views) -> str:
    """SHA-256 of the pixels and cameras of views."""
    digest = hashlib.sha256()
    for values in (views.rgb, views.alpha, views.cameras.viewmats, views.cameras.Ks):
        digest.update(values.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


SPLATS = Step(
    "splats", "splats.ply", make_splats, save_splats, GaussianSplats.load_ply, splat_settings
)
SURFACE = Step("neus", "surface.ply", make_surface, save_surface, load_mesh, surface_settings)
TEXTURE = Step("texture", "mesh.glb", make_textured, save_textured, load_mesh, texture_settings)


def reconstruct(
    views: Views | str | Path,
    config: ReconstructConfig | None = None,
    output: str | Path | None = None,
) -> SurfaceMesh:
    """Reconstruct views as a textured mesh.

    Args:
        views: V views over white with alpha, or a folder of views with cameras of any format that
            `hi3d.pipelines.given_views.load_views` reads. Where the object does not fill the unit
            cube, its world is moved and scaled for the computation.
        config: settings; None = the defaults.
        output: folder for splats.ply, surface.ply, mesh.glb, report.json and, after each step, a
            preview_*.png of its result in four of the views; None writes nothing.

    Returns:
        The textured mesh, in the views' own coordinates.

    Raises:
        InputError: the views or the settings are wrong, or `output` holds results already.
    """
    config = config or ReconstructConfig()
    inputs = {"views": "in memory" if isinstance(views, Views) else str(views)}
    if not isinstance(views, Views):
        views = load_views(views, config.elevation_deg)
    check_cameras(views.cameras, str(inputs["views"]))
    views, box = into_unit_cube(views)
    given = replace(trusted(views, config, config.seed), box=box)  # before anything is written
    run = None
    if output is not None:
        settings = config_to_dict(config)
        settings.pop("resume")
        run = RunFolder(output, inputs, settings, config.seed, config.resume)
    return reconstruction_steps(given, run)[TEXTURE]


def reconstruct_mesh(
    views: Views,
    run: RunFolder | None,
    config: MeshReconstructionConfig,
    seed: int,
    photo: ReferenceImage | None = None,
    start: Start | None = None,
) -> SurfaceMesh:
    """Reconstruct views step by step, as a part of another run.

    Args:
        views: V views over white with alpha.
        run: folder and report; None writes nothing.
        config: settings.
        seed: of splats and NeuS.
        photo: what view 0 was made from; its detail goes to the texture.
        start: what `neus.field=predicted` starts from; None: the views' hull.

    Returns:
        The textured mesh.

    Raises:
        InputError: fewer than two views show an object, or a setting is wrong.
    """
    given = trusted(views, config, seed)
    given = replace(given, photo=photo_view(photo, views.cameras[0]), start=start)
    return reconstruction_steps(given, run)[TEXTURE]


def photo_view(photo: ReferenceImage | None, camera: Cameras) -> Views | None:
    """The photo as a view of its own, where it has more pixels than the views have.

    Args:
        photo: cut out and framed as view 0.
        camera: of view 0.
    """
    side = 0 if photo is None else min(photo.rgb.shape[-1], MAX_PHOTO_SIDE)
    if photo is None or side <= camera.height:
        return None
    small = photo.resized(side)
    return Views(small.rgb[None], small.alpha[None], camera.resized(side, side))


def reconstruction_steps(given: Reconstruction, run: RunFolder | None) -> Context[Reconstruction]:
    """Run the three steps of the reconstruction."""
    if given.box:
        console.print(
            f"the object fills {given.box}: splats.ply and surface.ply are in the unit cube, "
            "mesh.glb in the coordinates of the cameras"
        )
    for view, fault in given.left_out.items():
        console.print(f"view {view} is left out: {fault}")
    return run_steps([SPLATS, SURFACE, TEXTURE], given, run)


def trusted(views: Views, config: MeshReconstructionConfig, seed: int) -> Reconstruction:
    """Views that can be trusted, on the GPU where there is one.

    Raises:
        InputError: fewer than two views show an object, or a setting is wrong.
    """
    views, left_out = usable_views(views)
    if config.interpolated_views:
        try:
            between_views(views.cameras, config.interpolated_views)
        except ValueError as error:
            raise InputError(
                f"interpolated_views={config.interpolated_views} lie between these cameras on the "
                "z axis, where up has no direction: set interpolated_views=0"
            ) from error
    # Generated views have a haze where nothing is: what alpha calls empty becomes white.
    rgb = torch.where(views.alpha > 0, views.rgb, torch.ones_like(views.rgb))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Reconstruction(replace(views, rgb=rgb).to(device), left_out, config, seed)


def into_unit_cube(views: Views) -> tuple[Views, WorldBox | None]:
    """The views with cameras of the world in which the object fills the unit cube.

    Returns:
        The views, and the cube in the world of the given ones; None where the two are one.

    Raises:
        InputError: the cameras do not bound an object.
    """
    shown = [v for v in range(len(views)) if not view_fault(views.rgb[v], views.alpha[v])]
    box = find_world_box(views[shown]) if len(shown) > 1 else None
    if box is None:
        return views, None
    return replace(views, cameras=box.cameras_inside(views.cameras)), box


def fit_splats_from_hull(views: Views, config: SplatConfig, seed: int) -> GaussianSplats:
    """Gaussians fitted to views from their visual hull on.

    Args:
        views: V views over white with alpha.
        config: settings.
        seed: of the first points, the order of the views and splits.

    Raises:
        InputError: no view shows an object, or gsplat's strategies are asked for without CUDA.
    """
    generator = torch.Generator(views.rgb.device).manual_seed(seed)
    points = initial_points(views, config.num_initial, generator)
    return fit_splats(views, points, config, generator)
