"""The degradation depends on video, config and seed only, and its steps are what they claim."""

from pathlib import Path

import numpy as np
import pytest
import torch

from hi3d.config import load_config
from hi3d.degradation.draws import DegradationConfig, DegradationPass, second_pass
from hi3d.degradation.kernels import SincConfig
from hi3d.degradation.masks import MaskConfig
from hi3d.degradation.pipeline import degrade, resize
from hi3d.errors import InputError

PRESETS = Path(__file__).parents[2] / "configs/degradation"
SMALL = DegradationConfig(reference_resolution=128)


@pytest.fixture
def video():
    """Colours in 8 bits inside a rectangle with a soft edge, white outside."""
    rgb = torch.randint(256, (2, 4, 3, 48, 40), generator=seeded(5)) / 255
    alpha = torch.zeros(2, 4, 1, 48, 40)
    alpha[..., 12:36, 10:30] = 1
    alpha[..., 12, :] = 0.5
    return torch.where(alpha > 0, rgb, torch.ones_like(rgb)), alpha


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def only(**changes) -> DegradationConfig:
    """A first pass of which only `changes` happen, and nothing else."""
    nothing = {
        "blur_probability": 0,
        "resize_up_probability": 0,
        "resize_down_probability": 0,
        "noise_probability": 0,
        "jpeg_probability": 0,
    }
    return DegradationConfig(
        first=DegradationPass(**(nothing | changes)),
        second=None,
        bottleneck=None,
        final_sinc=SincConfig(probability=0),
        masks=MaskConfig(probability=0),
        clean_first_frame=False,
    )


@pytest.mark.parametrize("seed", range(6))
def test_shape_range_first_frame_and_background(video, seed):
    rgb, alpha = video
    before = rgb.clone()
    degraded = degrade(rgb, alpha, SMALL, seeded(seed))
    assert torch.equal(rgb, before)
    assert degraded.shape == rgb.shape
    assert degraded.min() >= 0
    assert degraded.max() <= 1
    assert torch.equal(degraded[:, 0], rgb[:, 0])
    assert (degraded[(alpha == 0).expand_as(degraded)] == 1).all()
    assert ((degraded[:, 1:] - rgb[:, 1:]).abs().mean(dim=(2, 3, 4)) > 0.01).all()


def test_same_seed_same_pixels(video):
    torch.manual_seed(0)
    first = degrade(*video, SMALL, seeded(1))
    torch.manual_seed(1)  # only the generator counts
    assert torch.equal(first, degrade(*video, SMALL, seeded(1)))
    assert not torch.equal(first, degrade(*video, SMALL, seeded(2)))


def test_first_of_a_batch_is_the_video_alone(video):
    rgb, alpha = video
    both = degrade(rgb, alpha, SMALL, seeded(3))
    assert torch.equal(both[:1], degrade(rgb[:1], alpha[:1], SMALL, seeded(3)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_makes_the_same_draws(video):
    rgb, alpha = video
    for seed in range(4):
        cpu = degrade(rgb, alpha, SMALL, seeded(seed))
        cuda = degrade(rgb.to("cuda"), alpha.to("cuda"), SMALL, seeded(seed)).cpu()
        # A rounding that tips the other way moves a DCT coefficient by one step.
        assert (cpu - cuda).abs().mean() < 1e-3


def test_off_is_the_identity(video):
    rgb, alpha = video
    assert torch.equal(degrade(rgb, alpha, DegradationConfig(probability=0), seeded(0)), rgb)
    assert torch.equal(degrade(rgb, alpha, only(), seeded(0)), rgb)


def test_background_and_first_frame_are_options(video):
    rgb, alpha = video
    config = only(noise_probability=1, gaussian_sigma=(20, 20), gaussian_probability=1)
    config.white_background = False
    noisy = degrade(rgb, alpha, config, seeded(0))
    assert not torch.equal(noisy[:, 0], rgb[:, 0])
    outside = (alpha == 0).expand_as(rgb)
    assert (noisy[outside] < 1).float().mean() > 0.3


def test_noise_is_as_strong_as_drawn():
    grey = torch.full((1, 2, 3, 128, 128), 128 / 255)
    alpha = torch.ones(1, 2, 1, 128, 128)
    changes = {"noise_probability": 1, "gaussian_probability": 1, "gaussian_sigma": (20, 20)}
    noisy = degrade(grey, alpha, only(**changes, grey_probability=0), seeded(0))
    assert abs(float(noisy.std()) * 255 - 20) < 0.2
    assert not torch.equal(noisy[:, :, 0], noisy[:, :, 1])
    changes = {"noise_probability": 1, "gaussian_probability": 0, "poisson_scale": (1, 1)}
    noisy = degrade(
        grey, alpha, only(**changes, grey_probability=1, poisson_photons=255.0), seeded(0)
    )
    # Shot noise of 128 photons of 255 at white: its deviation is sqrt(128) of 255 levels.
    assert abs(float(noisy.std()) * 255 - 128**0.5) < 0.2
    assert torch.equal(noisy[:, :, 0], noisy[:, :, 1])


@pytest.mark.parametrize(("size", "small"), [((12, 16), (4, 8)), ((13, 17), (5, 11))])
def test_area_resize_is_the_average_of_the_pixels_it_touches(size, small):
    image = torch.rand(3, *size, generator=seeded(0), dtype=torch.float64)
    resized = resize(image, small, "area")
    for i in range(small[0]):
        for j in range(small[1]):
            rows = slice(i * size[0] // small[0], -(-(i + 1) * size[0] // small[0]))
            columns = slice(j * size[1] // small[1], -(-(j + 1) * size[1] // small[1]))
            expected = image[:, rows, columns].mean(dim=(1, 2))
            torch.testing.assert_close(resized[:, i, j], expected)


def test_bottleneck_limits_the_detail():
    """256 of 1024 keeps blocks of 4 x 4 pixels at most: the finest detail is gone."""
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    stripes = ((x + y) % 2).float().expand(1, 1, 3, -1, -1)
    alpha = torch.ones(1, 1, 1, 64, 64)
    config = only()
    config.resize_mode_weights = {"area": 1.0}
    config.bottleneck = 0.25
    flat = degrade(stripes, alpha, config, seeded(0))
    torch.testing.assert_close(flat, torch.full_like(flat, 128 / 255))
    config.bottleneck = None
    assert torch.equal(degrade(stripes, alpha, config, seeded(0)), stripes)


def test_paper_preset_is_the_default():
    assert load_config(DegradationConfig, PRESETS / "paper.yaml") == DegradationConfig()


def test_official_preset():
    config = load_config(DegradationConfig, PRESETS / "official.yaml")
    assert config.bottleneck == 256 / 1024
    assert config.masks.probability == 0
    assert config.first == DegradationPass()
    assert config.second == second_pass()
    assert config.second.kernels.sigma == (0.2, 1.5)
    assert config.second.kernels.size == (7, 21)
    assert config.final_sinc == SincConfig()
    assert config.shared == DegradationConfig().shared


def test_presets_name_every_parameter():
    """What `official.yaml` leaves out are the masks, which `paper.yaml` names."""
    text = (PRESETS / "official.yaml").read_text() + (PRESETS / "paper.yaml").read_text()
    config = DegradationConfig()
    parts = (config, config.first, config.first.kernels, config.masks, config.shared)
    for name in [name for part in (*parts, config.final_sinc) for name in vars(part)]:
        assert f"{name}:" in text, name


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("first.resize_down=[1.0,0.2]", "smaller one first"),
        ("first.jpeg_quality=[0,95]", "jpeg_quality"),
        ("second.blur_probability=1.5", "probability in"),
        ("first.kernels.size=[7,20]", "odd"),
        ("first.kernels.kind_weights.isotropic=1", "kind_weights"),
        ("masks.kind_weights.gone=1", "kind_weights"),
        ("resize_mode_weights.nearest=1", "resize_mode_weights"),
        ("resize_mode_weights.area=-1", "resize_mode_weights"),
        ("bottleneck=2", "bottleneck"),
        ("first.resize_up_probability=0.9", "lower one"),
        ("final_sinc.cutoff=[0.5,1.5]", "final_sinc.cutoff"),
    ],
)
def test_wrong_values_are_one_line(override, message):
    with pytest.raises(InputError, match=message) as error:
        load_config(DegradationConfig, None, [override])
    assert "\n" not in str(error.value)


def test_weights_of_nothing_are_refused():
    for none in ({}, {"area": 0.0}):
        with pytest.raises(InputError, match=r"resize_mode_weights .*one of them positive"):
            DegradationConfig(resize_mode_weights=none)
    with pytest.raises(InputError, match=r"masks\.kind_weights"):
        MaskConfig(kind_weights={})


def test_wrong_shapes(video):
    rgb, alpha = video
    with pytest.raises(ValueError, match="rgb must be"):
        degrade(rgb[0], alpha, SMALL, seeded(0))
    with pytest.raises(ValueError, match="alpha must be"):
        degrade(rgb, alpha[:, :, 0], SMALL, seeded(0))


def test_readable_twin(video):
    """One frame, step by step in numpy, scipy and PIL, from the same draws and noise."""
    from scipy import ndimage

    from hi3d.degradation.draws import draw_video

    rgb, alpha = video
    config = only(
        blur_probability=1,
        resize_down_probability=1,
        resize_down=(0.5, 0.5),
        noise_probability=1,
        gaussian_probability=1,
        grey_probability=0,
    )
    config.resize_mode_weights = {"area": 1.0}
    config.reference_resolution = 40
    generator = seeded(4)
    draws = draw_video(config, 4, 40, generator)
    noise = torch.randn(3, 24, 20, generator=generator).numpy()
    kernel = draws.first.kernels.kernel(0).numpy()
    image = np.stack([ndimage.correlate(c, kernel, mode="nearest") for c in rgb[0, 0].numpy()])
    image = image.reshape(3, 24, 2, 20, 2).mean(axis=(2, 4))
    image = (image + noise * float(draws.first.gaussian_sigmas[0]) / 255).clip(0, 1)
    image = (image * 255).round() / 255
    image = image.repeat(2, axis=1).repeat(2, axis=2)
    expected = np.where(alpha[0, 0].numpy() > 0, image, 1)
    ours = degrade(rgb[:1], alpha[:1], config, seeded(4))[0, 0].numpy()
    # A value on the border of two levels may be rounded either way.
    assert np.abs(ours - expected).max() < 1.01 / 255
    assert (np.abs(ours - expected) < 1e-6).mean() > 0.999
