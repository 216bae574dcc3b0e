"""Stage 2 without depth (paper, Table 3): trained, exported, and sampled by its pipeline."""

import pytest
import torch

from hi3d.cameras import orbit_cameras
from hi3d.errors import InputError
from hi3d.pipelines.loading import load_pipeline
from hi3d.pipelines.refiner import RefinerPipeline
from hi3d.pipelines.sampler import SamplerConfig, seeded_generator
from hi3d.pipelines.sampling.plan import pipeline_plan
from hi3d.views import ReferenceImage
from tests.training.test_training import debug_experiment, train

SAMPLER = SamplerConfig(1, 10.0)


@pytest.mark.parametrize("config", ["stage2.yaml", "nano/stage2.yaml"])
def test_the_exported_folder_refines(config, orbits, tiny_models, tmp_path, sphere_views):
    more = ["depth_conditioning=false", "depth_estimator=null", "stage1_share=0", "data.val=null"]
    more += ["trainer.max_steps=1", "data.batch_size=1"]
    model = train(debug_experiment(config, orbits, tiny_models, tmp_path / "run", *more))
    assert not (model / "depth_estimator").exists()
    refiner = load_pipeline(RefinerPipeline, str(model))
    assert refiner.depth_estimator is None
    assert refiner.unet.config.in_channels == 12  # noise, image latents, orbit latents
    views, _ = sphere_views(orbit_cameras(10.0, 16))
    image = ReferenceImage(views.rgb[0], views.alpha[0])
    first, again = (refiner(views, image, SAMPLER, seeded_generator(0)).rgb for _ in range(2))
    assert first.shape == (16, 3, 16, 16)
    assert torch.equal(first, again)
    steps = pipeline_plan(RefinerPipeline, str(model), SAMPLER, "fast")
    assert [each.step for each in steps] == ["encode", "denoise", "decode"]


def test_a_unet_with_depth_needs_the_depth_model(tiny_models):
    parts = load_pipeline(RefinerPipeline, str(tiny_models / "stage2")).components
    with pytest.raises(InputError, match="depth_estimator"):
        RefinerPipeline(**{**parts, "depth_estimator": None})
