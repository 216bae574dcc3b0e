"""Video diffusion: EDM, guidance, conditioning, the UNet and its weights."""
