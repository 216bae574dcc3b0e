"""Views to a textured mesh: splats, interpolated views, NeuS, texture (paper, Section 4.4)."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from hi3d.config import config_to_dict
from hi3d.errors import InputError
from hi3d.pipelines.run_folder import RunFolder
from hi3d.reconstruction.gaussian_splats import GaussianSplats
from hi3d.reconstruction.mesh_io import is_closed, load_mesh, save_mesh
from hi3d.reconstruction.meshing import MeshingConfig, extract_mesh
from hi3d.reconstruction.neus.config import NeusConfig
from hi3d.reconstruction.neus.fit import fit_neus
from hi3d.reconstruction.splats import SplatConfig, fit_splats, render_between_views
from hi3d.reconstruction.texture import TextureConfig, bake_texture
from hi3d.surface_mesh import SurfaceMesh
from hi3d.views import Views, concatenate_views


@dataclass
class MeshReconstructionConfig:
    """Settings of the reconstruction."""

    interpolated_views: int = 16
    """M of Section 4.4: views rendered from the splats between the given ones; 0 for none."""
    interpolated_weight: float = 1.0
    """Weight of the interpolated views in NeuS, where the given ones have 1."""
    splats: SplatConfig = field(default_factory=SplatConfig)
    neus: NeusConfig = field(default_factory=NeusConfig)
    meshing: MeshingConfig = field(default_factory=MeshingConfig)
    texture: TextureConfig = field(default_factory=TextureConfig)


@dataclass
class ReconstructConfig:
    """Settings of `scripts/reconstruct.py`."""

    seed: int = 0
    resume: bool = False
    """Go on with what an earlier run left in the folder."""
    elevation_deg: float | None = None
    """Of a standard orbit, for folders without `cameras.json`."""
    interpolated_views: int = 16
    """M of Section 4.4; 0 for none."""
    mesh: MeshReconstructionConfig = field(default_factory=MeshReconstructionConfig)


def reconstruct_folder(views_folder: str, output: str, config: ReconstructConfig) -> Path:
    """Reconstruct a folder of views into `output`: splats.ply, mesh.glb, report.json.

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
    settings = config_to_dict(config)
    settings.pop("resume")
    run = RunFolder(output, {"views": str(views_folder)}, settings, config.seed, config.resume)
    config.mesh.interpolated_views = config.interpolated_views
    reconstruct_mesh(views, run, config.mesh, config.seed)
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
        InputError: the views show no object, or a setting is wrong.
    """
    if config.interpolated_views < 0:
        raise InputError(f"interpolated_views={config.interpolated_views}: give 0 or more")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    # Generated views have a haze where nothing is: what alpha calls empty becomes white.
    rgb = torch.where(views.alpha > 0, views.rgb, torch.ones_like(views.rgb))
    views = replace(views, rgb=rgb).to(device)

    # Every step goes on from what it wrote, so that a resumed run and a whole one are the same.
    splats_path, surface_path = run.path / "splats.ply", run.path / "surface.ply"
    mesh_path = run.path / "mesh.glb"

    def load_surface() -> SurfaceMesh:
        return load_mesh(surface_path).to(device)

    def make_splats(facts: dict[str, Any]) -> GaussianSplats:
        splats = fit_splats(views, config.splats, seed)
        splats.save_ply(splats_path)
        facts["num_splats"] = len(splats)
        return splats

    def make_surface(facts: dict[str, Any]) -> SurfaceMesh:
        between = render_between_views(splats, views.cameras, config.interpolated_views)
        weights = torch.ones(len(views) + len(between))
        weights[len(views) :] = config.interpolated_weight
        all_views = concatenate_views(views, between)
        grid = fit_neus(all_views, config.neus, seed, weights.to(device))
        surface = extract_mesh(grid, config.meshing, views.cameras)
        save_mesh(surface, surface_path)
        facts.update(num_views=len(all_views), num_faces=len(surface.faces))
        return load_surface()

    def make_textured(facts: dict[str, Any]) -> SurfaceMesh:
        textured = bake_texture(surface, views, config.texture)
        facts.update(num_faces=len(textured.faces), closed=is_closed(textured))
        save_mesh(textured, mesh_path)
        return load_mesh(mesh_path)

    splats = run.step(
        "splats", splats_path, make_splats, lambda: GaussianSplats.load_ply(splats_path).to(device)
    )
    surface = run.step("neus", surface_path, make_surface, load_surface)
    return run.step("texture", mesh_path, make_textured, lambda: load_mesh(mesh_path))
