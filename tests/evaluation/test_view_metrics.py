"""Scores of views, against values worked out by hand and scikit-image."""

import math

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from hi3d.cameras import orbit_cameras
from hi3d.errors import InputError
from hi3d.evaluation.view_metrics import ViewMetricsConfig, psnr, score_views, ssim
from hi3d.views import Views


def random_views(seed: int, resolution: int = 24, num_views: int = 3) -> Views:
    generator = torch.Generator().manual_seed(seed)
    rgb = torch.rand(num_views, 3, resolution, resolution, generator=generator)
    alpha = torch.zeros(num_views, 1, resolution, resolution)
    alpha[:, :, :, : resolution // 2] = 1
    return Views(rgb, alpha, orbit_cameras(10, resolution, num_views))


def test_psnr_by_hand():
    gt = torch.full((2, 3, 4, 4), 0.5)
    pred = gt.clone()
    pred[0] += 0.1  # mean squared error 0.01: 20 dB
    pred[1, 0] += 0.1  # in one of three channels: 20 + 10 log10 3 dB
    assert psnr(pred, gt).tolist() == pytest.approx([20.0, 20 + 10 * math.log10(3)], abs=1e-4)
    assert psnr(gt, gt).isinf().all()


def test_masked_psnr_counts_masked_pixels_only():
    gt = torch.zeros(1, 3, 2, 2)
    pred = gt.clone()
    pred[..., 0, 0] = 0.1
    mask = torch.zeros(1, 1, 2, 2, dtype=torch.bool)
    mask[..., 0, :] = True  # one wrong pixel of two: mean squared error 0.005
    assert psnr(pred, gt, mask).item() == pytest.approx(-10 * math.log10(0.005), abs=1e-4)
    assert psnr(pred, gt, torch.zeros_like(mask)).isnan().all()


def test_ssim_agrees_with_scikit_image():
    gt, pred = random_views(0).rgb, random_views(0).rgb.roll(1, dims=-1) * 0.5 + 0.2
    scores = ssim(pred, gt, data_range=1.0)
    for view in range(3):
        # 11x11 windows, population variance; the mean is over all pixels of the mirrored image.
        _, full = structural_similarity(
            *(
                np.pad(np.moveaxis(x[view].numpy(), 0, -1), [(5, 5), (5, 5), (0, 0)], "reflect")
                for x in (pred, gt)
            ),
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1.0,
            channel_axis=-1,
            full=True,
        )
        assert scores[view].item() == pytest.approx(full[5:-5, 5:-5].mean(), abs=1e-4)


def test_ssim_range_is_the_larger_of_the_pair_by_default():
    gt, pred = random_views(0).rgb * 0.5, random_views(1).rgb * 0.25
    spans = [float(image.max() - image.min()) for image in gt]
    expected = [ssim(pred[i : i + 1], gt[i : i + 1], spans[i]).item() for i in range(3)]
    assert ssim(pred, gt).tolist() == pytest.approx(expected, abs=1e-6)


def test_score_views_by_view_and_in_the_mean():
    gt = random_views(0)
    rgb = gt.rgb.clone()
    rgb[1:] = (rgb[1:] - 0.1).abs()
    scores = score_views(Views(rgb, gt.alpha, gt.cameras), gt)
    assert scores.psnr.shape == scores.ssim.shape == scores.foreground_psnr.shape == (3,)
    assert scores.psnr[0].isinf()
    assert scores.ssim[0].item() == pytest.approx(1)
    without = score_views(
        Views(rgb, gt.alpha, gt.cameras), gt, ViewMetricsConfig(exclude_first=True)
    )
    assert torch.equal(without.psnr, scores.psnr[1:])
    assert without.means()["psnr"] == pytest.approx(scores.psnr[1:].mean().item())
    left_half = psnr(rgb[..., :12], gt.rgb[..., :12])
    assert torch.allclose(scores.foreground_psnr[1:], left_half[1:])


def test_views_that_do_not_match_are_one_line():
    with pytest.raises(InputError, match="2 predicted views and 3"):
        score_views(random_views(0, num_views=2), random_views(0))
    with pytest.raises(InputError, match="24x24"):
        score_views(random_views(0), random_views(0, resolution=32))
    one = random_views(0)[0]
    with pytest.raises(InputError, match="no views"):
        score_views(one, one, ViewMetricsConfig(exclude_first=True))
    with pytest.raises(InputError, match="11x11"):
        score_views(random_views(0, resolution=8), random_views(0, resolution=8))
    with pytest.raises(InputError, match="data_range"):
        ViewMetricsConfig(data_range=0.0)
