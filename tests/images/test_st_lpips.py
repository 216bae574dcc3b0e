"""ST-LPIPS against the steps of the paper, and against numbers of the authors' package."""

import importlib.util
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hi3d.errors import InputError
from hi3d.evaluation.protocols.protocol import PROTOCOLS
from hi3d.evaluation.protocols.scores import score_object
from hi3d.images.lpips import LpipsNetwork
from hi3d.images.st_lpips import ARCHITECTURES, PACKAGE, BlurDown, StLpips, feature_layers

WIDTHS = (64, 192, 384, 256, 256)
SHAPES = ((64, 3, 11), (192, 64, 5), (384, 192, 3), (256, 384, 3), (256, 256, 3))
PLACES = ("1.0", "2.5", "3.9", "4.11", "5.13")  # slice and layer, as the package's files name them
AUTHORS = {
    LpipsNetwork.alex: (0.00782772, 0.01064902),
    LpipsNetwork.vgg: (0.01835692, 0.04626963),
}
"""Of `image_pairs`, by stlpips-pytorch 0.0.2."""


def image_pairs() -> tuple[Tensor, Tensor]:
    """Two images with noise on one and the other shifted by a pixel."""
    generator = torch.Generator().manual_seed(0)
    true = torch.rand(2, 3, 64, 64, generator=generator)
    seen = (true + 0.2 * torch.randn(true.shape, generator=generator)).clamp(0, 1)
    seen[1] = true[1].roll(1, -1)
    return seen, true


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    found = {}
    for number, ((outputs, inputs, size), place) in enumerate(zip(SHAPES, PLACES, strict=True)):
        scale = (2 / (inputs * size**2)) ** 0.5
        weight = torch.randn(outputs, inputs, size, size, generator=generator) * scale
        found[f"net.slice{place}.weight"] = weight
        found[f"net.slice{place}.bias"] = torch.randn(outputs, generator=generator) * 0.1
        found[f"lin{number}.model.1.weight"] = torch.rand(1, outputs, 1, 1, generator=generator)
    return found


@pytest.fixture(scope="module")
def weights(state, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("st") / "alex.pth"
    torch.save(state, path)
    return path


def by_steps(seen: Tensor, true: Tensor, state: dict[str, Tensor]) -> Tensor:
    """The distance with AlexNet, step by step."""
    line = torch.tensor([0.25, 0.5, 0.25])

    def blurred(x: Tensor) -> Tensor:
        kernel = (line[:, None] * line).expand(x.shape[1], 1, 3, 3)
        return F.conv2d(F.pad(x, (2, 2, 2, 2), "reflect"), kernel, groups=x.shape[1])[..., ::2, ::2]

    def features(x: Tensor) -> list[Tensor]:
        mean, deviation = [-0.030, -0.088, -0.188], [0.458, 0.448, 0.450]
        x = 2 * x - 1
        x = torch.stack([(x[:, c] - mean[c]) / deviation[c] for c in range(3)], 1)
        found = []
        for number, place in enumerate(PLACES):
            if number in (1, 2):
                x = blurred(F.max_pool2d(x, 3, 1))
            weight, bias = (state[f"net.slice{place}.{part}"] for part in ("weight", "bias"))
            x = F.conv2d(x, weight, bias, padding=(2, 2, 1, 1, 1)[number])
            x = F.relu(blurred(x) if number == 0 else x)
            found.append(x / (x.norm(dim=1, keepdim=True) + 1e-10))
        return found

    total = torch.zeros(len(seen))
    for number, (a, b) in enumerate(zip(features(seen), features(true), strict=True)):
        weighted = (a - b) ** 2 * state[f"lin{number}.model.1.weight"]
        total += weighted.sum(1).mean((1, 2))
    return total


def test_it_is_what_its_steps_say(state, weights):
    seen, true = image_pairs()
    found = StLpips(weights=weights)(seen, true)
    torch.testing.assert_close(found, by_steps(seen, true, state), rtol=1e-4, atol=1e-6)
    assert StLpips(weights=weights)(true, true).abs().max() == 0


@pytest.mark.parametrize("network", list(AUTHORS))
@pytest.mark.skipif(
    not importlib.util.find_spec(PACKAGE), reason="stlpips-pytorch is not installed"
)
def test_with_the_published_weights_it_is_the_authors(network):
    found = StLpips(network)(*image_pairs())
    torch.testing.assert_close(found, torch.tensor(AUTHORS[network]), rtol=1e-4, atol=1e-7)


def test_a_blur_steps_over_every_second_pixel_and_mirrors_the_border():
    x = torch.zeros(1, 1, 5, 5)
    x[0, 0, 2, 2] = 16  # a neighbor of rows 1 and 3, and mirrored of rows -1 and 5
    assert BlurDown(1)(x)[0, 0].tolist() == [[1.0] * 4] * 4
    ones = BlurDown(3)(torch.ones(2, 3, 7, 6))
    assert ones.shape == (2, 3, 5, 4)
    torch.testing.assert_close(ones, torch.ones_like(ones))


@pytest.mark.parametrize("network", LpipsNetwork)
def test_the_smallest_image_is_stated(network):
    layers, least = feature_layers(network), ARCHITECTURES[network].min_size
    with torch.no_grad():
        assert min(layers(torch.zeros(1, 3, least, least)).shape[-2:]) >= 1
        with pytest.raises(RuntimeError):
            layers(torch.zeros(1, 3, least - 1, least - 1))


def test_views_are_scored_by_it_in_a_column_of_its_own(weights):
    seen, true = image_pairs()
    protocol = PROTOCOLS["st-lpips"]
    views, truth = (F.interpolate(x, (256, 256)) for x in (seen, true))
    distance = StLpips(weights=weights)
    scores, notes = score_object(protocol, views, truth, None, None, distance)
    assert scores["st_lpips"] == pytest.approx(distance(views[1:], truth[1:]).item(), rel=1e-5)
    assert "lpips" not in scores
    assert not notes


def test_what_is_missing_is_one_line(monkeypatch, tmp_path):
    with pytest.raises(InputError, match=r"ST-LPIPS \(.*none.pth: No such file.*stlpips-pytorch"):
        StLpips(weights=tmp_path / "none.pth")
    torch.save({"net": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"other.pth does not hold ST-LPIPS' weights"):
        StLpips(weights=tmp_path / "other.pth")
    monkeypatch.setattr("hi3d.images.st_lpips.PACKAGE", "no_such_package")
    with pytest.raises(InputError, match="ST-LPIPS needs its weights: pip install"):
        PROTOCOLS["st-lpips"].check_package()
    PROTOCOLS["syncdreamer"].check_package()
