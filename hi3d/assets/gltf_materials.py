"""Materials of glTF 2.0, as far as they decide the unlit base color."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from hi3d.assets.gltf_file import CONVERTERS, GltfFile, converter
from hi3d.assets.parts import LIGHT_GREY, AlphaMode, Sampler
from hi3d.assets.textures import BLACK, decode_textures
from hi3d.color import linear_from_srgb, srgb_from_linear
from hi3d.errors import InputError

REPEAT, CLAMP_TO_EDGE, MIRRORED_REPEAT, NEAREST = 10497, 33071, 33648, 9728
EMISSIVE_STRENGTH = "KHR_materials_emissive_strength"
SPECULAR_GLOSSINESS = "KHR_materials_pbrSpecularGlossiness"
TEXTURE_TRANSFORM = "KHR_texture_transform"


@dataclass(frozen=True)
class GltfMaterial:
    """The unlit look of a glTF material."""

    factor: np.ndarray  # [4]
    """Base color in linear light, and alpha."""
    texture_info: dict[str, Any] | None = None
    """The `textureInfo` of the base color."""
    alpha_mode: AlphaMode = "OPAQUE"
    alpha_cutoff: float = 0.5
    emissive: bool = False
    """Whether the color is the emission, which vertex colors do not change."""
    gain: float = 1.0
    """What the texture is multiplied by in linear light, beside `factor`."""
    single_sided: bool = False
    """Whether back sides are to be left out."""


def read_material(gltf: GltfFile, index: int | None, has_colors: bool) -> GltfMaterial:
    """Base color, or diffuse color, or (where those are black) emission of a material."""
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
    emission = np.array(material.get("emissiveFactor", (0, 0, 0)), np.float64)
    emission = (emission * extensions.get(EMISSIVE_STRENGTH, {}).get("emissiveStrength", 1)).clip(0)
    emissive = emission.any() and _is_black(gltf, factor, info)
    gain = 1.0
    if emissive:
        info = material.get("emissiveTexture")
        gain = max(1.0, float(emission.max())) if info is not None else 1.0
        factor[:3] = (emission / gain).clip(0, 1)
    mode = material.get("alphaMode", "OPAQUE")
    if mode not in ("OPAQUE", "MASK", "BLEND"):
        mode = "OPAQUE"
    return GltfMaterial(
        factor,
        info,
        mode,
        float(material.get("alphaCutoff", 0.5)),
        bool(emissive),
        gain,
        not material.get("doubleSided", False),
    )


def _is_black(gltf: GltfFile, factor: np.ndarray, info: dict[str, Any] | None) -> bool:
    """Whether a base color shows nothing: its factor or all of its texture is black."""
    if factor[:3].max() < BLACK / 12.92:  # the linear foot of the sRGB curve
        return True
    if info is None:
        return False
    index = image_index(gltf, info)
    if index not in gltf.brightest:
        label, content = gltf.image(index)
        gltf.brightest[index] = int(decode_textures({label: content})[label][..., :3].max())
    return gltf.brightest[index] < 255 * BLACK


def image_index(gltf: GltfFile, info: dict[str, Any]) -> int:
    """Image of a `textureInfo`; its WebP version where there is one."""
    texture = gltf.entry("textures", info["index"])
    extensions = texture.get("extensions", {})
    index = extensions.get("EXT_texture_webp", {}).get("source", texture.get("source"))
    if index is None:
        other = next(iter(extensions), "no source")
        remedy = "export it with PNG, JPEG or WebP textures"
        if other in CONVERTERS:
            remedy = converter(other, gltf.path)
        raise InputError(
            f"texture {info['index']} of {gltf.path} has no image that is read ({other}): {remedy}"
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


def read_sampler(
    gltf: GltfFile, info: dict[str, Any], uvs: np.ndarray
) -> tuple[Sampler, tuple[bool, bool]]:
    """How a texture is read, and whether it is mirrored beyond [0, 1] along u and v.

    A mirrored texture within [0, 1] is as good as clamped.
    """
    sampler_index = gltf.entry("textures", info["index"]).get("sampler")
    sampler = {} if sampler_index is None else gltf.entry("samplers", sampler_index)
    beyond = (uvs.min(axis=0) < 0) | (uvs.max(axis=0) > 1)
    wraps = sampler.get("wrapS", REPEAT), sampler.get("wrapT", REPEAT)
    mirrored = [wraps[axis] == MIRRORED_REPEAT and bool(beyond[axis]) for axis in (0, 1)]
    clamped = [
        wraps[axis] == CLAMP_TO_EDGE or (wraps[axis] == MIRRORED_REPEAT and not mirrored[axis])
        for axis in (0, 1)
    ]
    nearest = sampler.get("magFilter") == NEAREST
    return Sampler((clamped[0], clamped[1]), nearest), (mirrored[0], mirrored[1])


def brightened(texture: np.ndarray, gain: float) -> np.ndarray:
    """A texture multiplied in linear light, and clipped. [H, W, 4] uint8"""
    if gain == 1:
        return texture
    linear = linear_from_srgb(np.arange(256, dtype=np.float32)[:, None] / 255) * gain
    curve = (srgb_from_linear(linear.clip(0, 1))[:, 0] * 255).round().astype(np.uint8)
    return np.concatenate([curve[texture[..., :3]], texture[..., 3:]], axis=2)


def with_mirror_images(texture: np.ndarray, along_u: bool, along_v: bool) -> np.ndarray:
    """A texture that repeats as `texture` repeats mirrored; v = 0 stays its lower edge."""
    if along_u:
        texture = np.concatenate([texture, texture[:, ::-1]], axis=1)
    if along_v:
        texture = np.concatenate([texture[::-1], texture], axis=0)
    return texture
