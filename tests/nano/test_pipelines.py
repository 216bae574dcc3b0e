"""What the small model's pipelines add to their bases."""

import torch

from hi3d.diffusion.conditioning import decode_orbit, scaled_latents
from hi3d.nano.pipelines import DIFFERENCE_SHARE
from hi3d.pipelines.loading import load_pipeline
from hi3d.pipelines.refiner import RefinerPipeline
from hi3d.pipelines.sampler import SamplerConfig


def test_stage_2_adds_a_share_of_its_difference(tiny_models):
    pipeline = load_pipeline(RefinerPipeline, str(tiny_models / "stage2"))
    generator = torch.Generator().manual_seed(0)
    base = torch.rand(1, 4, 3, 32, 32, generator=generator) * 0.4 + 0.3
    encoded = scaled_latents(pipeline.vae, base)
    latents = torch.randn(encoded.shape, generator=generator) * 0.1
    decoded = pipeline.decode(latents, base, SamplerConfig(1))
    expected = decode_orbit(pipeline.vae, latents * DIFFERENCE_SHARE, base)
    torch.testing.assert_close(decoded, expected)
    whole = decode_orbit(pipeline.vae, latents, base)
    assert 0 < (decoded - base).abs().mean() < (whole - base).abs().mean()
