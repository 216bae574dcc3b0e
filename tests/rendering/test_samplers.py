"""Clamped and hard texels, and parts with one side, in every backend."""

import os

import numpy as np
import pytest
import torch

from hi3d.assets.parts import ObjectPart, RenderObject, Sampler
from hi3d.cameras import Cameras
from hi3d.rendering.blender.backend import BlenderSettings
from hi3d.rendering.blender.process import BLENDER_VARIABLE
from hi3d.rendering.opengl import backend as opengl
from hi3d.rendering.rasterizer import render_views

NO_OPENGL = opengl.opengl_error()
needs_opengl = pytest.mark.skipif(bool(NO_OPENGL), reason=f"no OpenGL here: {NO_OPENGL}")
needs_blender = pytest.mark.skipif(
    not os.environ.get(BLENDER_VARIABLE), reason=f"{BLENDER_VARIABLE} names no Python with bpy"
)
backends = pytest.mark.parametrize(
    "backend",
    [
        pytest.param("moderngl", marks=needs_opengl),
        "embreex",
        pytest.param("cycles", marks=needs_blender),
    ],
)
RED, GREEN, BLUE, YELLOW = [255, 0, 0, 255], [0, 255, 0, 255], [0, 0, 255, 255], [255, 255, 0, 255]
TEXTURE = np.array([[RED, GREEN], [BLUE, YELLOW]], np.uint8)
CYCLES = BlenderSettings(samples=16, device="cpu")


def camera():
    """64x64 pixels that see x and y from -1 to 1 at z = 1, from there."""
    K = torch.tensor([[32.0, 0, 32], [0, 32, 32], [0, 0, 1]])
    return Cameras(torch.eye(4)[None], K[None], 64, 64)


def screen(z=1.0, front=True, uvs=(0.0, 1.0), **look):
    """A square that fills the image, with its front to the camera or not."""
    corners = np.array([[-z, -z, z], [z, -z, z], [z, z, z], [-z, z, z]], np.float32)
    faces = np.array([[0, 2, 1], [0, 3, 2]])
    low, high = uvs
    if "texture" in look:
        square = [[low, high], [high, high], [high, low], [low, low]]
        look["uvs"] = np.array(square, np.float32)
    color = np.array(look.pop("color", (1, 1, 1, 1)), np.float32)
    return ObjectPart(corners, faces if front else faces[:, ::-1], color, **look)


def picture(backend, *parts):
    rendered = render_views(RenderObject(parts), camera(), backend, cycles=CYCLES)
    return rendered.rgba8[0].numpy().astype(int), rendered.depth[0].numpy()


@backends
@pytest.mark.parametrize("mode", ["OPAQUE", "MASK"])
def test_textures_repeat_or_go_on_along_each_axis(backend, mode):
    """UVs from -1 to 2: each third of the image is one copy of the texture, 21.3 pixels wide."""
    look = {"texture": TEXTURE, "uvs": (-1.0, 2.0), "alpha_mode": mode}
    points = [5, 58]  # in the left texels of the first, and in the right ones of the last
    for clamped in [(False, False), (True, False), (False, True), (True, True)]:
        rgba, _ = picture(backend, screen(sampler=Sampler(clamped, nearest=True), **look))
        # Within the outer copies: left (or upper) texel at 5 and right (or lower) at 58 both ways,
        # but at 16 the repeated texture shows its other texel.
        u = [0, 0] if clamped[0] else [0, 1]
        v = [0, 0] if clamped[1] else [0, 1]
        found = rgba[np.ix_([5, 16], [5, 16])]
        expected = TEXTURE[np.ix_(v, u)]
        np.testing.assert_allclose(found, expected, atol=3)
        np.testing.assert_allclose(rgba[points[1], points[1]], YELLOW, atol=3)


@backends
def test_opposite_edges_do_not_bleed_into_clamped_textures(backend):
    """At the image's border a repeated texture is half its other edge."""
    rgba, _ = picture(backend, screen(texture=TEXTURE, sampler=Sampler((True, True))))
    np.testing.assert_allclose(rgba[0, 0], RED, atol=3)
    np.testing.assert_allclose(rgba[-1, -1], YELLOW, atol=3)
    rgba, _ = picture(backend, screen(texture=TEXTURE))
    assert rgba[0, 0, 1] > 60


@backends
@pytest.mark.parametrize("mode", ["OPAQUE", "MASK"])
def test_nearest_texels_have_hard_edges(backend, mode):
    look = {"texture": TEXTURE, "alpha_mode": mode}
    rgba, _ = picture(backend, screen(sampler=Sampler(nearest=True), **look))
    np.testing.assert_allclose(rgba, np.repeat(np.repeat(TEXTURE, 32, 0), 32, 1), atol=3)
    rgba, _ = picture(backend, screen(**look))
    assert 60 < rgba[10, 32, 0] < 240


@backends
@pytest.mark.parametrize("mode", ["OPAQUE", "MASK", "BLEND"])
@pytest.mark.parametrize("front", [True, False])
def test_single_sided_parts_show_from_the_front(backend, mode, front):
    near = screen(1.0, front, color=(1, 0, 0, 1), alpha_mode=mode, single_sided=True)
    rgba, depth = picture(backend, near, screen(2.0, color=(0, 0, 1, 1)))
    np.testing.assert_allclose(
        rgba[20:40, 20:40], np.broadcast_to(RED if front else BLUE, (20, 20, 4))
    )
    np.testing.assert_allclose(depth[20:40, 20:40], 1 if front else 2, atol=1e-4)
    rgba, depth = picture(backend, near)
    assert rgba[30, 30].tolist() == (RED if front else [255, 255, 255, 0])


@backends
@pytest.mark.parametrize("order", [1, -1])
def test_coincident_parts_with_one_side_each(backend, order):
    parts = [
        screen(1.0, True, color=(1, 0, 0, 1), single_sided=True),
        screen(1.0, False, color=(0, 0, 1, 1), single_sided=True),
    ]
    rgba, depth = picture(backend, *parts[::order])
    np.testing.assert_allclose(rgba[2:-2, 2:-2], np.broadcast_to(RED, (60, 60, 4)))
    np.testing.assert_allclose(depth[2:-2, 2:-2], 1, atol=1e-4)
