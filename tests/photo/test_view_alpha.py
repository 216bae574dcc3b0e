"""The opacity of generated views does not depend on how bright the object is."""

from functools import cache

import pytest
import torch

from hi3d.cameras import Cameras, orbit_cameras
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


def test_holes_of_a_few_pixels_open_and_gleams_do_not():
    solid = ring()
    alpha, gleam = solid.clone(), painted(solid, 0.3)
    alpha[:, 45:47, 40:42] = 0
    distance = (torch.arange(SIZE) - 45.0).square()
    spot = (-(distance[:, None] + distance) / 10).exp()
    gleam = gleam + (1 - gleam) * (1.05 * spot).clamp(max=1)
    assert not (view_alpha(painted(alpha, 0.3))[:, 45:47, 40:42] > 0.5).any()
    assert (gleam[:, 45, 45] == 1).all()
    assert view_alpha(gleam)[0, 45, 45] > 0.5


def test_view_0_has_the_photos_own_opacity_and_no_view_is_empty():
    alpha = ring()
    alpha[..., : SIZE // 2] = 0  # half a disc, so that left and right differ
    blank = torch.ones(8, 3, SIZE, SIZE)
    found = views_alpha(blank, alpha)
    torch.testing.assert_close(found[0], alpha)
    torch.testing.assert_close(found[1], alpha)
    torch.testing.assert_close(found[4], alpha.flip(-1))  # seen from behind


def test_edges_of_black_and_white_parts_are_equally_soft():
    alpha = ring()
    shade = torch.full((SIZE, SIZE), 0.9)
    shade[:, SIZE // 2 :] = 0.05  # white beside black
    found = view_alpha((1 - alpha * shade).expand(3, -1, -1))
    edge = (alpha > 0.02) & (alpha < 0.98)
    assert (found - alpha)[edge].abs().mean() < 0.03
    torch.testing.assert_close(found[~edge].round(), alpha[~edge].round())


def test_an_object_that_leaves_the_image_is_not_taken_for_background():
    alpha = torch.zeros(1, SIZE, SIZE)
    alpha[:, 20:, 4:-4] = 1  # its color covers most of the lower border
    assert iou(view_alpha(painted(alpha, 0.4)), alpha) > 0.97


BALLS = torch.tensor([[0.0, 0.0, -0.15, 0.28], [0.0, 0.0, 0.2, 0.16], [0.1, 0.25, 0.0, 0.12]])
ANGLES = torch.arange(30) * (2 * torch.pi / 30)
TORUS = torch.stack([ANGLES * 0, ANGLES.cos() * 0.35, ANGLES.sin() * 0.35, ANGLES * 0 + 0.07], 1)
STEPS = torch.linspace(-0.4, 0.4, 50)
ROD = torch.stack([STEPS * 0, STEPS / 2, STEPS, STEPS * 0 + 0.018], 1)
SHAPES = {"vase": BALLS, "hole": TORUS, "thin": ROD}
"""Balls, [N, 4]: center and radius."""


@cache
def orbit(name: str) -> tuple[torch.Tensor, Cameras]:
    """Opacity [6, 1, H, W] of balls, antialiased, and the cameras."""
    fine = orbit_cameras(20.0, 3 * SIZE, 6)
    masks = []
    for view in range(6):
        origins, directions = (rays.reshape(-1, 3) for rays in fine.rays(view))
        centers, radii = SHAPES[name][:, :3] - origins[0], SHAPES[name][:, 3]
        along = directions @ centers.T
        inside = centers.square().sum(-1) - along.square() < radii.square()
        masks.append(inside.any(1).float().reshape(1, 1, 3 * SIZE, 3 * SIZE))
    return torch.nn.functional.avg_pool2d(torch.cat(masks), 3), orbit_cameras(20.0, SIZE, 6)


def painted_orbit(alpha: torch.Tensor, color: float) -> torch.Tensor:
    return torch.stack([painted(view, color) for view in alpha])


@pytest.mark.parametrize("color", [0.0, 0.97, 0.985], ids=["black", "white", "whiter"])
@pytest.mark.parametrize("shape", SHAPES)
def test_orbits_of_black_and_white_objects_thin_and_with_holes(shape, color):
    alpha, cameras = orbit(shape)
    found = views_alpha(painted_orbit(alpha, color), alpha[0], cameras)
    assert min(iou(view, true) for view, true in zip(found, alpha, strict=True)) > 0.95
    assert iou(found, alpha) > 0.97


def test_a_hazy_orbit():
    alpha, cameras = orbit("vase")
    haze = alpha
    for _ in range(4):
        haze = torch.nn.functional.avg_pool2d(haze, 9, 1, 4)
    noise = 0.01 * torch.randn(6, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    rgb = (painted_orbit(alpha, 0.6) - 0.12 * haze * (1 - alpha) + noise).clamp(0, 1)
    found = views_alpha(rgb, alpha[0], cameras)
    assert min(iou(view, true) for view, true in zip(found, alpha, strict=True)) > 0.93


def test_a_view_in_which_nothing_stands_out_takes_the_silhouette_of_the_others():
    alpha, cameras = orbit("vase")
    rgb = painted_orbit(alpha, 0.5)
    rgb[[2, 3]] = 1
    found = views_alpha(rgb, alpha[0], cameras)
    assert iou(found[2], alpha[2]) > 0.8
    assert iou(found[3], alpha[3]) > 0.8
    without_cameras = views_alpha(rgb, alpha[0])
    torch.testing.assert_close(without_cameras[3], alpha[0].flip(-1))


def test_without_anything_all_is_background():
    assert view_alpha(torch.ones(3, SIZE, SIZE)).sum() == 0
