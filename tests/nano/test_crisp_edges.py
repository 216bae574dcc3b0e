"""Edges in place of haze."""

import torch

from hi3d.nano.crisp_edges import LEVEL, WIDTH, crisp_but_first, with_crisp_edges

COLOR = torch.tensor([0.8, 0.2, 0.1]).view(1, 3, 1, 1)


def hazy(alpha: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A row of pixels of one color over white."""
    alpha = alpha.view(1, 1, 1, -1)
    return COLOR * alpha + 1 - alpha, alpha


def test_a_ramp_becomes_an_edge_of_the_object_s_color():
    rgb, alpha = with_crisp_edges(*hazy(torch.linspace(0, 1, 41)))
    assert ((alpha > 0) & (alpha < 1)).float().mean() < WIDTH + 0.02
    assert alpha[..., 0].item() == 0
    assert (alpha.diff(dim=-1) >= 0).all()
    torch.testing.assert_close(rgb[..., :8], torch.ones(1, 3, 1, 8))
    opaque = rgb[..., alpha[0, 0, 0] == 1]
    torch.testing.assert_close(opaque, COLOR[..., 0].expand_as(opaque[..., 0, :])[..., None, :])


def test_an_edge_stays_where_it_is_and_so_does_what_is_opaque():
    rgb, alpha = hazy(torch.tensor([0.0, 0.0, LEVEL, 1.0, 1.0]))
    new_rgb, new_alpha = with_crisp_edges(rgb, alpha)
    assert new_alpha.flatten().tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]
    torch.testing.assert_close(new_rgb[..., 3:], rgb[..., 3:])


def test_the_photo_stays_as_it_is():
    rgb, alpha = (torch.cat([part, part]) for part in hazy(torch.linspace(0, 1, 9)))
    new_rgb, new_alpha = crisp_but_first(rgb, alpha)
    torch.testing.assert_close(new_rgb[0], rgb[0])
    torch.testing.assert_close(new_alpha[0], alpha[0])
    assert (new_alpha[1] - alpha[1]).abs().max() > 0.1
