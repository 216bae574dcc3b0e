"""Materials of MTL files, as far as they decide the unlit base color."""

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hi3d.assets.textures import asset_path, in_any_case, spellings, texture_root
from hi3d.assets.wavefront.text import read_text
from hi3d.errors import InputError

NUMBERS = {"-s": 3, "-o": 3, "-t": 3, "-mm": 2, "-bm": 1, "-boost": 1, "-texres": 1}
"""Options of texture maps with the most numbers that follow; fewer may."""
WORDS = ("-clamp", "-blendu", "-blendv", "-cc", "-imfchan", "-type", "-colorspace")
"""Options that one word follows."""


@dataclass(frozen=True)
class TextureMap:
    """A texture that a material names, with its options."""

    name: str
    folder: Path
    """Of the MTL file."""
    scale: tuple[float, float] = (1.0, 1.0)
    """`-s`: of the texture coordinates, before `offset` is added."""
    offset: tuple[float, float] = (0.0, 0.0)
    """`-o`"""
    clamped: bool = False
    """`-clamp on`: the texture does not repeat."""


@dataclass
class MtlMaterial:
    """One `newmtl`."""

    diffuse: np.ndarray = field(default_factory=lambda: np.zeros(3))
    """Kd."""
    emission: np.ndarray = field(default_factory=lambda: np.zeros(3))
    """Ke."""
    dissolve: float = 1.0
    """d, or 1 - Tr."""
    diffuse_map: TextureMap | None = None
    """map_Kd."""
    alpha_map: TextureMap | None = None
    """map_d."""
    emission_map: TextureMap | None = None
    """map_Ke."""


def find_materials(
    path: Path, libraries: list[str], root: Path | None = None
) -> tuple[dict[str, MtlMaterial], list[str]]:
    """All materials of the MTL files that an OBJ file names, and the names that are missing.

    Names may hold spaces, and may differ from the file's in case. Where none is found, the MTL file
    of the OBJ's own name counts.

    Args:
        path: of the OBJ file.
        libraries: what its `mtllib` lines say.
        root: of `hi3d.assets.textures.texture_root`.

    Raises:
        InputError: an MTL file lies outside the folder of the objects.
    """
    files: list[Path] = []
    missing: list[str] = []
    for line in libraries:
        words = line.split()
        while words:
            ends = (n for n in range(len(words), 0, -1) if _library(path, words[:n], root))
            end = next(ends, 0)
            found = _library(path, words[:end], root) if end else None
            if found is None:
                missing.append(line if len(words) == len(line.split()) else words[0])
                break
            files.append(found)
            words = words[end:]
    namesake = in_any_case(path.with_suffix(".mtl"))
    if libraries and not files and namesake is not None:
        files, missing = [namesake], []
    materials: dict[str, MtlMaterial] = {}
    for file in dict.fromkeys(files):
        materials = read_materials(file) | materials
    return materials, missing


def _library(path: Path, words: list[str], root: Path | None) -> Path | None:
    """The MTL file whose name is these words."""
    name = " ".join(words).strip("\"'")
    inside = texture_root(path.parent, root)
    for spelling in spellings(name):
        place = asset_path(path.parent, spelling, inside)
        if place is None and ".." in name and not re.match(r"/|\\|\w:", name):
            raise InputError(
                f"material file {name} of {path} leaves its folder {inside}: move it there"
            )
        last = re.split(r"[/\\]", spelling)[-1]
        for candidate in (place, path.parent / last):
            if candidate is not None and last.strip(".") and (found := in_any_case(candidate)):
                return found
    return None


def read_materials(path: Path) -> dict[str, MtlMaterial]:
    """Materials of an MTL file by name."""
    materials: dict[str, MtlMaterial] = {}
    material = MtlMaterial()
    has_dissolve = False
    for line in read_text(path).splitlines():
        key, _, rest = line.strip().replace("\t", " ").partition(" ")
        key, rest = key.lower(), rest.strip()
        if key == "newmtl":
            material, has_dissolve = materials.setdefault(rest, MtlMaterial()), False
        elif key == "kd":
            material.diffuse = _rgb(rest, material.diffuse)
        elif key == "ke":
            material.emission = _rgb(rest, material.emission)
        elif key in ("d", "tr"):
            numbers = _numbers(rest.split()[-1:])
            if numbers and (key == "d" or not has_dissolve):
                material.dissolve = numbers[0] if key == "d" else 1 - numbers[0]
                has_dissolve = key == "d"
        elif key in MAPS and rest:
            setattr(material, MAPS[key], parse_map(rest, path.parent))
    return materials


MAPS = {"map_kd": "diffuse_map", "map_d": "alpha_map", "map_ke": "emission_map"}


def parse_map(text: str, folder: Path) -> TextureMap | None:
    """A map statement without its key: options, then the file's name, which may hold spaces.

    Args:
        text: such as `-s 2 2 -clamp on wood.png`.
        folder: of the MTL file.
    """
    scale, offset, clamped = [1.0, 1.0], [0.0, 0.0], False
    words = re.findall(r"\S+\s*", text)
    while words:
        key = words[0].strip().lower()
        if key in NUMBERS:
            # One word at least is left for the name, which may be a number.
            numbers = _numbers(words[1 : min(1 + NUMBERS[key], len(words) - 1)])
            if key in ("-s", "-o"):
                into = scale if key == "-s" else offset
                into[: min(len(numbers), 2)] = numbers[:2]
            words = words[1 + len(numbers) :]
        elif key in WORDS:
            if key == "-clamp":
                clamped = "".join(words[1:2]).strip().lower() == "on"
            words = words[2:]
        else:
            break
    name = "".join(words).split(" #")[0].strip().strip("\"'")
    if not name:
        return None
    return TextureMap(name, folder, (scale[0], scale[1]), (offset[0], offset[1]), clamped)


def _rgb(text: str, otherwise: np.ndarray) -> np.ndarray:
    """Three numbers, or one for all."""
    numbers = _numbers(text.split()[:3])
    if len(numbers) == 3:
        return np.array(numbers).clip(0, 1)
    return np.full(3, numbers[0]).clip(0, 1) if numbers else otherwise


def _numbers(words: list[str]) -> list[float]:
    """The leading words that are finite numbers."""
    numbers = []
    for word in words:
        try:
            number = float(word)
        except ValueError:
            break
        if not np.isfinite(number):
            break
        numbers.append(number)
    return numbers
