"""Views to a textured mesh: splats, interpolated views, NeuS, texture (paper, Section 4.4)."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from hi3d.config import check_number, config_to_dict
from hi3d.errors import InputError
from hi3d.mesh import SurfaceMesh
from hi3d.mesh_io import SUFFIXES, is_closed, load_mesh, save_mesh
from hi3d.pipelines.pictures import preview_cameras, render_mesh, render_shape, write_preview
from hi3d.pipelines.run_folder import RunFolder
from hi3d.pipelines.usable_views import usable_views
from hi3d.progress import console
from hi3d.splats import GaussianSplats
from hi3d.splatting.fit import SplatConfig, fit_splats, render_between_views
from hi3d.splatting.rasterization.render import rasterize
from hi3d.surface.initial_points import initial_points
from hi3d.surface.meshing import MeshingConfig, extract_mesh
from hi3d.surface.neus.config import NeusConfig
from hi3d.surface.neus.fit import fit_neus
from hi3d.texture.bake import TextureConfig, bake_texture
from hi3d.views import Views, concatenate_views


@dataclass
class MeshReconstructionConfig:
    """Settings of the reconstruction."""

    interpolated_views: int = 0
    """M of Section 4.4: views rendered from the splats between the given ones. They help where the
    given views do not agree (configs/generate.yaml has the paper's 16) and blur a surface that is
    seen alike from all sides: benchmarks/interpolated_views.py. 0 or more."""
    interpolated_weight: float = 1.0
    """Weight of the interpolated views in the surface, 0 or more, where the given ones have 1."""
    splats: SplatConfig = field(default_factory=SplatConfig)
    neus: NeusConfig = field(default_factory=NeusConfig)
    meshing: MeshingConfig = field(default_factory=MeshingConfig)
    texture: TextureConfig = field(default_factory=TextureConfig)
    export: list[str] = field(default_factory=lambda: ["glb"])
    """Formats of the textured mesh: glb (always written), obj, ply."""

    def __post_init__(self) -> None:
        check_number("interpolated_views", self.interpolated_views, 0)
        check_number("interpolated_weight", self.interpolated_weight, 0)
        for name in self.export:
            if f".{name}" not in SUFFIXES:
                known = ", ".join(suffix[1:] for suffix in SUFFIXES)
                raise InputError(f"export holds {name}: use {known}")


@dataclass
class ReconstructConfig(MeshReconstructionConfig):
    """Settings of `scripts/reconstruct.py`."""

    seed: int = 0
    resume: bool = False
    """Go on with what an earlier run left in the folder."""
    elevation_deg: float | None = None
    """Of a standard orbit, for folders without `cameras.json`."""


def reconstruct_folder(views_folder: str, output: str, config: ReconstructConfig) -> Path:
    """Reconstruct a folder of views into `output`: splats.ply, surface.ply, mesh.glb, report.json.

    After each step a preview_*.png shows its result in four of the views.

    Args:
        views_folder: PNGs and `cameras.json`.
        output: result folder.
        config: settings.

    Returns:
        Path of the textured mesh.

    Raises:
        InputError: the views or the settings are wrong, or `output` holds results already.
    """
    views = Views.load(views_folder, config.elevation_deg)
    usable_views(views)  # before anything is written, so that bad views leave no trace
    settings = config_to_dict(config)
    settings.pop("resume")
    run = RunFolder(output, {"views": str(views_folder)}, settings, config.seed, config.resume)
    reconstruct_mesh(views, run, config, config.seed)
    return run.path / "mesh.glb"


def reconstruct_mesh(
    views: Views, run: RunFolder, config: MeshReconstructionConfig, seed: int
) -> SurfaceMesh:
    """Reconstruct views step by step, each step's result kept in the run's folder.

    Args:
        views: V views over white with alpha.
        run: folder and report.
        config: settings.
        seed: of splats and NeuS.

    Returns:
        The textured mesh, also in `mesh.glb`.

    Raises:
        InputError: fewer than two views show an object, or a setting is wrong.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    views, faults = usable_views(views)
    for view, fault in faults.items():
        console.print(f"view {view} is left out: {fault}")
    # Generated views have a haze where nothing is: what alpha calls empty becomes white.
    rgb = torch.where(views.alpha > 0, views.rgb, torch.ones_like(views.rgb))
    views = replace(views, rgb=rgb).to(device)

    # Every step goes on from what it wrote, so that a resumed run and a whole one are the same.
    splats_path, surface_path = run.path / "splats.ply", run.path / "surface.ply"
    mesh_path = run.path / "mesh.glb"
    shown = preview_cameras(views.cameras)

    def load_surface() -> SurfaceMesh:
        return load_mesh(surface_path).to(device)

    def make_splats(facts: dict[str, Any]) -> GaussianSplats:
        splats = fit_splats_from_hull(views, config.splats, seed)
        with torch.no_grad():
            rendered = rasterize(splats, shown, backend=config.splats.backend)
        write_preview(run.path / "preview_splats.png", rendered.rgb)
        splats.save_ply(splats_path)
        facts.update(num_splats=len(splats), left_out=faults)
        return splats

    def make_surface(facts: dict[str, Any]) -> SurfaceMesh:
        between = render_between_views(
            splats, views.cameras, config.interpolated_views, config.splats.backend
        )
        weights = torch.ones(len(views) + len(between))
        weights[len(views) :] = config.interpolated_weight
        all_views = concatenate_views(views, between)
        grid = fit_neus(all_views, config.neus, seed, weights.to(device))
        surface = extract_mesh(grid, config.meshing, views.cameras)
        write_preview(run.path / "preview_surface.png", render_shape(surface, shown).rgb)
        save_mesh(surface, surface_path)
        facts.update(num_views=len(all_views), num_faces=len(surface.faces))
        return load_surface()

    def make_textured(facts: dict[str, Any]) -> SurfaceMesh:
        textured = bake_texture(surface, views, config.texture)
        facts.update(num_faces=len(textured.faces), closed=is_closed(textured))
        write_preview(run.path / "preview_mesh.png", render_mesh(textured, shown).rgb)
        for name in config.export:
            if name != "glb":
                save_mesh(textured, run.path / f"mesh.{name}")
        save_mesh(textured, mesh_path)  # last: it marks the step as done
        return load_mesh(mesh_path)

    splats = run.step(
        "splats",
        splats_path,
        make_splats,
        lambda: GaussianSplats.load_ply(splats_path).to(device),
    )
    surface = run.step("neus", surface_path, make_surface, load_surface)
    return run.step("texture", mesh_path, make_textured, lambda: load_mesh(mesh_path))


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
