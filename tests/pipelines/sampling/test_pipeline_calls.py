"""Both stages are called as diffusers' pipelines are."""

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, HeunDiscreteScheduler, PNDMScheduler
from PIL import Image

from hi3d.diffusion.edm import c_noise
from hi3d.diffusion.guidance import GuidanceConfig
from hi3d.diffusion.precision import wanted_precision
from hi3d.errors import InputError
from hi3d.pipelines.loading import load_pipeline
from hi3d.pipelines.orbit import OrbitPipeline
from hi3d.pipelines.refiner import RefinerPipeline
from hi3d.pipelines.sampler import SamplerConfig, seeded_generator, solver_name
from hi3d.pipelines.sampling.inputs import generators_for, reference_images
from hi3d.views import ReferenceImage

SAMPLER = SamplerConfig(2, 10.0, guidance=GuidanceConfig("linear", 1.0, 2.0))
FROM_700 = SamplerConfig(2, guidance=SAMPLER.guidance)
"""SVD's first noise level, of which latents keep no rounding."""
KINDS = ("nano", "paper")


def seeds(*numbers):
    return [seeded_generator(number) for number in numbers]


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def pipelines(tiny_models):
    """Stage 1 and 2, of the small model and of the paper."""
    orbit = load_pipeline(OrbitPipeline, str(tiny_models / "stage1"))
    refiner = load_pipeline(RefinerPipeline, str(tiny_models / "stage2"))
    parts = {name: part for name, part in orbit.components.items() if name != "grid_predictor"}
    paper = (
        OrbitPipeline(**parts, resolution=16),
        RefinerPipeline(**refiner.components, resolution=16),
    )
    return {"nano": (orbit, refiner), "paper": paper}


@pytest.fixture(scope="module")
def pixels():
    """A disc [48, 48, 4] of bytes on a transparent background."""
    y, x = np.mgrid[:48, :48]
    disc = np.zeros((48, 48, 4), np.uint8)
    disc[..., :3] = np.stack([4 * x, 4 * y, 200 + 0 * x], axis=-1)
    disc[..., 3] = 255 * ((y - 24) ** 2 + (x - 20) ** 2 < 180)
    return disc


@pytest.fixture(scope="module")
def image(pixels):
    return reference_images(pixels, 16)[0]


def test_a_photo_has_many_forms(pixels, image, tmp_path):
    Image.fromarray(pixels).save(tmp_path / "disc.png")
    tensor = torch.from_numpy(pixels).permute(2, 0, 1) / 255
    photos = [tmp_path / "disc.png", str(tmp_path / "disc.png"), Image.fromarray(pixels)]
    photos += [tensor, pixels / 255.0, image]
    for found in reference_images(photos, 16):
        close(found.rgb, image.rgb)
        close(found.alpha, image.alpha)
    assert len(reference_images(tensor.expand(3, -1, -1, -1), 16)) == 3
    assert isinstance(image, ReferenceImage)


@pytest.mark.parametrize(
    ("photo", "word"),
    [
        ([], "at least one"),
        (3, "file name"),
        (torch.tensor(1.0), "a photo is"),
        (torch.zeros(2, 40, 40), "shape"),
        (torch.full((3, 40, 40), 255.0), "outside"),
        (torch.full((3, 40, 40), float("nan")), "outside"),
    ],
)
def test_what_is_no_photo_is_told(photo, word):
    with pytest.raises(InputError, match=word):
        reference_images(photo, 16)


@pytest.mark.parametrize("kind", KINDS)
def test_a_list_in_is_a_list_out_and_equals_single_calls(pipelines, image, kind):
    orbit, refiner = pipelines[kind]
    mirrored = ReferenceImage(image.rgb.flip(-1), image.alpha.flip(-1))
    together = orbit([image, mirrored], [0.0, 20.0], FROM_700, seeds(1, 2, 3, 4),
                     num_videos_per_prompt=2)  # fmt: skip
    assert [each.elevation_deg for each in together] == [0.0, 0.0, 20.0, 20.0]
    alone = [
        orbit(photo, angle, FROM_700, seeded_generator(seed))
        for photo, angle, seed in ((image, 0.0, 1), (image, 0.0, 2), (mirrored, 20.0, 3))
    ]
    for found, expected in zip(together[:3], alone, strict=True):
        close(found.views.rgb, expected.views.rgb)
        close(found.views.alpha, expected.views.alpha)
    assert (together[0].views.rgb - together[1].views.rgb).abs().max() > 1e-3
    views = [alone[0].views, alone[2].views]
    refined = refiner(views, [image, mirrored], FROM_700, seeds(5, 6))
    single = refiner(views[1], mirrored, FROM_700, seeded_generator(6))
    close(refined[1].rgb, single.rgb)
    close(refined[1].alpha, single.alpha)
    assert isinstance(orbit([image], 0.0, FROM_700), list)


def test_one_generator_for_many_gives_each_its_own():
    assert generators_for(None, 2) is None
    one = seeded_generator(0)
    assert generators_for(one, 1) == [one]
    first, second = generators_for(seeded_generator(0), 2)
    assert first.initial_seed() != second.initial_seed()
    assert generators_for(seeded_generator(0), 2)[0].initial_seed() == first.initial_seed()
    with pytest.raises(InputError, match="one for each"):
        generators_for(seeds(1, 2), 3)


def test_steps_and_guidance_can_be_given_alone(pipelines, image):
    orbit, refiner = pipelines["paper"]
    found = orbit(image, 0.0, SamplerConfig(9, 10.0), seeded_generator(0), num_inference_steps=2,
                  max_guidance_scale=2.0)  # fmt: skip
    expected = orbit(image, 0.0, SAMPLER, seeded_generator(0))
    assert torch.equal(found.views.rgb, expected.views.rgb)
    with pytest.raises(InputError, match="num_inference_steps"):
        refiner(found.views, image, num_inference_steps=0)
    with pytest.raises(InputError, match="max_scale"):
        orbit(image, 0.0, max_guidance_scale=-1.0)


def test_output_types(pipelines, image):
    orbit, refiner = pipelines["nano"]

    def made(output_type):
        return orbit(image, 0.0, SAMPLER, seeded_generator(0), output_type=output_type)

    views = made("views").frames
    assert torch.equal(views.rgb, made("pt").frames)
    array = made("np").frames
    assert array.shape == (16, 16, 16, 3)
    assert np.array_equal(array, views.rgb.permute(0, 2, 3, 1).numpy())
    images = refiner(views, image, SAMPLER, seeded_generator(0), output_type="pil")
    assert [each.size for each in images] == [(16, 16)] * 16
    with pytest.raises(InputError, match="output_type"):
        made("latent")


@pytest.mark.parametrize("stage", [0, 1])
def test_callback_sees_and_changes_latents(pipelines, image, stage):
    orbit, refiner = pipelines["paper"]
    views = orbit(image, 0.0, SAMPLER, seeded_generator(0)).views
    seen = []

    def run(callback):
        more = {"callback_on_step_end": callback, "generator": seeded_generator(0)}
        if stage == 0:
            return orbit(image, 0.0, SAMPLER, **more).views.rgb
        return refiner(views, image, SAMPLER, **more).rgb

    def watch(pipeline, step, timestep, given):
        seen.append((pipeline, step, float(timestep), *given))
        return given

    plain = run(None)
    assert torch.equal(run(watch), plain)
    first = float(c_noise(torch.tensor(10.0)))
    assert seen[0] == (pipelines["paper"][stage], 0, pytest.approx(first), "latents")
    assert [each[1] for each in seen] == [0, 1]
    changed = run(lambda pipeline, step, timestep, given: {"latents": given["latents"] * 0})
    assert (changed - plain).abs().max() > 1e-3
    with pytest.raises(InputError, match="image_embeds"):
        orbit(image, 0.0, callback_on_step_end_tensor_inputs=["image_embeds"])


def test_schedulers_can_be_swapped(pipelines, image):
    orbit = pipelines["paper"][0]
    euler = orbit.scheduler
    sampler = SamplerConfig(2)
    assert solver_name(sampler, euler) == "euler"
    kinds = {"heun": HeunDiscreteScheduler, "dpmpp_2m": DPMSolverMultistepScheduler}
    try:
        for name, kind in kinds.items():
            orbit.scheduler = kind.from_config(euler.config)
            swapped = orbit(image, 0.0, sampler, seeded_generator(0)).views.rgb
            orbit.scheduler = euler
            named = SamplerConfig(2, scheduler=name)
            assert torch.equal(swapped, orbit(image, 0.0, named, seeded_generator(0)).views.rgb)
            assert not torch.equal(
                swapped, orbit(image, 0.0, sampler, seeded_generator(0)).views.rgb
            )
    finally:
        orbit.scheduler = euler
    with pytest.raises(InputError, match="PNDMScheduler"):
        solver_name(sampler, PNDMScheduler())
    with pytest.raises(InputError, match="dpmpp_2m"):
        SamplerConfig(scheduler="ddim")


def test_all_schedulers_give_the_same_orbit_at_many_steps(pipelines, image):
    orbit = pipelines["paper"][0]
    alone = GuidanceConfig("constant", max_scale=1.0)
    euler, heun, dpmpp = (
        orbit(image, 0.0, SamplerConfig(steps, 10.0, alone, scheduler=name), seeded_generator(0))
        for name, steps in (("euler", 50), ("heun", 12), ("dpmpp_2m", 25))
    )
    for other in (heun, dpmpp):
        assert (other.views.rgb - euler.views.rgb).abs().max() < 0.03


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("memory", ["balanced", "low"])
def test_memory_modes_give_the_same_output(pipelines, image, kind, memory):
    orbit, refiner = pipelines[kind]
    single = orbit(image, 0.0, SAMPLER, seeded_generator(0))
    found = {}
    for mode in (memory, "fast"):
        orbit.set_memory(mode)
        refiner.set_memory(mode)
        first = orbit([image, image], 0.0, SAMPLER, seeded_generator(0))
        second = refiner(single.views, image, SAMPLER, seeded_generator(0))
        found[mode] = [each.views.rgb for each in first] + [second.rgb]
    for one, other in zip(*found.values(), strict=True):
        close(one, other)
    with pytest.raises(InputError, match="memory"):
        orbit.set_memory("tiny")


def test_offload_without_a_gpu_is_one_line(pipelines, image, monkeypatch, capsys):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    orbit = pipelines["paper"][0]
    before = orbit(image, 0.0, SAMPLER, seeded_generator(0)).views.rgb
    orbit.enable_model_cpu_offload()
    assert "no GPU" in capsys.readouterr().err
    assert torch.equal(orbit(image, 0.0, SAMPLER, seeded_generator(0)).views.rgb, before)


def test_offload_moves_each_network_in_its_turn(pipelines, image):
    """With the CPU in the place of the card the hooks of accelerate run all the same."""
    orbit = pipelines["paper"][0]
    before = orbit(image, 0.0, SAMPLER, seeded_generator(0)).views.rgb
    orbit.enable_model_cpu_offload(device="cpu")
    try:
        assert hasattr(orbit.unet, "_hf_hook")
        close(orbit(image, 0.0, SAMPLER, seeded_generator(0)).views.rgb, before)
    finally:
        orbit.remove_all_hooks()


def test_progress_bar_can_be_named_and_silenced(pipelines, image, capsys):
    orbit = pipelines["paper"][0]
    orbit.set_progress_bar_config(desc="my orbit")
    orbit(image, 0.0, SAMPLER)
    assert "my orbit" in capsys.readouterr().err
    orbit.set_progress_bar_config(disable=True)
    orbit(image, 0.0, SAMPLER)
    assert capsys.readouterr().err == ""
    with pytest.raises(InputError, match="leave"):
        orbit.set_progress_bar_config(leave=False)
    orbit.set_progress_bar_config()


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_is_close_and_a_cpu_without_units_is_told(
    pipelines, image, kind, monkeypatch, capsys
):
    orbit, refiner = pipelines[kind]
    expected = orbit(image, 0.0, SAMPLER, seeded_generator(0)).views
    refined = refiner(expected, image, SAMPLER, seeded_generator(0)).rgb
    monkeypatch.setattr("hi3d.diffusion.precision.has_bfloat16_units", lambda: False)
    try:
        orbit.set_precision("bfloat16")
        refiner.set_precision("bfloat16")
        assert capsys.readouterr().err.count("slower than with float32") == 2
        found = orbit(image, 0.0, SAMPLER, seeded_generator(0)).views.rgb
        again = refiner(expected, image, SAMPLER, seeded_generator(0)).rgb
    finally:
        orbit.set_precision("float32")
        refiner.set_precision("float32")
    for coarse, fine in ((found, expected.rgb), (again, refined)):
        assert coarse.dtype == torch.float32
        error = (coarse - fine).square().mean()
        assert 0 < error < 1e-4  # above 40 dB
    with pytest.raises(InputError, match="precision"):
        orbit.set_precision("float8")


def test_the_environment_chooses_the_precision(tiny_models, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    folder = str(tiny_models / "stage1")
    assert load_pipeline(OrbitPipeline, folder).computes_on == "cpu"
    monkeypatch.setenv("HI3D_PRECISION", "bfloat16")
    pipeline = load_pipeline(OrbitPipeline, folder)
    assert (pipeline.computes_on, pipeline.unet.dtype) == ("cpu, bfloat16", torch.float32)
    monkeypatch.setenv("HI3D_PRECISION", "float16")
    with pytest.raises(InputError, match="on cpu choose float32, bfloat16"):
        load_pipeline(OrbitPipeline, folder)
    assert wanted_precision("cuda") == "float16"
