"""Texture images of every sort, made with PIL from known values."""

import io

import numpy as np
import pytest
from PIL import Image

from hi3d.assets import textures
from hi3d.assets.textures import asset_path, decode_textures, with_alpha
from hi3d.errors import InputError


def encoded(image, kind="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def decoded(image, kind="PNG", max_side=4096, **options):
    return decode_textures({"t": encoded(image, kind, **options)}, max_side)["t"]


def test_grey_palette_and_16_bit_images():
    assert decoded(Image.new("L", (3, 1), 77))[0, 0].tolist() == [77, 77, 77, 255]
    assert decoded(Image.new("LA", (1, 1), (77, 5)))[0, 0].tolist() == [77, 77, 77, 5]
    assert decoded(Image.new("1", (1, 1), 1))[0, 0].tolist() == [255, 255, 255, 255]
    sixteen = Image.fromarray(np.array([[0, 257 * 77, 65535]], np.uint16))
    assert decoded(sixteen)[0, :, 0].tolist() == [0, 77, 255]
    palette = Image.new("P", (2, 1))
    palette.putpalette([1, 2, 3, 4, 5, 6])
    palette.putpixel((1, 0), 1)
    assert decoded(palette, transparency=0)[0].tolist() == [[1, 2, 3, 0], [4, 5, 6, 255]]
    cmyk = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    red = decoded(cmyk, "JPEG", quality=100)[0, 0]
    np.testing.assert_allclose(red, [255, 0, 0, 255], atol=3)


def test_sizes_that_are_no_powers_of_two_stay():
    assert decoded(Image.new("RGB", (5, 3))).shape == (3, 5, 4)


def test_large_textures_are_averaged_down():
    image = np.zeros((4, 8, 4), np.uint8)
    image[:, ::2] = [100, 50, 200, 0]  # RGB counts where alpha is 0, for OPAQUE materials
    image[:, 1::2] = [50, 100, 0, 255]
    small = decoded(Image.fromarray(image), max_side=4)
    assert small.shape == (2, 4, 4)
    np.testing.assert_allclose(small, np.broadcast_to([75, 75, 100, 127.5], small.shape), atol=1)


def test_many_textures_share_a_budget(monkeypatch):
    monkeypatch.setattr(textures, "MAX_OBJECT_TEXELS", 100)
    image = encoded(Image.new("RGB", (16, 8)))
    both = decode_textures({"a": image, "b": image})
    assert [t.shape for t in both.values()] == [(4, 8, 4)] * 2  # 2 * 128 texels, then 2 * 32


def test_broken_images_are_one_clear_line(monkeypatch):
    rng = np.random.default_rng(0)
    noise = encoded(Image.fromarray(rng.integers(0, 256, (50, 50, 3), np.uint8)))
    for content, message in ((b"no image", "no image"), (noise[:1000], "wood is broken")):
        with pytest.raises(InputError, match=message) as caught:
            decode_textures({"wood": content})
        assert "\n" not in str(caught.value)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(InputError, match="too many pixels"):
        decode_textures({"wood": noise})


def test_alpha_of_a_mask_image():
    texture = np.full((2, 2, 4), 255, np.uint8)
    mask = np.zeros((2, 2, 4), np.uint8)
    mask[..., 3] = [[255, 10], [20, 30]]
    assert with_alpha(texture, mask)[..., 3].tolist() == [[255, 10], [20, 30]]
    mask[..., 3], mask[..., :3] = 255, 40
    assert (with_alpha(texture, mask)[..., 3] == 40).all()


@pytest.mark.parametrize(
    "name", ["../a.png", "/etc/a.png", "b/../../a.png", "..\\a.png", "%2e%2e/a"]
)
def test_names_do_not_leave_the_folder(tmp_path, name):
    assert asset_path(tmp_path, name) is None
    assert asset_path(tmp_path, "b\\a%20b.png") == tmp_path / "b" / "a b.png"
