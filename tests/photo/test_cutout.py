"""Transparency by evidence: specks, noise, layers, corners, several objects; profiles."""

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageDraw

from hi3d.errors import InputError
from hi3d.photo.cutout import is_cutout
from hi3d.photo.formats import to_srgb
from hi3d.photo.framing import ForegroundConfig, extract_foreground

CONFIG = ForegroundConfig(resolution=64, object_fraction=0.75)


def disc(alpha: float = 1.0, size: int = 100) -> np.ndarray:
    """A soft orange disc of radius 20 on transparent black [H, W, 4]."""
    y, x = np.mgrid[:size, :size]
    edge = np.clip(20.3 - np.hypot(x - size / 2, y - size / 2), 0, 1)
    pixels = np.zeros((size, size, 4), np.uint8)
    pixels[..., :3] = (230, 120, 30)
    pixels[..., 3] = np.round(255 * alpha * edge)
    return pixels


def framed(pixels: np.ndarray, config: ForegroundConfig = CONFIG) -> torch.Tensor:
    return extract_foreground(Image.fromarray(pixels), config).alpha[0]


def test_stray_pixels_and_noise_do_not_move_the_frame():
    clean = framed(disc())
    specks = disc()
    specks[2:4, 3:5, 3] = 255
    specks[95, 90, 3] = 200
    torch.testing.assert_close(framed(specks), clean)
    noisy = disc()
    noise = np.random.default_rng(0).integers(0, 20, (100, 100))
    noisy[..., 3] = np.maximum(noisy[..., 3], noise)
    assert (framed(noisy) - clean).abs().mean() < 0.01
    assert float(framed(noisy)[0].max()) == 0


def test_a_blot_far_from_the_object_does_not_move_the_frame_and_a_part_beside_it_stays():
    clean, blot, part = disc(), disc(), disc()
    blot[94:99, 93:98, 3] = 255  # 2 % of the disc
    part[48:53, 74:79, 3] = 255
    torch.testing.assert_close(framed(blot), framed(clean))
    assert (framed(part) - framed(clean)).abs().max() > 0.5


@pytest.mark.parametrize("alpha", [0.12, 0.45, 0.8])
def test_a_translucent_layer_is_scaled(alpha):
    layer = disc(alpha)
    layer[3, 3, 3] = 255  # a stray opaque pixel does not stop it
    assert (framed(layer) - framed(disc())).abs().max() < 0.06


def test_what_is_hardly_there_is_empty():
    with pytest.raises(InputError, match="fully transparent"):
        framed(disc(0.03))


def test_rounded_corners_are_no_cutout():
    corners = Image.new("L", (320, 240), 0)
    ImageDraw.Draw(corners).rounded_rectangle((0, 0, 319, 239), 30, fill=255)
    rounded = torch.from_numpy(np.array(corners))[None] / 255
    assert float((rounded < 0.5).float().mean()) > 0.009
    assert not is_cutout(rounded)
    hole = torch.ones(1, 100, 100)
    hole[:, 20:80, 20:80] = 0  # inside, joined to no border
    assert not is_cutout(hole)
    assert not is_cutout(torch.ones(1, 100, 100))
    assert is_cutout(torch.from_numpy(disc()[..., 3])[None] / 255)
    trimmed = torch.from_numpy(disc()[30:71, 30:71, 3])[None] / 255
    assert is_cutout(trimmed)


def test_two_objects_are_told_and_the_largest_can_be_kept(capsys):
    pixels = disc()
    pixels[5:25, 5:25, 3] = 255
    both = framed(pixels)
    message = " ".join(capsys.readouterr().err.split())
    assert "2 separate objects" in message
    assert "foreground.keep=largest" in message
    alone = framed(pixels, ForegroundConfig(64, 0.75, keep="largest"))
    assert capsys.readouterr().err == ""
    torch.testing.assert_close(alone, framed(disc()))
    assert (both - alone).abs().max() > 0.9


def wide_gamut_profile() -> bytes:
    """sRGB's profile with red and blue exchanged and no name that says sRGB."""
    content = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, blue = content.index(b"rXYZ"), content.index(b"bXYZ")
    content[red : red + 1], content[blue : blue + 1] = b"b", b"r"
    for name in (b"sRGB", "sRGB".encode("utf-16-be")):
        content = bytearray(bytes(content).replace(name, name[:-1] + b"X"))
    return bytes(content)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_color_profiles_are_followed(mode):
    image = Image.new(mode, (40, 40), (220, 40, 10, 128)[: len(mode)])
    image.info["icc_profile"] = wide_gamut_profile()
    pixel = to_srgb(image).getpixel((5, 5))
    assert np.abs(np.subtract(pixel, (10, 40, 220, 128)[: len(mode)])).max() <= 3
    image.info["icc_profile"] = b"broken"
    assert to_srgb(image) is image


def test_heic_is_named(tmp_path):
    path = tmp_path / "photo.heic"
    stream = io.BytesIO(b"\x00\x00\x00\x18ftypheic" + bytes(200))
    path.write_bytes(stream.getvalue())
    with pytest.raises(InputError, match=r"HEIC|not a readable image"):
        extract_foreground(path, CONFIG)
    if not heif_is_installed():
        with pytest.raises(InputError, match=r"HEIC photo.*pillow-heif.*JPEG"):
            extract_foreground(path, CONFIG)


def heif_is_installed() -> bool:
    try:
        import pillow_heif  # noqa: F401
    except ImportError:
        return False
    return True
