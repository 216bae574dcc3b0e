"""Rendered pixels against hand-computed projections, for both backends."""

import moderngl
import numpy as np
import pytest
import torch

from hi3d.assets.parts import ObjectPart, RenderObject
from hi3d.cameras import Cameras, orbit_cameras
from hi3d.color import linear_from_srgb, srgb_from_linear
from hi3d.errors import InputError
from hi3d.rendering import rasterizer
from hi3d.rendering.opengl import backend as opengl
from hi3d.rendering.rasterizer import render_views

NO_OPENGL = opengl.opengl_error()
needs_opengl = pytest.mark.skipif(bool(NO_OPENGL), reason=f"no OpenGL here: {NO_OPENGL}")
backends = pytest.mark.parametrize(
    "backend", [pytest.param("moderngl", marks=needs_opengl), "embreex"]
)
RED, BLUE = (1.0, 0.0, 0.0, 1.0), (0.0, 0.0, 1.0, 1.0)


def camera(viewmat=None):
    """16x12 pixels, focal length 8, principal point (5, 7): u = 8 x/z + 5, v = 8 y/z + 7."""
    K = torch.tensor([[8.0, 0, 5], [0, 8, 7], [0, 0, 1]])
    viewmat = torch.eye(4) if viewmat is None else viewmat
    return Cameras(viewmat[None], K[None], 16, 12)


def quad(x, y, z, color, flipped=False, **look):
    """A rectangle at constant z of the identity camera; uv (0, 1) is its upper left corner."""
    corners = [[x[0], y[0], z], [x[1], y[0], z], [x[1], y[1], z], [x[0], y[1], z]]
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    if "texture" in look:
        look["uvs"] = np.array([[0, 1], [1, 1], [1, 0], [0, 0]], np.float32)
    return ObjectPart(
        np.array(corners, np.float32),
        faces[:, ::-1] if flipped else faces,
        np.array(color, np.float32),
        **look,
    )


def tetrahedron(centre, size, color):
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], np.float32)
    faces = np.array([[0, 1, 2], [0, 3, 1], [0, 2, 3], [1, 3, 2]])
    vertices = (np.array(centre) + size * corners).astype(np.float32)
    return ObjectPart(vertices, faces, np.array(color, np.float32))


def octahedron(centre, size, color):
    corners = np.concatenate([np.eye(3), -np.eye(3)])
    faces = np.array([[x, y, z] for x in (0, 3) for y in (1, 4) for z in (2, 5)])
    vertices = (np.array(centre) + size * corners).astype(np.float32)
    return ObjectPart(vertices, faces, np.array(color, np.float32))


@backends
@pytest.mark.parametrize("flipped", [False, True])
def test_quad_covers_exactly_its_pixels(backend, flipped):
    # u = 4 x + 5 covers [3, 6], v = 4 y + 7 covers [3, 9].
    part = quad((-0.5, 0.25), (-1.0, 0.5), 2.0, RED, flipped=flipped)
    rendered = render_views(RenderObject((part,)), camera(), backend)
    expected = torch.zeros(12, 16)
    expected[3:9, 3:6] = 1
    torch.testing.assert_close(rendered.alpha[0, 0], expected)
    torch.testing.assert_close(rendered.depth[0], 2 * expected, atol=1e-5, rtol=0)
    white = torch.ones(12, 16)
    torch.testing.assert_close(rendered.rgb[0], torch.stack([white, 1 - expected, 1 - expected]))
    assert rendered.backend == backend
    assert rendered.views.rgb is rendered.rgb


@backends
def test_half_covered_pixels_are_half_white(backend):
    # u covers [3, 6.5]: column 6 is half covered; a pixel centre on the edge has no safe depth.
    part = quad((-0.5, 0.375), (-1.0, 0.5), 2.0, (0, 0, 0, 1))
    rendered = render_views(RenderObject((part,)), camera(), backend)
    torch.testing.assert_close(
        rendered.alpha[0, 0, 3:9, 6], torch.full((6,), 0.5), atol=4e-3, rtol=0
    )
    over_white = (1 - rendered.alpha[0]).expand(3, 12, 16)  # both are rounded to 8 bits
    torch.testing.assert_close(rendered.rgb[0], over_white, atol=4e-3, rtol=0)


@backends
def test_nearer_surface_hides_and_depth_is_along_the_axis(backend):
    # The slanted quad has z = 2 + x: its depth at pixel u is z = 2 / (1 - (u - 5) / 8).
    slanted = quad((-0.5, 0.5), (-0.5, 0.5), 0.0, RED)
    slanted.vertices[:, 2] = 2 + slanted.vertices[:, 0]
    behind = quad((-9, 9), (-9, 9), 6.0, BLUE)
    rendered = render_views(RenderObject((slanted, behind)), camera(), backend)
    for column in (4, 5):
        expected = 2 / (1 - (column + 0.5 - 5) / 8)
        assert rendered.depth[0, 7, column].item() == pytest.approx(expected, abs=2e-5)
        torch.testing.assert_close(rendered.rgb[0, :, 7, column], torch.tensor([1.0, 0, 0]))
    assert rendered.depth[0, 0, 15].item() == pytest.approx(6, abs=1e-4)
    torch.testing.assert_close(rendered.rgb[0, :, 0, 15], torch.tensor([0.0, 0, 1]))


@backends
def test_texture_is_upright_and_not_mirrored(backend):
    texture = np.full((16, 16, 4), 255, np.uint8)
    texture[:8, :8, :3], texture[:8, 8:, :3] = (255, 0, 0), (0, 255, 0)
    texture[8:, :8, :3], texture[8:, 8:, :3] = (0, 0, 255), (255, 255, 0)
    # u covers [1, 9], v covers [3, 11]: one pixel is two texels.
    part = quad((-1, 1), (-1, 1), 2.0, (1, 1, 1, 1), texture=texture)
    rgb = render_views(RenderObject((part,)), camera(), backend).rgb[0]
    colors = {(5, 3): (1, 0, 0), (5, 6): (0, 1, 0), (8, 3): (0, 0, 1), (8, 6): (1, 1, 0)}
    for (row, column), color in colors.items():
        torch.testing.assert_close(rgb[:, row, column], torch.tensor(color).float())


@backends
def test_factors_multiply_in_linear_light(backend):
    texture = np.full((4, 4, 4), 128, np.uint8)  # alpha 128 is ignored: the part is opaque
    factor = np.array([0.5, 0.8, 1.0, 1.0], np.float32)
    vertex_rgba = np.array([[1.0, 0.5, 0.25, 1.0]] * 4, np.float32)
    part = quad((-1, 1), (-1, 1), 2.0, factor, texture=texture, vertex_rgba=vertex_rgba)
    rendered = render_views(RenderObject((part,)), camera(), backend)
    grey = np.array([128 / 255] * 3)
    light = linear_from_srgb(factor[:3]) * linear_from_srgb(vertex_rgba[0, :3])
    expected = srgb_from_linear(light * linear_from_srgb(grey))
    np.testing.assert_allclose(rendered.rgb[0, :, 7, 5].numpy(), expected, atol=1.1 / 255)
    assert rendered.alpha[0, 0, 7, 5] == 1


@backends
def test_mask_cuts_holes(backend):
    texture = np.full((8, 8, 4), 255, np.uint8)
    texture[:, :4, 3] = 100
    part = quad((-1, 1), (-1, 1), 2.0, RED, texture=texture, alpha_mode="MASK", alpha_cutoff=0.5)
    rendered = render_views(RenderObject((part,)), camera(), backend)
    # u covers [1, 9]; the left half is missing (columns beside the seam are filtered).
    assert rendered.alpha[0, 0, 7, 2:4].tolist() == [0, 0]
    assert rendered.alpha[0, 0, 7, 6:8].tolist() == [1, 1]
    assert rendered.depth[0, 7, 3] == 0


@backends
@pytest.mark.parametrize("order", [1, -1])
def test_blend_mixes_with_what_lies_behind(backend, order):
    glass = (1.0, 0.0, 0.0, 0.5)
    near = quad((-1, 1), (-1, 1), 2.0, glass, alpha_mode="BLEND")
    middle = quad((-2, 2), (-1, 1), 3.0, (0, 1, 0, 0.5), alpha_mode="BLEND")
    wall = quad((-2, 0), (-2, 2), 4.0, BLUE)
    rendered = render_views(RenderObject((near, middle, wall)[::order]), camera(), backend)
    # Left of u = 5: 0.5 red + 0.25 green + 0.25 blue; right of it white takes the place of blue.
    left, right = rendered.rgb[0, :, 7, 4], rendered.rgb[0, :, 7, 6]
    torch.testing.assert_close(left, torch.tensor([0.5, 0.25, 0.25]), atol=6e-3, rtol=0)
    torch.testing.assert_close(right, torch.tensor([0.75, 0.5, 0.25]), atol=6e-3, rtol=0)
    assert rendered.alpha[0, 0, 7, 6].item() == pytest.approx(0.75, abs=6e-3)
    assert rendered.depth[0, 7, 6].item() == pytest.approx(2, abs=1e-5)


@backends
def test_small_object_lands_where_the_orbit_cameras_project_it(backend):
    centre = torch.tensor([0.3, -0.2, 0.25])
    cameras = orbit_cameras(20.0, 64, num_views=5)
    part = octahedron(centre.tolist(), 0.05, RED)
    rendered = render_views(RenderObject((part,)), cameras, backend)
    y, x = torch.meshgrid(torch.arange(64) + 0.5, torch.arange(64) + 0.5, indexing="ij")
    for view in range(5):
        in_camera = cameras.viewmats[view, :3, :3] @ centre + cameras.viewmats[view, :3, 3]
        pixel = cameras.Ks[view] @ (in_camera / in_camera[2])
        alpha = rendered.alpha[view, 0]
        assert abs((alpha * x).sum() / alpha.sum() - pixel[0]) < 0.15
        assert abs((alpha * y).sum() / alpha.sum() - pixel[1]) < 0.15
        depth = rendered.depth[view][rendered.depth[view] > 0]
        assert (depth - in_camera[2]).abs().max() < 0.0501  # the corners are 0.05 away


@backends
def test_nothing_in_front_of_the_camera_is_white(backend):
    part = quad((-1, 1), (-1, 1), -2.0, RED)
    rendered = render_views(RenderObject((part,)), camera(), backend)
    assert rendered.alpha.sum() == 0
    assert rendered.depth.sum() == 0
    assert (rendered.rgb == 1).all()


@needs_opengl
def test_backends_agree():
    texture = np.random.default_rng(0).integers(0, 255, (8, 8, 4), dtype=np.uint8)
    parts = (
        tetrahedron((0.1, 0.1, 0.1), 0.25, (0.8, 0.3, 0.1, 1)),
        tetrahedron((-0.2, -0.1, 0.0), 0.2, (0.1, 0.3, 0.9, 1)),
        quad((-0.5, 0.4), (-0.4, 0.5), -0.2, (1, 1, 1, 1), texture=texture),
    )
    cameras = orbit_cameras(25.0, 96, num_views=4)
    gl, rays = (render_views(RenderObject(parts), cameras, b) for b in ("moderngl", "embreex"))
    a, b = gl.alpha > 0.51, rays.alpha > 0.51  # 2 of 4 rays are no majority, and round to 0.502
    assert (a & b).sum() / (a | b).sum() > 0.99
    assert (gl.alpha - rays.alpha).abs().mean() < 5e-3
    both = (gl.depth > 0) & (rays.depth > 0)
    difference = (gl.depth - rays.depth)[both].abs()
    assert both.sum() > 1000
    # Beyond a few pixel centres on an edge between two surfaces, depth is the same.
    assert difference.quantile(0.99) < 1e-4
    assert (gl.rgb - rays.rgb).abs().mean() < 5e-3


@needs_opengl
def test_gl_memory_is_released_within_its_context(monkeypatch):
    """Releasing after the context is left deletes nothing: every object leaked its textures."""
    entered, made, released_outside = [], [], []
    gl = opengl.current.gl
    for name in ("__enter__", "__exit__"):
        original = getattr(type(gl), name)

        def switch(self, *args, name=name, original=original):
            entered.append(name == "__enter__")
            return original(self, *args)

        monkeypatch.setattr(type(gl), name, switch)
    for kind in (moderngl.Texture, moderngl.Buffer, moderngl.Framebuffer, moderngl.Renderbuffer):

        def release(self, original=kind.release):
            made.append(self)
            released_outside.append(not entered[-1])
            original(self)

        monkeypatch.setattr(kind, "release", release)
    texture = np.full((4, 4, 4), 255, np.uint8)
    render_object = RenderObject((quad((-1, 1), (-1, 1), 2.0, RED, texture=texture),))
    render_views(render_object, camera(), "moderngl")
    # 1 colour texture, 1 of samples, 2 buffers, 3 framebuffers, 4 renderbuffers.
    assert len(made) == 11
    assert not any(released_outside)
    assert all(isinstance(resource.mglo, moderngl.InvalidObject) for resource in made)


def test_auto_falls_back_to_embreex_with_one_warning(monkeypatch):
    monkeypatch.setattr(opengl, "opengl_error", lambda: "libEGL.so.1 not found")
    monkeypatch.setattr(rasterizer, "_warned", set())
    messages = []
    monkeypatch.setattr(rasterizer.console, "print", messages.append)
    render_object = RenderObject((quad((-1, 1), (-1, 1), 2.0, RED),))
    assert render_views(render_object, camera()).backend == "embreex"
    assert render_views(render_object, camera()).backend == "embreex"
    assert len(messages) == 1
    with pytest.raises(InputError, match="libEGL"):
        render_views(render_object, camera(), "moderngl")


def test_bad_arguments():
    render_object = RenderObject((quad((-1, 1), (-1, 1), 2.0, RED),))
    with pytest.raises(InputError, match="unknown backend"):
        render_views(render_object, camera(), "vulkan")
    with pytest.raises(ValueError, match="supersampling"):
        render_views(render_object, camera(), supersampling=0)
