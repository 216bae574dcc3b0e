"""Views to a textured mesh: splats, interpolated views, NeuS, texture (paper, Section 4.4)."""

from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hi3d.assets.surface_mesh import load_mesh
from hi3d.config import config_to_dict
from hi3d.errors import InputError
from hi3d.mesh import SUFFIXES, SurfaceMesh, is_closed, save_mesh
from hi3d.pipelines.pictures import preview_cameras, render_mesh, render_shape, write_preview
from hi3d.pipelines.run_folder import RunFolder
from hi3d.pipelines.usable_views import usable_views
from hi3d.progress import console
from hi3d.splats import GaussianSplats
from hi3d.splatting.fit import SplatConfig, fit_splats, render_between_views
from hi3d.splatting.rasterization.render import rasterize
from hi3d.surface.grid import GridField
from hi3d.surface.meshing import MeshingConfig, extract_mesh
from hi3d.surface.neus.config import NeusConfig
from hi3d.surface.neus.fit import fit_neus
from hi3d.surface.tsdf import TsdfConfig, fuse_depth
from hi3d.texture.bake import TextureConfig, bake_texture
from hi3d.views import Views, concatenate_views


class Surface(Enum):
    """How the views become a signed distance field."""

    neus = "neus"
    """Fitted by volume rendering, as in the paper."""
    tsdf = "tsdf"
    """Fused from the depth of the splats: faster and coarser."""


@dataclass
class MeshReconstructionConfig:
    """Settings of the reconstruction."""

    surface: Surface = Surface.neus

    interpolated_views: int = 0
    """M of Section 4.4: views rendered from the splats between the given ones. They help where the
    given views do not agree (configs/generate.yaml has the paper's 16) and blur a surface that is
    seen alike from all sides: benchmarks/interpolated_views.py."""
    interpolated_weight: float = 1.0
    """Weight of the interpolated views in the surface, where the given ones have 1."""
    splats: SplatConfig = field(default_factory=SplatConfig)
    neus: NeusConfig = field(default_factory=NeusConfig)
    tsdf: TsdfConfig = field(default_factory=TsdfConfig)
    meshing: MeshingConfig = field(default_factory=MeshingConfig)
    texture: TextureConfig = field(default_factory=TextureConfig)
    export: list[str] = field(default_factory=lambda: ["glb"])
    """Formats of the textured mesh: glb (always written), obj, ply."""

    def __post_init__(self) -> None:
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
    if config.interpolated_views < 0:
        raise InputError(f"interpolated_views={config.interpolated_views}: give 0 or more")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    views, faults = usable_views(views, config.neus.half_extent)
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
        splats = fit_splats(views, config.splats, seed)
        with torch.no_grad():
            rendered = rasterize(
                splats,
                shown,
                backend=config.splats.backend,
                antialiased=config.splats.antialiased,
            )
        write_preview(run.path / "preview_splats.png", rendered.rgb)
        splats.save_ply(splats_path)
        facts.update(num_splats=len(splats), left_out=faults)
        return splats

    def make_surface(facts: dict[str, Any]) -> SurfaceMesh:
        between = render_between_views(
            splats,
            views.cameras,
            config.interpolated_views,
            config.splats.backend,
            config.splats.antialiased,
        )
        weights = torch.ones(len(views) + len(between))
        weights[len(views) :] = config.interpolated_weight
        all_views = concatenate_views(views, between)
        if config.surface is Surface.tsdf:
            grid = fuse_splats(splats, all_views, config, weights.to(device))
        else:
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
    surface = run.step(config.surface.value, surface_path, make_surface, load_surface)
    return run.step("texture", mesh_path, make_textured, lambda: load_mesh(mesh_path))


def fuse_splats(
    splats: GaussianSplats, views: Views, config: MeshReconstructionConfig, view_weights: Tensor
) -> GridField:
    """The field fused from the depth that splats have in the cameras of V views.

    Args:
        splats: fitted to the views.
        views: alpha carves, colour goes to the surface.
        config: settings.
        view_weights: [V]
    """
    cameras = [views.cameras[view] for view in range(len(views))]
    options: dict[str, Any] = {
        "backend": config.splats.backend,
        "antialiased": config.splats.antialiased,
    }
    with torch.no_grad():
        rendered = [rasterize(splats, camera, **options).depth[:, 0] for camera in cameras]
    return fuse_depth(views, torch.cat(rendered), config.tsdf, view_weights)
