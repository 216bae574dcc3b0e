"""What files of photos bring along: color profiles, and HEIC."""

import io
from pathlib import Path

from PIL import Image, ImageCms

from hi3d.errors import InputError

HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
"""In the ftyp box (ISO/IEC 23008-12, Section 10); AVIF has others, which Pillow reads."""


def to_srgb(image: Image.Image) -> Image.Image:
    """An image in sRGB, by the color profile that it carries; without one it is sRGB already.

    Args:
        image: of any mode; profiles of RGB, CMYK and gray are followed, broken ones ignored.
    """
    content = image.info.get("icc_profile")
    if not content or image.mode not in ("RGB", "RGBA", "CMYK", "L"):
        return image
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(content))
        if "srgb" in (ImageCms.getProfileDescription(profile) or "").lower():
            return image
        opaque = image.convert("RGB") if image.mode == "RGBA" else image
        srgb = ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(opaque, profile, srgb, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image
    assert converted is not None
    if image.mode == "RGBA":
        converted.putalpha(image.getchannel("A"))
    elif "transparency" in image.info and image.mode != "RGB":
        return image
    return converted


def is_heic(path: Path) -> bool:
    """Whether a file's header is that of HEIC."""
    try:
        with path.open("rb") as file:
            header = file.read(12)
    except OSError:
        return False
    return header[4:8] == b"ftyp" and header[8:12] in HEIC_BRANDS


def enable_heic(path: Path) -> None:
    """Let Pillow read HEIC.

    Raises:
        InputError: the library for it is not installed.
    """
    try:
        from pillow_heif import register_heif_opener
    except ImportError as error:
        raise InputError(
            f"{path} is a HEIC photo, which needs pillow-heif: pip install pillow-heif, or save "
            "the photo as JPEG"
        ) from error
    register_heif_opener()
