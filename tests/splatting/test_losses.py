import math

import pytest
import torch

from hi3d.splatting.initialization import initial_splats
from hi3d.splatting.losses import (
    SplatLossConfig,
    ViewColors,
    ViewWeights,
    loss_pixels,
    loss_size,
)


def test_pixel_losses_by_hand() -> None:
    difference = torch.tensor([0.0, 0.0, 0.04, 0.8]).view(1, 1, 2, 2)
    zero = torch.zeros_like(difference)

    def loss(**settings: object) -> float:
        return loss_pixels(difference, zero, SplatLossConfig(**settings)).item()

    assert loss() == pytest.approx(0.21)
    # sqrt(0.04^2 + 0.03^2) = 0.05.
    expected = (0.02 + math.hypot(0.8, 0.03) - 0.03) / 4
    assert loss(pixel="charbonnier", charbonnier_eps=0.03) == pytest.approx(expected)
    assert loss(pixel="trimmed", trim_share=0.25) == pytest.approx(0.01)


def test_pressure_on_opacity_and_size_by_hand() -> None:
    # Four points in a row, 0.5 apart, become Gaussians of this opacity; the end ones see their
    # neighbours at 0.5, 1 and 1.5, the inner ones at 0.5, 0.5 and 1, themselves at 0.
    points = torch.tensor([[0.5 * i, 0.0, 0.0] for i in range(4)])
    splats = initial_splats(points, torch.zeros(4, 3), 0.25, 0)
    size = (math.sqrt(3.5 / 4) + math.sqrt(1.5 / 4)) / 2
    config = SplatLossConfig(lambda_opacity=2.0, lambda_scale=3.0)
    assert loss_size(splats, config).item() == pytest.approx(2 * 0.25 + 3 * size)


def test_view_colors_find_a_tint_and_keep_the_mean() -> None:
    colors = ViewColors(2, 0.02, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    alpha = torch.ones(1, 1, 8, 8)
    alpha[..., 4:] = 0
    foreground = torch.rand(1, 3, 8, 8, generator=generator) * alpha
    rgb = foreground + (1 - alpha)
    assert torch.equal(colors.apply(0, rgb, alpha), rgb)
    tints = [rgb + 0.1 * foreground, rgb - 0.1 * foreground]
    for step in range(200):
        view = step % 2
        loss = (colors.apply(view, rgb, alpha) - tints[view]).square().mean()
        loss.backward()
        colors.step()
    for view in range(2):
        shown = colors.apply(view, rgb, alpha)
        assert (shown - tints[view]).abs().max() < 0.02
        assert torch.equal(shown[..., 4:], rgb[..., 4:])  # the background is no object
    both = [colors.apply(view, rgb, alpha) for view in range(2)]
    torch.testing.assert_close(sum(both) / 2, rgb, rtol=0, atol=1e-5)


def test_weights_of_views_by_hand() -> None:
    weights = ViewWeights(3)
    assert [weights.weight(0, 0.1), weights.weight(1, 0.1)] == [1.0, 1.0]
    assert weights.weight(2, 0.5) == pytest.approx(0.04)  # (0.1 / 0.5)^2
    assert weights.weight(0, 0.05) == 1.0
