"""Every YAML in configs/ has its header and fits its schema; the shipped model is whole."""

from pathlib import Path

import pytest
import torch

from hi3d.config import load_config
from hi3d.degradation.draws import DegradationConfig
from hi3d.evaluation.runs.ablation import AblationConfig
from hi3d.evaluation.runs.config import TablesConfig
from hi3d.nano.tasks import ALL_TASKS
from hi3d.orbits.config import OrbitRenderConfig
from hi3d.photo.framing import ForegroundConfig, extract_foreground
from hi3d.pipelines.image_to_3d import GenerateConfig
from hi3d.pipelines.loading import load_pipeline
from hi3d.pipelines.orbit import OrbitPipeline
from hi3d.pipelines.refiner import RefinerPipeline
from hi3d.pipelines.sampler import SamplerConfig, seeded_generator
from hi3d.pipelines.views_to_mesh import ReconstructConfig
from hi3d.training.tasks import load_experiment

ROOT = Path(__file__).parents[1]
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
SCHEMAS = {
    "generate.yaml": GenerateConfig,
    "generate_official.yaml": GenerateConfig,
    "generate_paper.yaml": GenerateConfig,
    "reconstruct_1024.yaml": ReconstructConfig,
    "render_orbits": OrbitRenderConfig,
    "degradation": DegradationConfig,
    "ablation": AblationConfig,
    "eval": TablesConfig,
}
"""By the name of the file or of its folder; the others are experiments."""
BASES = {"data.yaml"}
"""Shared deltas, checked through the configs that name them."""
SHIPPED = ("examples", "models", "weights")
"""Folders of data/; others hold what users render and download."""


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_config(path):
    lines = path.read_text().splitlines()
    assert all(line.startswith("# ") for line in lines[:3]), "what, hardware and time, result"
    schema = SCHEMAS.get(path.name) or SCHEMAS.get(path.parent.name)
    if schema is not None:
        load_config(schema, path)
    elif path.name not in BASES:
        assert load_experiment(path, (), ALL_TASKS).task in path.read_text()


def test_shipped_files_are_small():
    files = [p for name in SHIPPED for p in (ROOT / "data" / name).rglob("*") if p.is_file()]
    assert 0 < sum(path.stat().st_size for path in files) < 60e6


def test_shipped_model_makes_an_orbit_of_the_example():
    config = load_config(GenerateConfig, ROOT / "configs/generate.yaml")
    reference = extract_foreground(
        ROOT / "data/examples/chair.png", ForegroundConfig(resolution=128)
    )
    stage1 = load_pipeline(OrbitPipeline, config.stage1)
    orbit = stage1(
        reference, None, SamplerConfig(1, 80.0, config.orbit.guidance), seeded_generator(0)
    )
    assert -10 <= orbit.elevation_deg <= 40
    assert orbit.views.rgb.shape == (16, 3, 64, 64)
    stage2 = load_pipeline(RefinerPipeline, config.stage2)
    sampler = SamplerConfig(1, 80.0, config.refiner.guidance)
    refined = stage2(orbit.views, reference, sampler, seeded_generator(0))
    assert refined.rgb.shape == (16, 3, 128, 128)
    front = -10 * torch.log10((refined.rgb[0] - reference.rgb).square().mean())
    blank = -10 * torch.log10((1 - reference.rgb).square().mean())
    assert front > blank + 2  # the given side comes back
