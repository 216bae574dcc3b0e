"""A direct guess of the orbit, to which a small diffusion model adds."""

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from hi3d.cameras import NUM_ORBIT_VIEWS
from hi3d.diffusion.conditioning import VAE, decode_orbit, scaled_latents


class OrbitPredictor(ModelMixin, ConfigMixin):
    """Latents of the reference image to latents of the views, by one network over whole images.

    Not in the paper. A view is nearly a linear function of the whole reference image, but a small
    UNet, whose layers see few positions at a time and know the view by an added vector only, learns
    that function slowly. This one sees everything at once and takes minutes on a CPU.
    """

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 24,
        latent_size: int = 8,
        num_frames: int = 16,
        hidden_size: int = 1024,
        num_blocks: int = 2,
        rank: int = 384,
        dropout: float = 0.1,
    ):
        """Args:
        latent_channels: C of the latents.
        latent_size: their side.
        num_frames: T of the orbit, even.
        hidden_size: of the blocks.
        num_blocks: residual blocks.
        rank: differences are combinations of so many patterns, shared by all views.
        dropout: within the blocks, in training.
        """
        super().__init__()
        if num_frames % 2:
            raise ValueError(f"num_frames must be even, got {num_frames}")
        size = latent_channels * latent_size**2
        self.input = nn.Linear(size + 1, hidden_size)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(hidden_size),
                nn.Linear(hidden_size, hidden_size),
                nn.SiLU(),
                nn.Dropout(dropout),
                nn.Linear(hidden_size, hidden_size),
            )
            for _ in range(num_blocks)
        )
        self.norm = nn.LayerNorm(hidden_size)
        self.output = nn.Linear(hidden_size, num_frames // 2 * rank)
        nn.init.zeros_(self.output.weight)  # an untrained network says: no difference
        nn.init.zeros_(self.output.bias)
        self.gate = nn.Linear(hidden_size, num_frames // 2)
        nn.init.constant_(self.gate.bias, 2.0)
        self.patterns = nn.Linear(rank, size, bias=False)

    def forward(self, latents: Tensor, elevation_deg: Tensor) -> Tensor:
        """Differences of half the orbit to the reference image, mirrored behind the object.

        The other half is that of the mirrored image, mirrored: see `predict_orbit`.

        Args:
            latents: [B, C, h, w] of the reference image, scaled.
            elevation_deg: [B].

        Returns:
            Scaled latents [B, T / 2, C, h, w] to be added to those of frames 1 to T / 2 of
            `repeat_around`.
        """
        # Elevations are drawn from U[-10, 40] degrees: mean 15, standard deviation 14.4.
        elevation = ((elevation_deg.to(latents) - 15) / 15)[:, None]
        x = self.input(torch.cat([0.5 * latents.flatten(1), elevation], dim=1))
        for block in self.blocks:
            x = x + block(x)
        x = self.norm(x)
        weights = self.output(x).unflatten(1, (self.config.num_frames // 2, -1))
        # A view that looks like the reference must be left alone to the last grey level.
        weights = weights * self.gate(x).sigmoid()[..., None]
        return self.patterns(weights).unflatten(2, latents.shape[1:])


def repeat_around(reference: Tensor, num_frames: int) -> Tensor:
    """The reference image as a guess of the orbit: as it is in front, mirrored behind.

    From opposite sides an object has the same outline, mirrored (exactly so for parallel rays at
    the horizon), so the mirrored image is nearer to the views from 90 degrees on.

    Args:
        reference: [B, 3, H, W].
        num_frames: T, spread evenly over 360 degrees.

    Returns:
        [B, T, 3, H, W].
    """
    frame = torch.arange(num_frames, device=reference.device)
    behind = (4 * frame >= num_frames) & (4 * frame <= 3 * num_frames)
    return torch.where(
        behind[None, :, None, None, None], reference.flip(-1)[:, None], reference[:, None]
    )


def predict_orbit(
    vae: VAE, predictor: OrbitPredictor, reference: Tensor, elevation_deg: Tensor
) -> Tensor:
    """The predictor's orbit of a reference image.

    Args:
        vae: encoder and decoder of the predictor's latents.
        predictor: for T frames.
        reference: [B, 3, H, W] in [0, 1], at the resolution that the predictor was trained at.
        elevation_deg: [B].

    Returns:
        [B, T, 3, H, W] in [0, 1]; frame 0 is the reference.
    """
    num_frames = predictor.config.num_frames
    half = num_frames // 2

    def near_half(image: Tensor) -> Tensor:
        latents = scaled_latents(vae, image[:, None])[:, 0].to(predictor.dtype)
        difference = predictor(latents, elevation_deg).to(image)
        return decode_orbit(vae, difference, repeat_around(image, num_frames)[:, 1 : half + 1])

    right = near_half(reference)
    left = near_half(reference.flip(-1)).flip(1, -1)
    back = (right[:, -1:] + left[:, :1]) / 2  # predicted from both sides
    return torch.cat([reference[:, None], right[:, :-1], back, left[:, 1:]], dim=1)


def base_video(
    vae: VAE, predictor: OrbitPredictor | None, reference: Tensor, elevation_deg: Tensor
) -> Tensor:
    """The predicted orbit, or else the reference image, mirrored behind the object.

    Args:
        vae: encoder and decoder of the predictor's latents.
        predictor: None where the model has none.
        reference: [B, 3, H, W] in [0, 1].
        elevation_deg: [B].

    Returns:
        [B, T, 3, H, W] in [0, 1].
    """
    if predictor is None:
        return repeat_around(reference, NUM_ORBIT_VIEWS)
    return predict_orbit(vae, predictor, reference, elevation_deg)
