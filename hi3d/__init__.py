"""Hi3D: one photo to a textured mesh, through orbit video diffusion, splats and NeuS.

The names below are imported when they are first used: `import hi3d` itself loads no library.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

# OpenMP threads that spin while they wait take the cores from the loader and from other processes.
# Read once, when the library is loaded: before torch is.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    from hi3d.assets.surface_mesh import load_mesh
    from hi3d.cameras import Cameras, orbit_cameras
    from hi3d.config import load_config
    from hi3d.errors import InputError
    from hi3d.files import shipped
    from hi3d.mesh import SurfaceMesh, save_mesh
    from hi3d.photo.framing import ForegroundConfig, extract_foreground
    from hi3d.pipelines.image_to_3d import GenerateConfig, Photo3D, image_to_3d
    from hi3d.pipelines.loading import load_pipeline
    from hi3d.pipelines.orbit import OrbitPipeline
    from hi3d.pipelines.refiner import RefinerPipeline
    from hi3d.pipelines.sampler import SamplerConfig, seeded_generator
    from hi3d.pipelines.views_to_mesh import ReconstructConfig, reconstruct
    from hi3d.splats import GaussianSplats
    from hi3d.splatting.fit import SplatConfig, fit_splats
    from hi3d.surface.meshing import MeshingConfig, extract_mesh
    from hi3d.surface.neus.config import NeusConfig
    from hi3d.surface.neus.fit import fit_neus
    from hi3d.texture.bake import TextureConfig, bake_texture
    from hi3d.views import ReferenceImage, Views

__version__ = "0.1.0"

__all__ = [
    "Cameras",
    "ForegroundConfig",
    "GaussianSplats",
    "GenerateConfig",
    "InputError",
    "MeshingConfig",
    "NeusConfig",
    "OrbitPipeline",
    "Photo3D",
    "ReconstructConfig",
    "ReferenceImage",
    "RefinerPipeline",
    "SamplerConfig",
    "SplatConfig",
    "SurfaceMesh",
    "TextureConfig",
    "Views",
    "bake_texture",
    "extract_foreground",
    "extract_mesh",
    "fit_neus",
    "fit_splats",
    "image_to_3d",
    "load_config",
    "load_mesh",
    "load_pipeline",
    "orbit_cameras",
    "reconstruct",
    "save_mesh",
    "seeded_generator",
    "shipped",
]

_HOME = {
    "hi3d.cameras": ("Cameras", "orbit_cameras"),
    "hi3d.config": ("load_config",),
    "hi3d.errors": ("InputError",),
    "hi3d.files": ("shipped",),
    "hi3d.mesh": ("SurfaceMesh", "save_mesh"),
    "hi3d.assets.surface_mesh": ("load_mesh",),
    "hi3d.photo.framing": ("ForegroundConfig", "extract_foreground"),
    "hi3d.pipelines.image_to_3d": ("GenerateConfig", "Photo3D", "image_to_3d"),
    "hi3d.pipelines.loading": ("load_pipeline",),
    "hi3d.pipelines.orbit": ("OrbitPipeline",),
    "hi3d.pipelines.refiner": ("RefinerPipeline",),
    "hi3d.pipelines.sampler": ("SamplerConfig", "seeded_generator"),
    "hi3d.pipelines.views_to_mesh": ("ReconstructConfig", "reconstruct"),
    "hi3d.splats": ("GaussianSplats",),
    "hi3d.splatting.fit": ("SplatConfig", "fit_splats"),
    "hi3d.surface.meshing": ("MeshingConfig", "extract_mesh"),
    "hi3d.surface.neus.config": ("NeusConfig",),
    "hi3d.surface.neus.fit": ("fit_neus",),
    "hi3d.texture.bake": ("TextureConfig", "bake_texture"),
    "hi3d.views": ("ReferenceImage", "Views"),
}
"""The module of every public name, as above."""


def __getattr__(name: str) -> Any:
    """Import a public name at its first use (PEP 562)."""
    for module, names in _HOME.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module 'hi3d' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
