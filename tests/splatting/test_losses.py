import pytest
import torch

from hi3d.splatting.losses import LAMBDA_ALPHA, loss_color, loss_l1, loss_view
from hi3d.splatting.ssim import loss_ssim


def test_losses_by_hand() -> None:
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(1, 3, 16, 16, generator=generator)
    same = loss_view(target, target[:, :1], target, target[:, :1])
    assert same.item() == pytest.approx(0, abs=1e-5)
    shown = target + 0.04
    assert loss_l1(shown, target).item() == pytest.approx(0.04)
    # L1 and 1 - SSIM stand 4 to 1, as in 3DGS.
    structure = loss_ssim(shown, target).item()
    assert structure > 0
    color = loss_color(shown, target).item()
    assert color == pytest.approx(0.8 * 0.04 + 0.2 * structure)
    both = loss_view(shown, target[:, :1] - 0.2, target, target[:, :1]).item()
    assert both == pytest.approx(color + LAMBDA_ALPHA * 0.2, rel=1e-4)
