"""The opacity of generated views does not depend on how bright the object is."""

import pytest
import torch

from hi3d.photo.view_alpha import view_alpha, views_alpha

SIZE = 96


def ring(hole: float = 0.0) -> torch.Tensor:
    """Opacity [1, H, W] of a disc of radius 0.3 with a hole, antialiased."""
    fine = (torch.arange(4 * SIZE) + 0.5) / (4 * SIZE) - 0.5
    radius = (fine[:, None].square() + fine.square()).sqrt()
    mask = ((radius < 0.3) & (radius >= hole)).float()
    return torch.nn.functional.avg_pool2d(mask[None], 4)


def painted(alpha: torch.Tensor, color: float, texture: float = 0.3) -> torch.Tensor:
    """A disc of a brightness, over white; the texture is a share of its distance from white."""
    waves = torch.sin(torch.arange(SIZE) / 5)[None] * torch.cos(torch.arange(SIZE) / 7)[:, None]
    shade = (1 - color) * (1 + texture * waves)
    return (1 - alpha * shade).expand(3, -1, -1)


def iou(found: torch.Tensor, true: torch.Tensor) -> float:
    found, true = found > 0.5, true > 0.5
    return float((found & true).sum() / (found | true).sum())


@pytest.mark.parametrize("color", [0.0, 0.5, 0.9, 0.97])
def test_black_grey_and_white_objects(color):
    alpha = ring()
    assert iou(view_alpha(painted(alpha, color)), alpha) > 0.97


@pytest.mark.parametrize("color", [0.2, 0.95])
def test_haze_is_not_object(color):
    alpha = ring()
    rgb = painted(alpha, color)
    blurred = alpha[None]
    for _ in range(6):
        blurred = torch.nn.functional.avg_pool2d(blurred, 9, 1, 4)
    hazy = (rgb - 0.25 * (1 - color) * blurred[0] * (1 - alpha)).clamp(0, 1)
    assert iou(view_alpha(hazy), alpha) > 0.93


def test_holes_open_unless_the_object_has_parts_as_white():
    alpha = ring(hole=0.12)
    rgb = painted(alpha, 0.3)
    assert iou(view_alpha(rgb), alpha) > 0.95
    assert iou(view_alpha(rgb, open_holes=False), ring()) > 0.95
    views = torch.stack([rgb] * 4)
    ring_photo, disc_photo = views_alpha(views, alpha), views_alpha(views, ring())
    assert iou(ring_photo[1], alpha) > 0.95
    assert iou(disc_photo[1], ring()) > 0.95  # the photo says: a white part, not a hole


def test_view_0_has_the_photos_own_opacity_and_no_view_is_empty():
    alpha = ring()
    alpha[..., : SIZE // 2] = 0  # half a disc, so that left and right differ
    blank = torch.ones(8, 3, SIZE, SIZE)
    found = views_alpha(blank, alpha)
    torch.testing.assert_close(found[0], alpha)
    torch.testing.assert_close(found[1], alpha)
    torch.testing.assert_close(found[4], alpha.flip(-1))  # seen from behind


def test_soft_edges():
    alpha = ring()
    found = view_alpha(painted(alpha, 0.2, texture=0.0))
    edge = (alpha > 0.2) & (alpha < 0.8)
    assert (found - alpha)[edge].abs().mean() < 0.1


def test_without_anything_all_is_background():
    assert view_alpha(torch.ones(3, SIZE, SIZE)).sum() == 0
