"""Hi3D: one photo to a textured mesh, through orbit video diffusion, splats and NeuS."""

__version__ = "0.1.0"
