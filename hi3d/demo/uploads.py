"""A look at what a visitor sends, before anything decodes it."""

import shutil
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from hi3d.demo.settings import LimitsConfig
from hi3d.errors import InputError
from hi3d.photo.formats import enable_heic, is_heic

FORMATS = ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "AVIF"]
"""Pillow knows more, some by programs of the system that it calls."""
NAME = "photo"
"""Of every visitor's photo: the name that it was sent with is never used."""


def take_upload(sent: str | Path, folder: Path, limits: LimitsConfig) -> Path:
    """Copy an upload to the visitor's folder once its header is that of a photo.

    Args:
        sent: the file as the server received it.
        folder: of the visitor.
        limits: of its size.

    Returns:
        The copy.

    Raises:
        InputError: it is no photo, or too large, or gone.
    """
    sent = Path(sent)
    if not sent.is_file():
        raise InputError("the photo is no longer here: upload it again")
    if sent.stat().st_size > limits.upload_mb * 1e6:
        raise InputError(f"the photo has more than {limits.upload_mb} MB: send a smaller file")
    check_header(sent, limits.megapixels)
    kept = folder / NAME
    shutil.copyfile(sent, kept)
    return kept


def check_header(path: Path, megapixels: float) -> None:
    """Raise where a file's header is of no photo, or of one that is too large.

    Raises:
        InputError: it is.
    """
    formats = list(FORMATS)
    if is_heic(path):
        enable_heic(path)
        formats.append("HEIF")
    try:
        with Image.open(path, formats=formats) as image:
            width, height = image.size
    except UnidentifiedImageError as error:
        raise InputError(
            "the photo is not a readable image: give a PNG, JPEG or WebP file"
        ) from error
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise InputError("the photo is damaged or too large: give another file") from error
    if width * height > megapixels * 1e6:
        raise InputError(
            f"the photo is {width}x{height} pixels, more than {megapixels} megapixels: reduce it"
        )
