"""Encoders: ranges, shapes, and the pieces with a closed form."""

from types import SimpleNamespace

import pytest
import torch

from hi3d.diffusion.conditioning import (
    augment_with_noise,
    decode_latents,
    decode_orbit,
    encode_condition,
    encode_frames,
    encode_image,
    estimate_depth,
    resize_depth,
    scaled_latents,
    vector_condition,
)
from hi3d.diffusion.weights import load_network


@pytest.fixture
def frames():
    return torch.rand(2, 3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_latents(tiny_models, frames):
    vae = load_network(str(tiny_models / "stage1"), "vae")
    with torch.no_grad():
        mean, std = encode_frames(vae, frames)
        condition = encode_condition(vae, frames)
        direct = vae.encode(frames[1] * 2 - 1).latent_dist.mode()
        images = decode_orbit(vae, scaled_latents(vae, frames))
        chunked = decode_orbit(vae, scaled_latents(vae, frames[:1]), chunk_size=3)
    assert mean.shape == std.shape == (2, 3, 4, 8, 8)
    torch.testing.assert_close(condition[1], direct)  # the mode, not scaled
    assert images.shape == frames.shape
    assert images.min() >= 0
    assert images.max() <= 1
    torch.testing.assert_close(chunked, images[:1])


def test_a_difference_is_decoded_onto_its_base(tiny_models, frames):
    vae = load_network(str(tiny_models / "stage1"), "vae")
    with torch.no_grad():
        latents = scaled_latents(vae, frames)
        unchanged = decode_orbit(vae, torch.zeros_like(latents), base=frames)
        torch.testing.assert_close(unchanged, frames)  # exactly, whatever the decoder loses
        difference = torch.randn(latents.shape, generator=torch.Generator().manual_seed(1))
        changed = decode_orbit(vae, difference, base=frames)
        shift = decode_latents(vae, latents + difference) - decode_latents(vae, latents)
    torch.testing.assert_close(changed, (frames + shift).clamp(0, 1))
    assert (changed - frames).abs().max() > 0.01


def test_image_embedding_is_one_token(tiny_models, frames):
    encoder = load_network(str(tiny_models / "stage1"), "image_encoder")
    with torch.no_grad():
        assert encode_image(encoder, frames[:, 0]).shape == (2, 1, 16)


def test_noise_augmentation_has_the_strength_in_network_units():
    frames = torch.full((2, 1, 3, 64, 64), 0.5)
    noisy = augment_with_noise(frames, torch.tensor([0.0, 0.2]), torch.Generator().manual_seed(0))
    torch.testing.assert_close(noisy[0], frames[0])
    assert (noisy[1] * 2 - 1).std().item() == pytest.approx(0.2, rel=0.03)


def test_vector_condition_order():
    ids = vector_condition(torch.tensor([20.0]), torch.tensor([0.02]))
    torch.testing.assert_close(ids, torch.tensor([[20.0, 0.02]]))


def test_depth_is_scaled_per_frame(frames):
    class Network:
        """Gives each frame a ramp of its own range."""

        config = SimpleNamespace(image_size=8)
        dtype = torch.float32

        def __call__(self, pixel_values):
            assert pixel_values.shape == (6, 3, 8, 8)
            assert pixel_values.min() >= -1
            ramp = torch.linspace(0, 1, 64).reshape(8, 8)
            low = torch.arange(6.0)[:, None, None]
            return SimpleNamespace(predicted_depth=low + (low + 1) * ramp)

    depth = estimate_depth(Network(), frames)
    ramp = torch.linspace(0, 1, 64).reshape(8, 8)
    torch.testing.assert_close(depth, ramp.expand(2, 3, 1, 8, 8), atol=1e-5, rtol=0)
    resized = resize_depth(depth, (4, 4))
    assert resized.shape == (2, 3, 1, 4, 4)
    torch.testing.assert_close(resized.mean(), ramp.mean(), atol=1e-3, rtol=0)
