"""Training and sampling tell the UNet the same."""

from types import SimpleNamespace

import pytest
import torch

from hi3d.cameras import orbit_cameras
from hi3d.nano.tasks import ALL_TASKS
from hi3d.pipelines import orbit as orbit_module
from hi3d.pipelines import refiner as refiner_module
from hi3d.pipelines.loading import load_pipeline
from hi3d.pipelines.orbit import OrbitPipeline
from hi3d.pipelines.refiner import RefinerPipeline
from hi3d.pipelines.sampler import SamplerConfig
from hi3d.views import ReferenceImage, Views


class SampledError(Exception):
    """Carries the condition that a pipeline is about to sample with."""


@pytest.fixture
def frames():
    return torch.rand(1, 16, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def trained_condition(task: str, pipeline, frames, orbit=None):
    """The condition of a training step whose frozen networks are the pipeline's."""
    module_class = ALL_TASKS[task].module
    module = module_class.__new__(module_class)
    torch.nn.Module.__init__(module)
    module.frozen = torch.nn.ModuleDict(
        {k: v for k, v in pipeline.components.items() if isinstance(v, torch.nn.Module)}
    )
    module.noise_aug_strength = lambda batch_size: torch.full((batch_size,), 0.02)
    module.coarse_orbit = lambda batch: orbit
    module.experiment = SimpleNamespace(frames_per_pass=16)
    module.generators = lambda stream, count: [torch.Generator().manual_seed(4)] * count
    alpha = torch.ones_like(frames[:, :, :1])
    elevation_deg = torch.tensor([10.0])
    return module.condition({"rgb": frames, "alpha": alpha, "elevation_deg": elevation_deg})


def sampled_condition(monkeypatch, module, pipeline, *arguments):
    """The condition with which a pipeline samples."""

    def stop(unet, condition, *_):
        raise SampledError(condition)

    monkeypatch.setattr(module, "sample_orbit_latents", stop)
    sampler = SamplerConfig(1, noise_aug_strength=0.02)
    with pytest.raises(SampledError) as caught:
        pipeline(*arguments, sampler, torch.Generator().manual_seed(4))
    return caught.value.args[0]


def assert_equal(trained, sampled) -> None:
    for name, value in vars(trained).items():
        if value is None:
            assert getattr(sampled, name) is None
        else:
            torch.testing.assert_close(getattr(sampled, name), value)


def paper_pipeline(pipeline, pipeline_class):
    """The paper's pipeline over the networks of the small model's."""
    parts = {k: v for k, v in pipeline.components.items() if k != "grid_predictor"}
    return pipeline_class(**parts, resolution=pipeline.config.resolution)


@pytest.mark.parametrize("task", ["stage1", "nano_stage1"])
def test_stage1(task, tiny_models, frames, monkeypatch):
    """Of one object; which of the likely ones it is, each draws its own way."""
    for module in ("hi3d.nano.pipelines", "hi3d.nano.stages"):
        monkeypatch.setattr(f"{module}.drawn_noise", lambda _: torch.zeros(1, 1, 2, 2, 2))
    pipeline = load_pipeline(OrbitPipeline, str(tiny_models / "stage1"))
    if task == "stage1":
        pipeline = paper_pipeline(pipeline, OrbitPipeline)
    trained = trained_condition(task, pipeline, frames)
    image = ReferenceImage(frames[0, 0], torch.ones(1, 16, 16))
    sampled = sampled_condition(monkeypatch, orbit_module, pipeline, image, 10.0)
    assert (trained.base is None) == (task == "stage1")
    assert_equal(trained, sampled)


@pytest.mark.parametrize("task", ["stage2", "nano_stage2"])
def test_stage2(task, tiny_models, frames, monkeypatch):
    pipeline = load_pipeline(RefinerPipeline, str(tiny_models / "stage2"))
    if task == "stage2":
        pipeline = paper_pipeline(pipeline, RefinerPipeline)
    trained = trained_condition(task, pipeline, frames, orbit=frames)
    views = Views(frames[0], torch.ones(16, 1, 16, 16), orbit_cameras(10.0, 16))
    image = ReferenceImage(frames[0, 0], torch.ones(1, 16, 16))
    sampled = sampled_condition(monkeypatch, refiner_module, pipeline, views, image)
    assert (trained.base is None) == (task == "stage2")
    assert_equal(trained, sampled)
