"""Photos of every kind become reference images, and what is no photo of an object is refused."""

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from hi3d.errors import InputError
from hi3d.photo import matting
from hi3d.photo.framing import ForegroundConfig, extract_foreground, frame_object, load_photo

CONFIG = ForegroundConfig(resolution=64, object_fraction=0.75)


def rgba_photo(width: int = 80, height: int = 60) -> Image.Image:
    """A red rectangle, x in [10, 50) and y in [20, 40), on transparent green."""
    pixels = np.zeros((height, width, 4), np.uint8)
    pixels[..., 1] = 255
    pixels[20:40, 10:50] = (255, 0, 0, 255)
    return Image.fromarray(pixels)


def scene_photo(size: int = 160) -> Image.Image:
    """A bright disc before a dark wall, which the matting network takes for an object."""
    y, x = np.mgrid[:size, :size] / size
    pixels = np.stack([60 + 40 * y, 70 + 30 * x, 80 + 20 * y], axis=-1)
    disc = (x - 0.5) ** 2 + (y - 0.5) ** 2 < 0.25**2
    pixels[disc] = (230, 120, 30)
    return Image.fromarray(pixels.astype(np.uint8))


def refused(photo, match: str, config: ForegroundConfig = CONFIG) -> None:
    with pytest.raises(InputError, match=match) as caught:
        extract_foreground(photo, config)
    assert "\n" not in str(caught.value)


def test_framing_centres_the_bounding_box_and_scales_its_longer_side():
    reference = extract_foreground(rgba_photo(), CONFIG)
    solid = reference.alpha[0] > 0.5
    columns, rows = solid.any(dim=0).nonzero()[:, 0], solid.any(dim=1).nonzero()[:, 0]
    # 40 x 20 pixels become 48 x 24 in a frame of 64: margins of 8 and 20.
    assert (columns[0], columns[-1] + 1) == (8, 56)
    assert (rows[0], rows[-1] + 1) == (20, 44)
    assert reference.rgb.shape == (3, 64, 64)
    torch.testing.assert_close(reference.rgb[:, 0, 0], torch.ones(3))
    torch.testing.assert_close(reference.rgb[:, 32, 32], torch.tensor([1.0, 0, 0]))


def test_color_under_zero_alpha_does_not_bleed():
    reference = extract_foreground(rgba_photo(), CONFIG)
    # Red over white has equal green and blue everywhere; the hidden green would raise green.
    torch.testing.assert_close(reference.rgb[1], reference.rgb[2], atol=1e-6, rtol=0)


def test_framing_an_object_cut_by_the_border():
    alpha = torch.zeros(1, 40, 40)
    alpha[:, :, :30] = 1
    reference = frame_object(torch.zeros(3, 40, 40), alpha, CONFIG)
    rows = (reference.alpha[0] > 0.5).any(dim=1).nonzero()[:, 0]
    assert (rows[0], rows[-1] + 1) == (8, 56)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_exif_orientation(tmp_path, orientation):
    upright = np.zeros((40, 64, 3), np.uint8)
    upright[:10, :10] = 255  # the top left corner is white
    # How many quarter turns counter-clockwise a camera held that way stores (EXIF 2.3, tag 274).
    turns = {1: 0, 3: 2, 6: 1, 8: 3}[orientation]
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / "turned.png"
    Image.fromarray(np.ascontiguousarray(np.rot90(upright, turns))).save(path, exif=exif)
    rgb, alpha = load_photo(path)
    assert rgb.shape == (3, 40, 64)
    assert alpha.min() == 1
    torch.testing.assert_close(rgb[0], torch.from_numpy(upright[..., 0] / 255.0).float())


def test_modes(tmp_path):
    """Every pixel format gives the same grey, and alpha where there is one."""
    grey = Image.new("L", (40, 40), 128)
    palette = Image.new("P", (40, 40), 1)
    palette.putpalette([0, 0, 0, 128, 128, 128])
    with_hole = palette.copy()
    with_hole.paste(0, (0, 0, 10, 40))
    cases = {
        "l.png": (grey, {}, False),
        "la.png": (Image.merge("LA", [grey, Image.new("L", (40, 40), 0)]), {}, True),
        "p.png": (palette, {}, False),
        "p_hole.png": (with_hole, {"transparency": 0}, True),
        "rgb_key.png": (Image.new("RGB", (40, 40), (9, 9, 9)), {"transparency": (9, 9, 9)}, True),
        "cmyk.tif": (Image.new("CMYK", (40, 40), (127, 127, 127, 0)), {}, False),
        "bit.png": (Image.new("1", (40, 40), 1), {}, False),
        "i16.png": (Image.fromarray(np.full((40, 40), 32896, np.uint16)), {}, False),
        "float.tif": (Image.fromarray(np.full((40, 40), 0.5, np.float32)), {}, False),
    }
    for name, (image, options, has_alpha) in cases.items():
        image.save(tmp_path / name, **options)
        rgb, alpha = load_photo(tmp_path / name)
        assert rgb.shape == (3, 40, 40), name
        assert (alpha.min() < 1) == has_alpha, name
        if name not in ("rgb_key.png", "bit.png"):
            assert abs(float(rgb[0, 0, 39]) - 128 / 255) < 0.01, name
    assert load_photo(tmp_path / "p_hole.png")[1][0, 0].tolist() == [0.0] * 10 + [1.0] * 30


def test_animation_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (40, 40), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert load_photo(tmp_path / "a.gif")[0][:, 20, 20].tolist() == [1.0, 0.0, 0.0]


def test_sixteen_bit_color(tmp_path):
    row = b"\x00" + struct.pack(">3H", 65535, 32896, 0) * 32
    chunks = [(b"IHDR", struct.pack(">2I5B", 32, 32, 16, 2, 0, 0, 0))]
    chunks += [(b"IDAT", zlib.compress(row * 32)), (b"IEND", b"")]
    write_png(tmp_path / "deep.png", chunks)
    rgb, _ = load_photo(tmp_path / "deep.png")
    torch.testing.assert_close(rgb[:, 5, 5], torch.tensor([1, 128 / 255, 0]), atol=1 / 255, rtol=0)


def test_refused_files(tmp_path):
    (tmp_path / "text.png").write_text("not an image")
    refused(tmp_path / "text.png", r"text.png is not a readable image: give a PNG")
    refused(tmp_path / "none.png", "no photo at .*none.png")
    refused(tmp_path, "no photo at")
    rgba_photo().save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:90])
    refused(tmp_path / "cut.png", "cut.png is not a readable image")
    Image.new("RGB", (10, 10)).save(tmp_path / "small.png")
    refused(tmp_path / "small.png", "10x10 pixels: give a photo of at least 32x32")


@pytest.mark.parametrize("side", [10_001, 20_000])
def test_huge_image_is_refused_by_its_header(tmp_path, side):
    # There are no pixels in the file: only the header can have been read.
    header = (b"IHDR", struct.pack(">2I5B", side, side, 8, 2, 0, 0, 0))
    write_png(tmp_path / "huge.png", [header, (b"IDAT", zlib.compress(b""))])
    refused(tmp_path / "huge.png", "more than 100 megapixels")


def test_nothing_to_see(tmp_path):
    refused(Image.new("RGBA", (64, 64), (255, 0, 0, 0)), "fully transparent")
    refused(Image.new("RGB", (64, 64), (90, 120, 80)), "one uniform color")
    refused(scene_photo(), "no transparent background", ForegroundConfig(matting="alpha"))


def test_background_only_is_refused(monkeypatch):
    monkeypatch.setattr(matting, "_run_network", lambda rgb, weights: torch.zeros_like(rgb[:1]))
    refused(scene_photo(), "no object stands out")


def test_weights(tmp_path):
    missing = ForegroundConfig(weights=str(tmp_path / "u2netp.onnx"))
    refused(scene_photo(), "no matting weights at .*u2netp.onnx: restore data/weights", missing)
    whole = matting.default_weights_path().read_bytes()
    (tmp_path / "u2netp.onnx").write_bytes(whole[: len(whole) // 2])
    refused(scene_photo(), "u2netp.onnx are damaged", missing)
    (tmp_path / "other.onnx").write_bytes(whole[:1000])
    refused(scene_photo(), "no ONNX net", ForegroundConfig(weights=str(tmp_path / "other.onnx")))


def test_network_finds_the_disc():
    rgb, _ = load_photo(scene_photo())
    alpha = matting.predict_matte(rgb, matting.default_weights_path())[0] > 0.5
    y, x = torch.meshgrid(torch.arange(160) / 160, torch.arange(160) / 160, indexing="ij")
    disc = (x - 0.5) ** 2 + (y - 0.5) ** 2 < 0.25**2
    assert (alpha & disc).sum() / (alpha | disc).sum() > 0.95


def test_white_background_is_keyed_and_enclosed_white_stays():
    pixels = np.full((80, 80, 3), 255, np.uint8)
    pixels[20:60, 20:60] = (200, 30, 30)
    pixels[30:50, 30:50] = 255
    rgb, _ = load_photo(Image.fromarray(pixels))
    alpha = matting.key_white_background(rgb)[0]
    assert alpha[40, 40] == 1
    assert alpha[25, 25] == 1
    assert alpha[10, 10] == 0
    assert int((alpha > 0.5).sum()) == 40 * 40


def test_foreground_color_at_a_mixed_edge():
    """Red before blue with a soft edge: the estimate is red, although half the edge is blue."""
    alpha = (torch.linspace(-3, 4, 64).clamp(0, 1)).expand(1, 64, 64)
    red, blue = torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 0, 1])
    rgb = alpha * red[:, None, None] + (1 - alpha) * blue[:, None, None]
    estimate = matting.estimate_foreground(rgb, alpha)
    edge = alpha.expand(3, -1, -1) > 0.3
    error = (estimate - red[:, None, None]).abs()[edge]
    assert error.max() < 0.2


def test_guided_filter_keeps_a_constant_and_follows_the_guide():
    guide = torch.zeros(3, 32, 32)
    guide[:, :, 16:] = 1
    constant = torch.full((1, 32, 32), 0.3)
    torch.testing.assert_close(matting.guided_filter(guide, constant, 4, 1e-4), constant)
    # A step two pixels off the guide's edge moves onto it.
    fitted = matting.guided_filter(
        guide, (torch.arange(32) >= 18).float().expand(1, 32, 32), 8, 1e-4
    )
    assert fitted[0, 16, 15] < 0.2
    assert fitted[0, 16, 16] > 0.5


def write_png(path, chunks) -> None:
    content = b"\x89PNG\r\n\x1a\n"
    for kind, data in chunks:
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        content += struct.pack(">I", len(data)) + kind + data + checksum
    path.write_bytes(content)
