"""The settings of the full size, run with tiny folders of the same layout."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hi3d.config import load_config
from hi3d.diffusion.official.folder import convert_checkpoint
from hi3d.pipelines.image_to_3d import GenerateConfig
from hi3d.pipelines.many.generate import generate
from hi3d.training.tasks import load_experiment
from hi3d.views import ReferenceImage
from tests.diffusion.official_layout import HEAD_CHANNELS, checkpoint, networks, write
from tests.pipelines.tiny_settings import TINY

README = Path(__file__).parents[2] / "README.md"


@pytest.mark.parametrize("name", ["paper", "official"])
def test_settings_are_those_of_the_full_size(name):
    config = load_config(GenerateConfig, f"configs/generate_{name}.yaml", [])
    for sampler, scale in ((config.orbit, 2.5), (config.refiner, 2.0)):
        assert (sampler.num_inference_steps, sampler.sigma_max) == (25, 700.0)
        assert sampler.guidance.max_scale == scale
    assert config.foreground.resolution == 1024
    assert config.mesh.interpolated_views == 16
    assert config.mesh.texture.resolution == 2048


def test_stage_2_is_trained_on_what_stage_1_gives_at_inference():
    orbit = load_config(GenerateConfig, "configs/generate_paper.yaml", []).orbit
    training = load_experiment("configs/stage2.yaml")
    assert training.stage1_guidance == orbit.guidance
    assert training.stage1_steps == orbit.num_inference_steps
    assert training.stage1_sigma_max == orbit.sigma_max
    assert training.noise_aug_inference == orbit.noise_aug_strength
    assert training.frames_per_pass == orbit.decode_chunk_size


def readme_command(name: str) -> list[str]:
    """Words after `generate.py PHOTO --output DIR --config FILE` in the README."""
    marker = f"configs/generate_{name}.yaml"
    lines = [line for line in README.read_text().splitlines() if f"--config {marker}" in line]
    assert len(lines) == 1
    return shlex.split(lines[0].partition(marker)[2])


def converted(folder: Path) -> list[str]:
    """Folders as scripts/convert_checkpoint.py makes them, for images of 16 and 32 pixels."""
    settings = []
    for number, side in (("1", 16), ("2", 32)):
        source, output = f"official-stage{number}", folder / f"stage{number}"
        file = write(folder, checkpoint(source, networks(source)), "plain")
        convert_checkpoint(source, file, output, HEAD_CHANNELS)
        index = json.loads((output / "model_index.json").read_text())
        (output / "model_index.json").write_text(json.dumps({**index, "resolution": side}))
        settings.append(f"stage{number}={output}")
    return settings


@pytest.mark.parametrize("name", ["paper", "official"])
def test_the_command_of_the_readme_runs_with_tiny_folders(name, tiny_models, tmp_path):
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[16:48, 16:48] = (200, 40, 40, 255)
    Image.fromarray(pixels).save(tmp_path / "block.png")
    folders = [f"stage1={tiny_models / 'stage1'}", f"stage2={tiny_models / 'stage2'}"]
    if name == "official":
        folders = converted(tmp_path)
    words = [*readme_command(name), *TINY, *folders]
    config = load_config(GenerateConfig, f"configs/generate_{name}.yaml", words)
    assert config.elevation_deg == "10"  # no folder of the full size can estimate it
    (folder,) = generate([str(tmp_path / "block.png")], tmp_path / "out", config)
    report = json.loads((folder / "report.json").read_text())
    assert report["config"]["orbit"]["guidance"]["max_scale"] == 2.5
    assert (folder / "mesh.glb").stat().st_size > 1000


def test_a_reference_that_grows_has_no_blocks():
    line = torch.linspace(0, 1, 8)
    image = ReferenceImage(line.expand(3, 8, 8).clone(), torch.ones(1, 8, 8))
    row = image.resized(32).rgb[0, 16, 6:26]
    assert (row.diff() > 0).all()
    torch.testing.assert_close(image.resized(4).rgb[0, 0], line.view(4, 2).mean(1))
    torch.testing.assert_close(image.resized(8).rgb, image.rgb)
