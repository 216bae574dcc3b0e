import pytest
import torch
from skimage.metrics import structural_similarity

from hi3d.reconstruction.ssim import blur, blur_reference, ssim


def test_ssim_and_its_blur() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, 23, 31, generator=generator)
    assert ssim(image, image).item() == pytest.approx(1, abs=1e-5)
    # scikit-image mirrors at the border; in a frame of zeros that makes no difference.
    other = (image + 0.3 * torch.randn(image.shape, generator=generator)).clamp(0, 1)
    framed, framed_other = (torch.nn.functional.pad(t, (12, 12, 12, 12)) for t in (image, other))
    _, expected = structural_similarity(
        framed[0].numpy(), framed_other[0].numpy(), channel_axis=0, data_range=1.0, full=True,
        gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
    )  # fmt: skip
    assert ssim(framed, framed_other).item() == pytest.approx(expected.mean(), abs=1e-5)
    gradients = []
    for function in (blur, blur_reference):
        leaf = image.clone().requires_grad_()
        out = function(leaf)
        (out * torch.linspace(-1, 1, out.numel()).view(out.shape)).sum().backward()
        gradients.append((out, leaf.grad))
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-5)
