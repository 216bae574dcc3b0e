import pytest
import torch
from skimage.metrics import structural_similarity

from hi3d.splatting.ssim import loss_ssim, loss_ssim_reference


def test_ssim_and_its_blur() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, 23, 31, generator=generator)
    assert loss_ssim(image, image).item() == pytest.approx(0, abs=1e-5)
    # scikit-image mirrors at the border; in a frame of zeros that makes no difference.
    other = (image + 0.3 * torch.randn(image.shape, generator=generator)).clamp(0, 1)
    framed, framed_other = (torch.nn.functional.pad(t, (12, 12, 12, 12)) for t in (image, other))
    _, expected = structural_similarity(
        framed[0].numpy(), framed_other[0].numpy(), channel_axis=0, data_range=1.0, full=True,
        gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
    )  # fmt: skip
    loss = loss_ssim(framed, framed_other).item()
    assert loss == pytest.approx(1 - expected.mean(), abs=1e-5)


def test_native_ssim_equals_reference() -> None:
    generator = torch.Generator().manual_seed(1)
    results = []
    images = torch.rand(2, 3, 23, 31, generator=generator)
    noisy = images + 0.2 * torch.randn(images.shape, generator=generator)
    noisy[:, :, :9, :9] = images[:, :, :9, :9] = 1  # flat, and the same: where derivatives cancel
    for function in (loss_ssim, loss_ssim_reference):
        leaf = noisy.clone().requires_grad_()
        value = function(leaf, images)
        (3 * value).backward()
        results.append((value.detach(), leaf.grad))
    assert results[0][1].abs().max() > 1e-4
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-6)
