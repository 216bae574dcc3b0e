"""The released code's conditions, against values from their formulas."""

import math

import pytest
import torch
from diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion import (
    _resize_with_antialiasing,
)

from hi3d.diffusion.edm import sample_euler
from hi3d.diffusion.official.conditioning import (
    blend_weight,
    blend_with_orbit,
    official_depth,
    official_image_embeds,
    official_in_channels,
    official_stage1_condition,
    official_stage2_condition,
    official_vector,
    sampled_latents,
    sinusoid,
)
from hi3d.diffusion.official.folder import convert_checkpoint
from hi3d.pipelines.official import OfficialOrbitPipeline, OfficialRefinerPipeline
from hi3d.pipelines.orbit import OrbitPipeline
from hi3d.pipelines.refiner import RefinerPipeline
from hi3d.pipelines.sampler import SamplerConfig, seeded_generator
from hi3d.views import ReferenceImage
from tests.diffusion.official_layout import HEAD_CHANNELS, checkpoint, networks, write


def test_sinusoid_has_cosines_first_and_an_odd_width_ends_in_zero():
    found = sinusoid(torch.tensor([3.0]), 5)
    angles = [3.0, 3.0 / 100]  # 10^(-4 i / 2)
    expected = [math.cos(a) for a in angles] + [math.sin(a) for a in angles] + [0.0]
    torch.testing.assert_close(found, torch.tensor([expected]))


def test_vector_is_score_elevation_and_noise():
    elevation, noise, score = torch.tensor([19.6]), torch.tensor([0.02]), torch.tensor([5.25])
    stage1, stage2 = official_vector(elevation, noise, score), official_vector(elevation, noise)
    assert stage1.shape == (1, 768)
    assert stage2.shape == (1, 512)
    torch.testing.assert_close(stage1[:, 256:], stage2)
    assert stage1[0, 0] == 5.25
    torch.testing.assert_close(stage1[:, 1:256], sinusoid(100 * score, 255))
    assert stage1[0, 255] == 0
    torch.testing.assert_close(stage2[:, :256], sinusoid(torch.tensor([20.0])))
    torch.testing.assert_close(stage2[:, 256:], sinusoid(noise))


@pytest.mark.parametrize("size", [(40, 40), (33, 57), (12, 12)])
def test_clip_sees_svds_resize(size):
    encoder = networks("official-stage1")["image_encoder"]
    rgb = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    seen = {}
    encoder.register_forward_pre_hook(
        lambda module, args, kwargs: seen.update(kwargs), with_kwargs=True
    )
    with torch.no_grad():
        embeds = official_image_embeds(encoder, rgb)
    assert embeds.shape == (1, 1, 24)
    expected = (_resize_with_antialiasing(rgb * 2 - 1, (16, 16)) + 1) / 2
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    torch.testing.assert_close(seen["pixel_values"], (expected - mean) / std, atol=2e-5, rtol=0)


def test_depth_is_resized_then_normalised_then_folded():
    class Ramp:
        dtype = torch.float32

        class config:  # noqa: N801 - as transformers'
            image_size = 6

        def __call__(self, pixel_values):
            self.pixels = pixel_values
            ramp = torch.arange(36.0).reshape(6, 6)
            depth = type("Depth", (), {"predicted_depth": ramp.expand(len(pixel_values), 6, 6)})
            return depth()

    ramp = Ramp()
    frames = torch.rand(1, 2, 3, 16, 16)
    depth = official_depth(ramp, frames, scale=8)  # 2 x 2 latents, 6 x 6 depth
    assert ramp.pixels.min() < 0
    assert depth.shape == (1, 2, 9, 2, 2)
    # Channel (row 1, column 2) of latent (0, 1) is pixel (0 * 3 + 1, 1 * 3 + 2) of the depth.
    torch.testing.assert_close(depth[0, 0, 5, 0, 1], torch.tensor((1 * 6 + 5) / 35))
    assert depth.min() == 0
    assert depth.max() == 1


def test_blend_follows_its_formula():
    weights = [blend_weight(step, 25) for step in (0, 3, 5, 8, 10, 12, 15, 20)]
    expected = [1.0, 0.866, 0.670, 0.358, 0.200, 0.098, 0.026, 0.0014]
    assert weights == pytest.approx(expected, abs=6e-4)
    x, noise, orbit = torch.randn(3, 1, 2, 4, 2, 2)
    found = blend_with_orbit(x, noise, orbit, 3.0, 0.25)
    torch.testing.assert_close(found, 0.75 * x + 0.25 * (3 * noise + orbit))


def test_blended_sampling_begins_at_the_orbit():
    noise, orbit = torch.randn(1, 2), torch.randn(1, 2)
    seen = []

    def denoiser(x, sigma):
        seen.append(x)
        return torch.zeros_like(x)

    sample_euler(
        denoiser,
        noise,
        torch.tensor([10.0, 1.0, 0.0]),
        before_step=lambda i, x, first: blend_with_orbit(x, first, orbit, 10.0, float(i == 0)),
    )
    torch.testing.assert_close(seen[0], 10 * noise + orbit)
    torch.testing.assert_close(seen[1], noise + orbit / 10)  # x <- x sigma_next / sigma


def test_conditions_have_the_released_order():
    parts1, parts2 = networks("official-stage1"), networks("official-stage2")
    orbit = torch.rand(1, 16, 3, 32, 32)
    elevation, clean = torch.tensor([10.0]), torch.tensor([0.0])
    with torch.no_grad():
        stage1 = official_stage1_condition(
            parts1["vae"],
            parts1["image_encoder"],
            parts1["aesthetic_scorer"],
            orbit[:, 0],
            elevation,
            clean,
            16,
            width=8,
        )
        stage2 = official_stage2_condition(
            parts2["vae"],
            parts2["image_encoder"],
            parts2["depth_estimator"],
            orbit,
            elevation,
            clean,
            width=8,
        )
        mode1 = parts1["vae"].encode(orbit[:, 0] * 2 - 1).latent_dist.mean
        mode2 = parts2["vae"].encode(orbit[0] * 2 - 1).latent_dist.mean
        score = parts1["aesthetic_scorer"](orbit[:, 0])
    torch.testing.assert_close(stage1.concat[:, 7], mode1)  # not scaled
    assert stage1.added_time_ids.shape == (1, 24)
    torch.testing.assert_close(stage1.added_time_ids[:, 0], score)
    assert stage2.concat.shape[2] + 4 == official_in_channels(2, 4) == 17
    torch.testing.assert_close(stage2.concat[0, :, 9:], mode2)
    assert stage2.concat[:, :, :9].min() == 0
    assert stage2.added_time_ids.shape == (1, 16)
    latents = sampled_latents(parts2["vae"], orbit, torch.Generator().manual_seed(0))
    assert (latents / 0.18215 - mode2[None]).abs().max() > 0.1  # a sample, not the mode


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("official")
    for source in ("official-stage1", "official-stage2"):
        file = write(folder, checkpoint(source, networks(source)), "deepspeed")
        convert_checkpoint(source, file, folder / source, HEAD_CHANNELS)
    return folder


def test_converted_folders_run_by_the_public_pipelines(folders):
    orbit = OrbitPipeline.from_pretrained(folders / "official-stage1")
    refiner = RefinerPipeline.from_pretrained(folders / "official-stage2")
    assert type(orbit) is OfficialOrbitPipeline
    assert type(refiner) is OfficialRefinerPipeline
    assert orbit.config.conditioning == refiner.config.conditioning == "official"
    assert (orbit.config.resolution, refiner.config.resolution) == (512, 1024)
    orbit.register_to_config(resolution=32)
    refiner.register_to_config(resolution=32)
    rgb = torch.ones(3, 32, 32)
    rgb[:, 8:24, 8:24] = torch.rand(3, 16, 16)
    alpha = torch.zeros(1, 32, 32)
    alpha[:, 8:24, 8:24] = 1
    image = ReferenceImage(rgb, alpha)
    sampler = SamplerConfig(num_inference_steps=2)

    def views(elevation, seed=0):
        return orbit(image, elevation, sampler, seeded_generator(seed)).views

    coarse = views(10.0)
    assert torch.equal(coarse.rgb, views(10.2).rgb)  # whole degrees
    assert not torch.equal(coarse.rgb, views(11.0).rgb)
    refined = refiner(coarse, image, sampler, seeded_generator(0))
    assert refined.rgb.shape == (16, 3, 32, 32)
    assert torch.equal(refined.rgb, refiner(coarse, image, sampler, seeded_generator(0)).rgb)
    low_noise = SamplerConfig(2, 10.0)  # at 700 float32 rounds latents to 1e-4

    def pair(seed):
        generators = [seeded_generator(seed), seeded_generator(seed + 1)]
        orbits = orbit([image, image], 10.0, low_noise, generators)
        generators = [seeded_generator(seed), seeded_generator(seed + 1)]
        return [each.views.rgb for each in orbits] + [
            each.rgb for each in refiner([coarse, coarse], [image, image], low_noise, generators)
        ]

    together = pair(0)
    alone = orbit(image, 10.0, low_noise, seeded_generator(1)).views.rgb
    torch.testing.assert_close(together[1], alone, atol=1e-5, rtol=0)
    assert (together[2] - together[3]).abs().max() > 1e-3
    orbit.set_memory("low")
    refiner.set_memory("low")
    for found, expected in zip(pair(0), together, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
