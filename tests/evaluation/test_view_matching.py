"""Views are compared with those of the same cameras, in whatever order their files are."""

import pytest
import torch

from hi3d.cameras import orbit_cameras
from hi3d.errors import InputError
from hi3d.evaluation.view_matching import matched_by_camera
from hi3d.evaluation.view_metrics import MAX_PSNR, score_views
from hi3d.views import Views

ORDER = torch.tensor([3, 0, 7, 1, 5, 2, 6, 4])


@pytest.fixture
def gt() -> Views:
    generator = torch.Generator().manual_seed(0)
    rgb = torch.rand(8, 3, 16, 16, generator=generator)
    return Views(rgb, torch.ones(8, 1, 16, 16), orbit_cameras(20, 16, 8))


def test_permuted_views_are_put_in_order(gt):
    matched, line = matched_by_camera(gt[ORDER], gt)
    assert torch.equal(matched.rgb, gt.rgb)
    assert "orders differ" in line


def test_an_estimated_elevation_keeps_the_order(gt):
    pred = Views(gt.rgb, gt.alpha, orbit_cameras(8, 16, 8))
    matched, line = matched_by_camera(pred, gt)
    assert torch.equal(matched.rgb, gt.rgb)
    assert line == "matched by camera, at most 12.0 degrees apart"


def test_other_cameras_are_one_line(gt):
    far = Views(gt.rgb, gt.alpha, orbit_cameras(70, 16, 8))
    with pytest.raises(InputError, match=r"differ by up to 50 degrees.*match=number"):
        matched_by_camera(far, gt)
    with pytest.raises(InputError, match="7 predicted views and 8"):
        matched_by_camera(gt[:7], gt)


def test_one_identical_view_leaves_the_mean_finite(gt):
    rgb = gt.rgb.clone()
    rgb[1:] = (rgb[1:] - 0.1).abs()
    scores = score_views(Views(rgb, gt.alpha, gt.cameras), gt)
    expected = (MAX_PSNR + scores.psnr[1:].sum().item()) / 8
    assert scores.means()["psnr"] == pytest.approx(expected, rel=1e-5)
