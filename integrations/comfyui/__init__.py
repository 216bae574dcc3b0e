"""ComfyUI nodes: photo to orbit, orbit to mesh."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import hi3d
from hi3d.config import MAX_SEED
from hi3d.pipelines.image_to_3d import DEFAULT_CONFIG, parse_elevation
from hi3d.pipelines.views_to_mesh import reconstruct_mesh

SEED = ("INT", {"default": 0, "min": 0, "max": MAX_SEED - 1})
SETTINGS = ("STRING", {"multiline": True, "default": "", "tooltip": "key=value, one a line"})


@lru_cache(maxsize=2)
def pipeline(stage: type, folder: str, memory: str) -> Any:
    """A stage's pipeline, which stays loaded from run to run."""
    return hi3d.load_pipeline(stage, folder, memory)


def settings_of(text: str) -> hi3d.GenerateConfig:
    """The settings of configs/generate.yaml, changed by lines of `key=value`."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return hi3d.load_config(hi3d.GenerateConfig, hi3d.shipped(DEFAULT_CONFIG), lines)


class PhotoToOrbit:
    """One photo to 16 refined views with their cameras."""

    CATEGORY, FUNCTION, TITLE = "hi3d", "make", "Hi3D: photo to orbit"
    RETURN_TYPES, RETURN_NAMES = ("HI3D_VIEWS", "IMAGE", "MASK"), ("views", "images", "masks")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """What ComfyUI shows."""
        mask = ("MASK", {"tooltip": "1 = background, as Load Image gives it"})
        angle = ("STRING", {"default": "auto"})
        optional = {"mask": mask, "elevation_deg": angle, "settings": SETTINGS}
        return {"required": {"image": ("IMAGE",), "seed": SEED}, "optional": optional}

    def make(
        self, image: Any, seed: int, elevation_deg: str, settings: str, mask: Any = None
    ) -> tuple[Any, Any, Any]:
        """The first image [B, H, W, 3] in [0, 1], with a mask [B, H, W] unless it is all 0."""
        rgb = image[0, ..., :3].cpu().clamp(0, 1).numpy()
        photo = Image.fromarray(np.round(255 * rgb).astype(np.uint8))
        if mask is not None and bool((mask[0] > 0).any()):
            alpha = np.round(255 * (1 - mask[0].cpu().clamp(0, 1).numpy())).astype(np.uint8)
            photo.putalpha(Image.fromarray(alpha).resize(photo.size, Image.Resampling.BILINEAR))
        config, elevation = settings_of(settings), parse_elevation(elevation_deg)
        reference = hi3d.extract_foreground(photo, config.foreground)
        stage1 = pipeline(hi3d.OrbitPipeline, config.stage1, config.memory)
        stage2 = pipeline(hi3d.RefinerPipeline, config.stage2, config.memory)
        orbit = stage1(reference, elevation, config.orbit, hi3d.seeded_generator(seed)).views
        views = stage2(orbit, reference, config.refiner, hi3d.seeded_generator(seed + 1)).to("cpu")
        return views, views.rgb.permute(0, 2, 3, 1).contiguous(), 1 - views.alpha[:, 0]


class OrbitToMesh:
    """Views to a textured GLB in ComfyUI's output folder, which Preview 3D shows."""

    CATEGORY, FUNCTION, TITLE = "hi3d", "make", "Hi3D: orbit to mesh"
    RETURN_TYPES, RETURN_NAMES, OUTPUT_NODE = ("STRING",), ("model_file",), True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """What ComfyUI shows."""
        name = ("STRING", {"default": "hi3d/mesh"})
        required = {"views": ("HI3D_VIEWS",), "seed": SEED, "filename_prefix": name}
        return {"required": required, "optional": {"settings": SETTINGS}}

    def make(
        self, views: Any, seed: int, filename_prefix: str, settings: str = ""
    ) -> dict[str, Any]:
        """The file's path in the output folder."""
        import folder_paths  # ComfyUI's

        root = folder_paths.get_output_directory()
        folder, name, number, _, _ = folder_paths.get_save_image_path(filename_prefix, root)
        mesh = reconstruct_mesh(views, None, settings_of(settings).mesh, seed)
        path = Path(folder) / f"{name}_{number:05}_.glb"
        hi3d.save_mesh(mesh, path)
        shown = path.relative_to(root).as_posix()
        return {"ui": {"text": [shown]}, "result": (shown,)}


NODE_CLASS_MAPPINGS: dict[str, Any] = {
    "Hi3DPhotoToOrbit": PhotoToOrbit,
    "Hi3DOrbitToMesh": OrbitToMesh,
}
NODE_DISPLAY_NAME_MAPPINGS = {name: node.TITLE for name, node in NODE_CLASS_MAPPINGS.items()}
