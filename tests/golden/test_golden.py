"""What every part computes, as a few numbers each: a change meant to change nothing keeps them."""

from pathlib import Path

import pytest
import torch

from hi3d.assets.load import load_object
from hi3d.cameras import orbit_cameras
from hi3d.config import load_config
from hi3d.degradation.draws import DegradationConfig
from hi3d.degradation.pipeline import degrade
from hi3d.diffusion.guidance import GuidanceConfig
from hi3d.evaluation.mesh_metrics import score_mesh
from hi3d.evaluation.view_metrics import score_views
from hi3d.photo.framing import ForegroundConfig, extract_foreground
from hi3d.pipelines.loading import load_pipeline
from hi3d.pipelines.orbit import OrbitPipeline
from hi3d.pipelines.refiner import RefinerPipeline
from hi3d.pipelines.sampler import SamplerConfig, seeded_generator
from hi3d.pipelines.views_to_mesh import fit_splats_from_hull
from hi3d.rendering.rasterizer import render_views
from hi3d.splatting.fit import SplatConfig
from hi3d.splatting.rasterization.render import rasterize
from hi3d.surface.meshing import MeshingConfig, extract_mesh
from hi3d.surface.neus.config import NeusConfig
from hi3d.surface.neus.fit import fit_neus
from hi3d.surface.tsdf import fuse_depth
from hi3d.surface.visual_hull import hull_sdf
from hi3d.texture.bake import TextureConfig, bake_texture
from hi3d.views import ReferenceImage, Views

ROOT = Path(__file__).parents[2]
NANO = ROOT / "data" / "models" / "nano"
MAILBOX = ROOT / "data" / "examples" / "mailbox_photo.jpg"
SAMPLER = SamplerConfig(3, guidance=GuidanceConfig(schedule="linear", max_scale=2.0))


@pytest.fixture(scope="module")
def sphere(sphere_views) -> tuple[Views, torch.Tensor]:
    return sphere_views(orbit_cameras(20.0, 48))


def small_splats(views: Views):
    return fit_splats_from_hull(
        views, SplatConfig(steps=12, num_initial=300, max_splats=400), seed=3
    )


def small_surface(views: Views):
    config = NeusConfig(
        steps=16,
        rays_per_step=256,
        resolutions=[16, 24],
        resolution_starts=[0.0, 0.5],
        regularized_vertices=256,
    )
    field = fit_neus(views, config, seed=3)
    return field, extract_mesh(field, MeshingConfig(target_faces=400), views.cameras)


def test_cameras(golden):
    cameras = orbit_cameras(20.0, 48)
    golden("cameras", viewmats=cameras.viewmats, Ks=cameras.Ks, azimuth=cameras.azimuth_deg)


def test_photo(golden):
    image = extract_foreground(MAILBOX, ForegroundConfig(resolution=96))
    golden("photo", rgb=image.rgb, alpha=image.alpha)


@pytest.mark.parametrize("folder", ["tiny", "nano"])
def test_both_stages(folder, tiny_models, golden):
    models = tiny_models if folder == "tiny" else NANO
    photo = extract_foreground(MAILBOX, ForegroundConfig(resolution=96))
    image = ReferenceImage(photo.rgb, photo.alpha)
    pipeline = load_pipeline(OrbitPipeline, str(models / "stage1"))
    orbit = pipeline(image, 10.0, SAMPLER, seeded_generator(5))
    golden(f"{folder} orbit", rgb=orbit.views.rgb)
    estimated = pipeline(image, None, SAMPLER, seeded_generator(5)).elevation_deg
    golden(f"{folder} elevation", degrees=float(estimated))
    refiner = load_pipeline(RefinerPipeline, str(models / "stage2"))
    refined = refiner(orbit.views, image, SAMPLER, seeded_generator(6))
    golden(f"{folder} refined", rgb=refined.rgb)


def test_splats(sphere, golden):
    views = sphere[0]
    splats = small_splats(views)
    rendered = rasterize(splats, views.cameras[:2])
    golden("splats", count=len(splats.means), means=splats.means, rgb=rendered.rgb)


def test_hull_and_fused_depth(sphere, golden):
    views, depth = sphere
    field = fuse_depth(views, depth, 24)
    golden("hull", sdf=hull_sdf(views, 20, 0.55, 1))
    golden("fused depth", vertices=extract_mesh(field, MeshingConfig(target_faces=300)).vertices)


def test_surface_and_texture(sphere, golden):
    views = sphere[0]
    field, mesh = small_surface(views)
    golden(
        "surface",
        faces=len(mesh.faces),
        sdf=field.sdf,
        low=mesh.vertices.amin(0),
        high=mesh.vertices.amax(0),
        vertices=mesh.vertices,
        rgb=mesh.vertex_rgb,
    )
    textured = bake_texture(mesh, views, TextureConfig(resolution=96))
    golden("texture", corners=len(textured.vertices), texture=textured.texture)


@pytest.mark.parametrize("preset", ["paper", "official"])
def test_degradation(preset, golden):
    config = load_config(DegradationConfig, ROOT / f"configs/degradation/{preset}.yaml")
    generator = torch.Generator().manual_seed(2)
    rgb = torch.rand(1, 3, 3, 64, 64, generator=generator)
    alpha = torch.zeros(1, 3, 1, 64, 64)
    alpha[..., 12:50, 10:48] = 1
    video = rgb * alpha + 1 - alpha
    golden(f"degraded, {preset}", rgb=degrade(video, alpha, config, generator))


def test_rendered_orbit(golden):
    scene = load_object(ROOT / "data/examples/objects/mailbox.glb")
    rendered = render_views(scene, orbit_cameras(15.0, 48, 4), "embreex")
    golden("rendered", rgb=rendered.rgb, alpha=rendered.alpha, depth=rendered.depth.float())


def test_scores(sphere, sphere_views, golden):
    views, depth = sphere
    shifted = sphere_views(orbit_cameras(20.0, 48), 0.37)[0]
    golden("view scores", **score_views(views, shifted).means())
    meshes = [extract_mesh(fuse_depth(views, depth, n), MeshingConfig()) for n in (20, 28)]
    golden("mesh scores", **vars(score_mesh(*meshes)))
