"""The small autoencoder: latents of one size where whitened, and the same images either way."""

import pytest
import torch

from hi3d.nano.patch_autoencoder import PatchAutoencoder, patch_second_moment


def smooth_images(count: int = 256) -> torch.Tensor:
    """[count, 3, 8, 8] in [-1, 1], whose coarse parts vary more than the fine ones."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 2, 2, generator=generator)
    fine = torch.rand(count, 3, 8, 8, generator=generator)
    enlarged = torch.nn.functional.interpolate(coarse, (8, 8), mode="bilinear")
    return (enlarged + 0.1 * fine) * 1.5 - 0.9


def fitted(whitening: float, latent_channels: int = 24) -> PatchAutoencoder:
    torch.manual_seed(0)
    autoencoder = PatchAutoencoder(latent_channels, hidden_channels=8)
    autoencoder.set_components(patch_second_moment(smooth_images(), 8), whitening)
    return autoencoder


def root_mean_squares(autoencoder: PatchAutoencoder) -> torch.Tensor:
    latents = autoencoder.encode(smooth_images()).latent_dist.mode()
    return (latents * autoencoder.config.scaling_factor).square().mean((0, 2, 3)).sqrt()


@pytest.mark.parametrize("whitening", [0.0, 0.67, 1.0])
def test_latents_have_unit_mean_square(whitening):
    mean_square = root_mean_squares(fitted(whitening)).square().mean().item()
    assert mean_square == pytest.approx(1, rel=1e-3)


def test_whitening_brings_channels_to_one_size():
    plain, partly, wholly = (root_mean_squares(fitted(w)) for w in (0.0, 0.67, 1.0))

    def ratio(sizes: torch.Tensor) -> float:
        return (sizes.max() / sizes.min()).item()

    assert ratio(plain) > 20
    assert ratio(wholly) == pytest.approx(1, rel=1e-2)
    assert ratio(partly) == pytest.approx(ratio(plain) ** 0.33, rel=1e-2)


def test_whitening_changes_no_decoded_component():
    images = smooth_images(8)
    plain, white = fitted(0.0), fitted(1.0)
    decoded = [one.decoder(one.encoder(images)) for one in (plain, white)]
    torch.testing.assert_close(decoded[0], decoded[1], atol=1e-4, rtol=0)


def test_white_is_zero_and_unused_components_stay_finite():
    autoencoder = fitted(1.0)
    assert (autoencoder.encode(torch.ones(1, 3, 8, 8)).latent_dist.mode() == 0).all()
    flat = torch.full((4, 3, 8, 8), -1.0)  # one component says it all
    autoencoder.set_components(patch_second_moment(flat, 8), 1.0)
    torch.testing.assert_close(autoencoder.decoder(autoencoder.encoder(flat - 1)), flat - 1)
