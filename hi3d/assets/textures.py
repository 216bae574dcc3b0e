"""Texture images of objects: where they lie, and as 8-bit RGBA of bounded size."""

import io
import os
import unicodedata
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

import numpy as np

from hi3d.errors import InputError

BLACK = 8 / 255
"""A base color below it in sRGB shows nothing: lossy images have no perfect black."""
MAX_TEXTURE_SIDE = 4096
"""Larger textures are reduced to this side."""
MAX_OBJECT_TEXELS = 8 * MAX_TEXTURE_SIDE**2
"""Of one object (512 MiB); with more, all its textures get half the side until they fit."""
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TGA", "TIFF", "GIF", "PPM", "DDS")
# Where exporters put textures, seen from the object's folder; the last is Google Scanned Objects.
TEXTURE_FOLDERS = (
    ".", "textures", "images", "../textures", "../images", "../materials/textures"
)  # fmt: skip
ENCODINGS = ("cp1252", "shift_jis", "gbk", "cp437")
"""Of file names in files that are no UTF-8."""


def asset_path(folder: Path, name: str, root: Path | None = None) -> Path | None:
    """The file `name` of an object in `folder`; None for names that leave the objects' folder.

    Names come from the object's file: percent escapes are decoded, backslashes are slashes.

    Args:
        folder: that the name is relative to.
        name: as the object's file has it.
        root: a folder around `folder`, of the collection, that `..` may lead to; by default
            `folder` itself.
    """
    clean = PurePosixPath(unquote(name).replace("\\", "/"))
    if clean.is_absolute() or "\0" in name:
        return None
    if ".." not in clean.parts:
        return folder / clean
    path = Path(os.path.normpath(folder.absolute() / clean))
    return path if path.is_relative_to(_around(folder, root) or folder.absolute()) else None


def _around(folder: Path, root: Path | None) -> Path | None:
    """`root` if `folder` lies in it."""
    inside = root is not None and folder.absolute().is_relative_to(root.absolute())
    return root.absolute() if root is not None and inside else None


def texture_root(folder: Path, root: Path | None = None) -> Path:
    """The folder that textures of an object in `folder` may lie in.

    It is `root`, of the collection. Where that is not known it is the folder above, since some
    collections keep models and images in folders side by side.
    """
    folder = folder.absolute()
    above = folder if folder.parent == Path(folder.anchor) else folder.parent
    return _around(folder, root) or above


def needed_texture(
    folders: Sequence[Path], name: str, path: Path, root: Path | None = None
) -> Path:
    """The texture that the object file `path` calls `name`; see `find_texture`.

    Raises:
        InputError: it is missing, or lies outside the folder of the objects.
    """
    for folder in folders:
        if found := find_texture(folder, name, root):
            return found
    inside = texture_root(folders[0], root)
    if asset_path(folders[0], name, inside) is None and ".." in name:
        raise InputError(f"texture {name} of {path} leaves its folder {inside}: move it there")
    raise InputError(f"texture {name} of {path} is missing: put it beside the file")


def find_texture(folder: Path, name: str, root: Path | None = None) -> Path | None:
    """The texture that an object in `folder` calls `name`, in upper or lower case.

    Names that leave the objects' folder or are not there (`C:\\art\\wood.png`) are looked up by
    their last part in the folder and in the usual texture folders around it.

    Args:
        folder: that the name is relative to.
        name: as the object's file has it; in any of `ENCODINGS`.
        root: of `texture_root`.
    """
    for spelling in spellings(name):
        path = asset_path(folder, spelling, texture_root(folder, root))
        if path is not None and (found := in_any_case(path)):
            return found
    for spelling in spellings(name):
        last = PurePosixPath(unquote(spelling).replace("\\", "/")).name
        for place in TEXTURE_FOLDERS if last.strip(".") else ():
            if found := in_any_case(folder / place / last):
                return found
    return None


def spellings(name: str) -> list[str]:
    """A name as it is, and as it reads if it was taken for Latin-1 and is not."""
    found = [name]
    for encoding in ENCODINGS:
        with suppress(UnicodeError):
            found.append(name.encode("latin-1").decode(encoding))
    return list(dict.fromkeys(found))


def in_any_case(path: Path) -> Path | None:
    """The file `path`, or one that differs in upper and lower case or in composed letters."""
    if path.is_file():
        return path
    names: list[str] = []
    while not path.is_dir():
        names.insert(0, path.name)
        if path.parent == path:
            return None
        path = path.parent
    for name in names:
        inside = sorted(path.iterdir()) if path.is_dir() else []
        match = next((entry for entry in inside if _folded(entry.name) == _folded(name)), None)
        if match is None:
            return None
        path = match
    return path if path.is_file() else None


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def decode_textures(
    encoded: Mapping[str, bytes], max_side: int = MAX_TEXTURE_SIDE
) -> dict[str, np.ndarray]:
    """All textures of one object as arrays.

    Args:
        encoded: content of image files by name, which errors show.
        max_side: of a texture, in texels.

    Returns:
        [H, W, 4] uint8 by name: RGBA as stored in the file (sRGB, alpha not premultiplied).

    Raises:
        InputError: an image is broken, of an unknown format, or has over 179 million pixels.
    """
    images = {name: _opened(name, content) for name, content in encoded.items()}
    side = max_side
    while sum(np.prod(_fitted(i.size, side)) for i in images.values()) > MAX_OBJECT_TEXELS:
        side //= 2
    return {name: image_rgba(name, image, side) for name, image in images.items()}


def with_alpha(texture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """`texture` with its alpha from `mask`: the mask's alpha where it varies, else its brightness.

    Args:
        texture: [H, W, 4] uint8.
        mask: [H', W', 4] uint8.
    """
    from PIL import Image

    channel = mask[..., 3]
    if channel.min() == 255:
        channel = np.asarray(Image.fromarray(mask[..., :3]).convert("L"))
    if channel.shape != texture.shape[:2]:
        size = texture.shape[1], texture.shape[0]
        channel = np.asarray(Image.fromarray(channel).resize(size, Image.Resampling.BILINEAR))
    return np.concatenate([texture[..., :3], channel[..., None]], axis=2)


def _opened(name: str, content: bytes) -> Any:
    """A PIL image whose header was read."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(io.BytesIO(content), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise InputError(
            f"texture {name} has too many pixels ({error}): make it smaller"
        ) from error
    except Exception as error:
        raise InputError(
            f"texture {name} is no image that can be read: replace it with a PNG or JPEG"
        ) from error


def _fitted(size: tuple[int, int], max_side: int) -> tuple[int, int]:
    """Width and height reduced, at the same aspect, so that the longer is at most `max_side`."""
    factor = min(1.0, max_side / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def image_rgba(name: str, image: Any, max_side: int = MAX_TEXTURE_SIDE) -> np.ndarray:
    """An opened PIL image of any mode as [H, W, 4] uint8, reduced to `max_side`.

    Raises:
        InputError: the image is broken; the error shows `name`.
    """
    from PIL import Image

    size = _fitted(image.size, max_side)
    try:
        image.draft("RGB", size)  # a large JPEG is decoded at the nearest larger 1/2^n
        image.load()
    except Exception as error:
        cause = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"texture {name} is broken ({cause}): replace it") from error
    if image.mode == "F":
        image = Image.fromarray((np.nan_to_num(np.asarray(image)).clip(0, 1) * 255).astype("u1"))
    elif image.mode.startswith("I"):  # 16-bit gray, which PIL's own conversion would clip at 255
        grey = np.asarray(image).astype(np.int64).clip(0, 65535)
        image = Image.fromarray(((grey + 128) // 257).astype(np.uint8))
    if image.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        image = image.convert("RGB")
    image = image.convert("RGBA")
    if image.size != size:
        # Reduced together, RGB would be weighted by alpha, and black where an OPAQUE material has
        # alpha 0.
        alpha = image.getchannel("A").resize(size, Image.Resampling.BOX)
        image = image.convert("RGB").resize(size, Image.Resampling.BOX)
        image.putalpha(alpha)
    return np.asarray(image)
