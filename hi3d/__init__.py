"""Hi3D: one photo to a textured mesh, through orbit video diffusion, splats and NeuS."""

import os

# OpenMP threads that spin while they wait take the cores from the loader and from other processes.
# Read once, when the library is loaded: before torch is.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
