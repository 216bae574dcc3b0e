"""What parts of an OBJ file look like, from its materials and their textures."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hi3d.assets.parts import LIGHT_GREY, REPEATED, AlphaMode, Sampler
from hi3d.assets.textures import BLACK, decode_textures, find_texture, needed_texture, with_alpha
from hi3d.assets.wavefront.materials import MtlMaterial, TextureMap

SOFT_SHARE = 0.2
"""A texture blends where more of its texels are neither opaque nor clear; else it is a cut-out."""


@dataclass(frozen=True)
class Look:
    """The unlit look of the triangles of one material."""

    rgb: np.ndarray  # [3]
    """Base color in sRGB."""
    alpha: float
    alpha_mode: AlphaMode
    texture: np.ndarray | None = None  # [H, W, 4] uint8
    uv_scale: tuple[float, float] = (1.0, 1.0)
    uv_offset: tuple[float, float] = (0.0, 0.0)
    sampler: Sampler = REPEATED


@dataclass
class _Maps:
    """The files of the maps that one material uses."""

    diffuse: Path | None = None
    alpha: Path | None = None
    emission: Path | None = None

    def __iter__(self) -> Iterator[Path]:
        return (file for file in (self.diffuse, self.alpha, self.emission) if file is not None)


def scanned_object_folder(path: Path) -> Path | None:
    """The object's folder if `path` is `<folder>/meshes/*.obj` beside `materials/textures`.

    So Google Scanned Objects are laid out; their objects stand z up.
    """
    if path.suffix.lower() != ".obj" or path.absolute().parent.name != "meshes":
        return None
    folder = path.absolute().parents[1]
    return folder if (folder / "materials" / "textures").is_dir() else None


def scanned_texture(path: Path) -> Path | None:
    """The one texture of a scanned object."""
    folder = scanned_object_folder(path)
    return folder and find_texture(folder / "materials" / "textures", "texture.png")


def looks_of_materials(
    path: Path,
    materials: dict[int, MtlMaterial | None],
    with_uvs: set[int],
    max_texture_side: int,
    root: Path | None = None,
) -> dict[int, Look]:
    """The look of each material that triangles have.

    Args:
        path: of the OBJ file.
        materials: by index; None where there is none.
        with_uvs: those of them whose faces have texture coordinates; others take no texture.
        max_texture_side: larger textures are reduced to it, in texels.
        root: of `hi3d.assets.textures.texture_root`.

    Raises:
        InputError: a texture is missing or broken.
    """
    scanned = scanned_texture(path)
    maps = {index: _Maps() for index in materials}
    for index, material in materials.items():
        if material is not None and index in with_uvs:
            maps[index] = _maps(path, material, scanned is not None, root)
    if scanned is not None and not any(entry.diffuse for entry in maps.values()):
        for index in with_uvs:
            maps[index].diffuse = scanned
    files = {file for entry in maps.values() for file in entry}
    textures = decode_textures({str(file): file.read_bytes() for file in files}, max_texture_side)
    known = [material for material in materials.values() if material is not None]
    all_clear = all(material.dissolve <= 0 for material in known)  # meant as opaque
    joined: dict[tuple, np.ndarray] = {}
    looks = {}
    for index, material in materials.items():
        if material is None and maps[index].diffuse is None:
            looks[index] = Look(LIGHT_GREY[:3], 1.0, "OPAQUE")
        else:
            material = material or MtlMaterial()
            if all_clear:
                material = replace(material, dissolve=1.0)
            looks[index] = _look(material, maps[index], textures, joined)
    return looks


def _maps(path: Path, material: MtlMaterial, optional: bool, root: Path | None) -> _Maps:
    """The files of a material's maps; that of the emission is not missed."""

    def file(entry: TextureMap | None, needed: bool) -> Path | None:
        if entry is None:
            return None
        folders = [entry.folder, path.parent]
        if needed:
            return needed_texture(folders, entry.name, path, root)
        return next(filter(None, (find_texture(f, entry.name, root) for f in folders)), None)

    return _Maps(
        file(material.diffuse_map, not optional),
        file(material.alpha_map, not optional),
        file(material.emission_map, False),
    )


def _look(
    material: MtlMaterial,
    maps: _Maps,
    textures: dict[str, np.ndarray],
    joined: dict[tuple, np.ndarray],
) -> Look:
    """The look of a material.

    Args:
        joined: textures with the alpha of others, by the files of both; added to.
    """
    alpha = min(max(material.dissolve, 0.0), 1.0)
    alpha_mode: AlphaMode = "BLEND" if alpha < 1 else "OPAQUE"
    rgb, color_map, color_file = material.diffuse, material.diffuse_map, maps.diffuse
    if color_file is None:
        black = material.diffuse_map is None and rgb.max() < BLACK
    else:
        rgb, black = np.ones(3), textures[str(color_file)][..., :3].max() < 255 * BLACK
    if black and (material.emission.any() or maps.emission is not None):
        rgb, color_map, color_file = material.emission, material.emission_map, maps.emission
        rgb = np.ones(3) if color_file is not None else rgb
    if color_file is None and maps.alpha is None:
        return Look(rgb, alpha, alpha_mode)
    key = color_file, maps.alpha
    if key not in joined:
        joined[key] = _texture(textures, *key)
    if maps.alpha is not None and alpha == 1:
        soft = (joined[key][..., 3] - np.uint8(16) < 224).mean()
        alpha_mode = "BLEND" if soft > SOFT_SHARE else "MASK"
    used = (color_map if color_file is not None else material.alpha_map) or TextureMap("", Path())
    sampler = Sampler((used.clamped, used.clamped))
    return Look(rgb, alpha, alpha_mode, joined[key], used.scale, used.offset, sampler)


def _texture(textures: dict[str, np.ndarray], color: Path | None, mask: Path | None) -> np.ndarray:
    """RGB of one file (white without) and alpha of `map_d` (opaque without). [H, W, 4] uint8"""
    if color is None:
        white = np.full_like(textures[str(mask)], 255)
        return with_alpha(white, textures[str(mask)])
    if mask is None:
        return textures[str(color)]
    return with_alpha(textures[str(color)], textures[str(mask)])
