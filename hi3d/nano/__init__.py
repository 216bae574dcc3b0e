"""What only the small model has; `diffusion` and `training` know nothing of it."""
