"""Materials of glTF 2.0, as far as they decide the unlit base colour."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from hi3d.assets.gltf_file import GltfFile
from hi3d.assets.parts import LIGHT_GREY, AlphaMode
from hi3d.color import linear_from_srgb
from hi3d.errors import InputError

MIRRORED_REPEAT = 33648
SPECULAR_GLOSSINESS = "KHR_materials_pbrSpecularGlossiness"
TEXTURE_TRANSFORM = "KHR_texture_transform"


@dataclass(frozen=True)
class GltfMaterial:
    """The unlit look of a glTF material."""

    factor: np.ndarray  # [4]
    """Base colour in linear light, and alpha."""
    texture_info: dict[str, Any] | None = None
    """The `textureInfo` of the base colour."""
    alpha_mode: AlphaMode = "OPAQUE"
    alpha_cutoff: float = 0.5


def read_material(gltf: GltfFile, index: int | None, has_colors: bool) -> GltfMaterial:
    """Base colour, or diffuse colour, or (where those are black) emission of a material."""
    if index is None:
        return GltfMaterial(np.ones(4) if has_colors else linear_from_srgb(LIGHT_GREY))
    material = gltf.entry("materials", index)
    extensions = material.get("extensions", {})
    if SPECULAR_GLOSSINESS in extensions:
        surface = extensions[SPECULAR_GLOSSINESS]
        factor, info = surface.get("diffuseFactor"), surface.get("diffuseTexture")
    else:
        surface = material.get("pbrMetallicRoughness", {})
        factor, info = surface.get("baseColorFactor"), surface.get("baseColorTexture")
    factor = np.ones(4) if factor is None else np.array(factor, np.float64).clip(0, 1)
    emission = np.array(material.get("emissiveFactor", (0, 0, 0)), np.float64).clip(0, 1)
    if not factor[:3].any() and emission.any():
        factor[:3], info = emission, material.get("emissiveTexture")
    mode = material.get("alphaMode", "OPAQUE")
    if mode not in ("OPAQUE", "MASK", "BLEND"):
        mode = "OPAQUE"
    return GltfMaterial(factor, info, mode, float(material.get("alphaCutoff", 0.5)))


def image_index(gltf: GltfFile, info: dict[str, Any]) -> int:
    """Image of a `textureInfo`; its WebP version where there is one."""
    texture = gltf.entry("textures", info["index"])
    extensions = texture.get("extensions", {})
    index = extensions.get("EXT_texture_webp", {}).get("source", texture.get("source"))
    if index is None:
        other = ", ".join(extensions) or "no source"
        raise InputError(
            f"texture {info['index']} of {gltf.path} has no image that is read ({other}): "
            f"export it with PNG, JPEG or WebP textures"
        )
    return index


def transformed_uvs(
    info: dict[str, Any], attribute: Callable[[str], np.ndarray | None], count: int
) -> np.ndarray:
    """UVs [V, 2], v down, of the set that a `textureInfo` names, moved by KHR_texture_transform."""
    transform = info.get("extensions", {}).get(TEXTURE_TRANSFORM, {})
    texture_set = transform.get("texCoord", info.get("texCoord", 0))
    uvs = attribute(f"TEXCOORD_{texture_set}")
    if uvs is None:
        return np.zeros((count, 2))  # as viewers do: the whole surface shows one texel
    uvs = np.asarray(uvs, np.float64)
    angle = transform.get("rotation", 0.0)
    cos, sin = np.cos(angle), np.sin(angle)
    scaled = uvs * transform.get("scale", (1, 1))
    return scaled @ np.array([[cos, -sin], [sin, cos]]) + transform.get("offset", (0, 0))


def mirrors(gltf: GltfFile, info: dict[str, Any], uvs: np.ndarray) -> tuple[bool, bool]:
    """Whether the texture is mirrored beyond [0, 1] along u and v, and that shows."""
    sampler_index = gltf.entry("textures", info["index"]).get("sampler")
    sampler = {} if sampler_index is None else gltf.entry("samplers", sampler_index)
    beyond = (uvs.min(axis=0) < 0) | (uvs.max(axis=0) > 1)
    return (
        bool(beyond[0]) and sampler.get("wrapS") == MIRRORED_REPEAT,
        bool(beyond[1]) and sampler.get("wrapT") == MIRRORED_REPEAT,
    )


def with_mirror_images(texture: np.ndarray, along_u: bool, along_v: bool) -> np.ndarray:
    """A texture that repeats as `texture` repeats mirrored; v = 0 stays its lower edge."""
    if along_u:
        texture = np.concatenate([texture, texture[:, ::-1]], axis=1)
    if along_v:
        texture = np.concatenate([texture[::-1], texture], axis=0)
    return texture
