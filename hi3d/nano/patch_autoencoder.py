"""A small autoencoder for small models: patches to their principal components and back."""

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from torch import Tensor, nn

DETERMINISTIC_LOGVAR = -30.0
"""Log variance of the posterior: the encoder is deterministic."""
SMALLEST_SHARE = 1e-8
"""Of the first component's second moment: a component that is never used is not enlarged more."""


class PatchAutoencoder(ModelMixin, ConfigMixin):
    """Encodes each patch to its leading principal components, and decodes with a small network.

    It is called like diffusers' `AutoencoderKL`. The encoder has a closed form: the components are
    those of the training patches around white, so they are orthogonal and a white background is
    exactly 0. Whitening makes the leading ones shorter: fine components are thirty times smaller
    than the mean color, and a diffusion whose noise has one size for all cannot learn them. A
    convolutional VAE of the nano size needs hours on a CPU to get as near to its input.
    """

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 24,
        patch_size: int = 8,
        hidden_channels: int = 32,
        scaling_factor: float = 1.0,
    ):
        """Args:
        latent_channels: components per patch.
        patch_size: side of a patch in pixels; the latents are smaller by this factor.
        hidden_channels: of the decoder's refinement.
        scaling_factor: gives the latents about unit variance.
        """
        super().__init__()
        size = patch_size
        self.encoder = nn.Conv2d(3, latent_channels, size, stride=size, bias=False)
        self.decoder = nn.ConvTranspose2d(latent_channels, 3, size, stride=size, bias=False)
        self.decoder_features = nn.ConvTranspose2d(
            latent_channels, hidden_channels, size, stride=size
        )
        last = nn.Conv2d(hidden_channels, 3, 3, padding=1)
        self.refinement = nn.Sequential(
            nn.Conv2d(hidden_channels + 3, hidden_channels, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(hidden_channels, hidden_channels, 3, padding=1),
            nn.SiLU(),
            last,
        )
        for parameter in last.parameters():
            nn.init.zeros_(parameter)  # the refinement starts as the identity

    def set_components(self, second_moment: Tensor, whitening: float = 0.0) -> float:
        """Take the leading components of the patches' second moment around white.

        Args:
            second_moment: [D, D] mean of p p^T over patches p = (image - 1), D = 3 * patch_size^2,
                flattened as `torch.nn.functional.unfold` does.
            whitening: each latent is divided by its root mean square to this power, 0 to 1: 0
                keeps the patches' own metric, 1 makes all of one size.

        Returns:
            Share of the second moment that the components keep, in (0, 1].
        """
        values, vectors = torch.linalg.eigh(second_moment.double())
        leading = values.flip(0)[: self.config.latent_channels]
        components = vectors.flip(1)[:, : len(leading)].T
        sizes = leading.clamp_min(SMALLEST_SHARE * leading[0])[:, None] ** (whitening / 2)
        with torch.no_grad():
            self.encoder.weight.copy_((components / sizes).reshape_as(self.encoder.weight))
            self.decoder.weight.copy_((components * sizes).reshape_as(self.decoder.weight))
        variance = (leading[:, None] / sizes.square()).mean().item()
        self.register_to_config(scaling_factor=float(max(variance, 1e-12) ** -0.5))
        return (leading.sum() / values.sum()).item()

    def encode(self, x: Tensor) -> AutoencoderKLOutput:
        """Encode images.

        Args:
            x: [B, 3, H, W] in [-1, 1], H and W divisible by the patch size.

        Returns:
            `latent_dist`, whose mode is [B, C, H / patch_size, W / patch_size].
        """
        mean = self.encoder(x - 1)
        moments = torch.cat([mean, torch.full_like(mean, DETERMINISTIC_LOGVAR)], dim=1)
        return AutoencoderKLOutput(latent_dist=DiagonalGaussianDistribution(moments))

    def decode(self, z: Tensor) -> DecoderOutput:
        """Decode latents [B, C, h, w] to `sample` [B, 3, H, W], about in [-1, 1]."""
        image = self.decoder(z)
        features = torch.cat([self.decoder_features(z), image], dim=1)
        return DecoderOutput(sample=image + self.refinement(features) + 1)

    def forward(self, x: Tensor) -> Tensor:
        """Encode and decode [B, 3, H, W]."""
        return self.decode(self.encode(x).latent_dist.mode()).sample


def patch_second_moment(images: Tensor, patch_size: int) -> Tensor:
    """Mean of p p^T over the patches p = (image - 1).

    Args:
        images: [B, 3, H, W] in [-1, 1].
        patch_size: side of the patches, which do not overlap.

    Returns:
        [D, D] with D = 3 * patch_size^2.
    """
    patches = F.unfold(images - 1, patch_size, stride=patch_size).transpose(1, 2).flatten(0, 1)
    return patches.T @ patches / len(patches)
