"""The UNet's inputs, and how SVD's weights are taken over."""

import pytest
import torch

from hi3d.diffusion.sampling import (
    OrbitCondition,
    conditioned_network,
    guided_denoiser,
    sample_orbit_latents,
)
from hi3d.diffusion.unet import UNetConfig, build_unet, from_svd, stage2_in_channels
from hi3d.diffusion.weights import load_network, load_unet
from hi3d.errors import InputError
from hi3d.pipelines.sampler import seeded_generator
from tests.diffusion.official_layout import networks


def condition(channels: int, elevation: float = 10.0) -> OrbitCondition:
    generator = torch.Generator().manual_seed(1)
    return OrbitCondition(
        torch.randn(1, 16, channels, 8, 8, generator=generator),
        torch.randn(1, 1, 16, generator=generator),
        torch.tensor([[elevation, 0.02]]),
    )


def test_full_size_has_svds_parameters():
    with torch.device("meta"):
        unet = build_unet(UNetConfig(), 8, 4)
    # SVD has 1,524,623,082 parameters; its vector condition is 3 x 256 wide, ours 2 x 256, which
    # takes 256 x 1280 weights off.
    count = sum(parameter.numel() for parameter in unet.parameters())
    assert count == 1_524_623_082 - 256 * 1280


@pytest.mark.parametrize(
    ("channels", "heads", "layers"),
    [
        ([32, 32], [1], 1),
        ([], [], 1),
        ([40], [1], 1),
        ([96], [5], 1),
        ([32], [0], 1),
        ([32], [1], 0),
    ],
)
def test_sizes_that_cannot_be_built_are_one_line(channels, heads, layers):
    with pytest.raises(InputError, match=r"^unet"):
        UNetConfig(channels, layers, heads)


@pytest.fixture
def doubles():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_remoulded_svd_starts_as_svd_at_its_default_frame_rate_and_motion(doubles):
    svd = networks("svd")["unet"].double()
    sample = torch.randn(1, 16, 8, 8, 8)
    embeds, level = torch.randn(1, 1, 24), torch.tensor([0.3])
    with torch.no_grad():
        svd.add_embedding.linear_2.weight *= 1000  # untrained, it hardly weighs
        unet = from_svd(svd, stage2_in_channels(4))
        expected = svd(sample, level, embeds, torch.tensor([[6.0, 127.0, 0.02]])).sample
        wide = torch.cat([sample, torch.randn(1, 16, 5, 8, 8)], dim=2)
        found = unet(wide, level, embeds, torch.tensor([[25.0, 0.02]])).sample
        faster = svd(sample, level, embeds, torch.tensor([[12.0, 127.0, 0.02]])).sample
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=0)
    assert (faster - expected).abs().max() > 1e-5  # the frame rate does weigh here


def test_remoulding_takes_no_second_network():
    svd = networks("svd")["unet"]
    unet = from_svd(svd, stage2_in_channels(4))
    before = {name: value.data_ptr() for name, value in svd.state_dict().items()}
    own = {name for name, value in unet.state_dict().items() if value.data_ptr() != before[name]}
    changed = {"conv_in.weight", "add_embedding.linear_1.weight", "add_embedding.linear_1.bias"}
    assert own == changed
    assert all(value.device.type == "cpu" for value in unet.state_dict().values())


def test_stage_1_widens_to_stage_2_and_keeps_its_elevation(tiny_models):
    unet = load_unet(str(tiny_models / "stage1"), 13)
    before = load_network(str(tiny_models / "stage1"), "unet")
    assert unet.config.in_channels == 13
    torch.testing.assert_close(
        unet.add_embedding.linear_1.weight, before.add_embedding.linear_1.weight
    )
    with pytest.raises(InputError, match="other stage"):
        load_unet(str(tiny_models / "stage2"), 8)


def test_elevation_and_embedding_reach_the_output(tiny_models):
    unet = load_network(str(tiny_models / "stage1"), "unet")
    x, level = torch.randn(1, 16, 4, 8, 8), torch.tensor([0.1])
    with torch.no_grad():
        unet.add_embedding.linear_2.weight *= 1000  # untrained, it hardly weighs
        here = conditioned_network(unet, condition(4))(x, level)
        higher = conditioned_network(unet, condition(4, 40.0))(x, level)
        dropped = conditioned_network(unet, condition(4).unconditional())(x, level)
    assert (here - higher).abs().max() > 1e-5
    assert (here - dropped).abs().max() > 1e-5


def test_guidance_one_is_the_conditional_network(tiny_models):
    unet = load_network(str(tiny_models / "stage1"), "unet")
    x, sigma = torch.randn(1, 16, 4, 8, 8), torch.tensor([2.0])
    with torch.no_grad():
        plain = guided_denoiser(unet, condition(4), torch.ones(16))(x, sigma)
        ramp = guided_denoiser(unet, condition(4), torch.linspace(1, 2, 16))(x, sigma)
    torch.testing.assert_close(plain[:, 0], ramp[:, 0], atol=1e-5, rtol=1e-4)
    assert (plain[:, 15] - ramp[:, 15]).abs().max() > 1e-6


def test_sampling_is_seeded(tiny_models):
    unet = load_network(str(tiny_models / "stage1"), "unet")
    sigmas = torch.tensor([10.0, 1.0, 0.0])

    def sample(seed):
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            return sample_orbit_latents(unet, condition(4), sigmas, torch.ones(16), generator)

    assert torch.equal(sample(0), sample(0))
    assert not torch.equal(sample(0), sample(1))


def test_a_lower_temperature_brings_samples_together(tiny_models):
    unet = load_network(str(tiny_models / "stage1"), "unet")
    sigmas = torch.tensor([10.0, 1.0, 0.0])

    def spread(temperature):
        samples = []
        for seed in range(2):
            options = {"generator": seeded_generator(seed), "temperature": temperature}
            with torch.no_grad():
                args = (unet, condition(4), sigmas, torch.ones(16))
                samples.append(sample_orbit_latents(*args, **options))
        return (samples[0] - samples[1]).abs().mean()

    assert spread(0.0) == 0
    assert 0 < spread(0.5) < spread(1.0)


@pytest.mark.parametrize("damage", ["no folder", "no part", "truncated", "no config"])
def test_damaged_model_folder_is_one_line(tiny_models, tmp_path, damage):
    import shutil

    folder = tmp_path / "model"
    if damage != "no folder":
        shutil.copytree(tiny_models / "stage1", folder)
    if damage == "no part":
        shutil.rmtree(folder / "unet")
    if damage == "truncated":
        weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:5000])
    if damage == "no config":
        (folder / "unet" / "config.json").unlink()
    with pytest.raises(InputError) as error:
        load_network(str(folder), "unet")
    assert "\n" not in str(error.value)


def test_a_missing_folder_beside_others_is_no_repository_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs").mkdir()
    with pytest.raises(InputError, match="no model folder at outputs/vae"):
        load_network("outputs/vae", "vae")
