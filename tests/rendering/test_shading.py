"""Lights, normals and see-through materials against closed forms, for both rasterisers."""

import numpy as np
import pytest
import torch
import trimesh

from hi3d.assets.parts import ObjectPart, RenderObject
from hi3d.cameras import Cameras, orbit_cameras
from hi3d.color import linear_from_srgb, srgb_from_linear
from hi3d.errors import InputError
from hi3d.rendering.opengl import backend as opengl
from hi3d.rendering.opengl.egl_devices import choose_device, chosen_device
from hi3d.rendering.rasterizer import render_views
from hi3d.rendering.shading import AMBIENT_SHARE, KEY_LIGHT_DIRECTION, KEY_LIGHT_SHARE

NO_OPENGL = opengl.opengl_error()
needs_opengl = pytest.mark.skipif(bool(NO_OPENGL), reason=f"no OpenGL here: {NO_OPENGL}")
backends = pytest.mark.parametrize(
    "backend", [pytest.param("moderngl", marks=needs_opengl), "embreex"]
)
GREY = (0.5, 0.5, 0.5, 1.0)


def camera(turned=False):
    """16x12 pixels at the origin, looking along +z or, turned about y, along -z."""
    K = torch.tensor([[8.0, 0, 8], [0, 8, 6], [0, 0, 1]])
    viewmat = torch.diag(torch.tensor([-1.0, 1, -1, 1])) if turned else torch.eye(4)
    return Cameras(viewmat[None], K[None], 16, 12)


def wall(z, color=GREY, x=(-9, 9), flipped=False, **look):
    corners = np.array([[x[0], -9, z], [x[1], -9, z], [x[1], 9, z], [x[0], 9, z]], np.float32)
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    if "texture" in look:
        look["uvs"] = np.array([[0, 1], [1, 1], [1, 0], [0, 0]], np.float32)
    return ObjectPart(
        corners, faces[:, ::-1] if flipped else faces, np.array(color, np.float32), **look
    )


def sphere(color=GREY, radius=0.4):
    mesh = trimesh.creation.icosphere(subdivisions=4, radius=radius)
    vertices = mesh.vertices.astype(np.float32)
    return RenderObject((ObjectPart(vertices, mesh.faces, np.array(color, np.float32)),))


@backends
@pytest.mark.parametrize("flipped", [False, True])
def test_plane_obeys_lamberts_law(backend, flipped):
    # The light comes from (2, -1, 2) / 3: a wall at z = -2, seen from the origin, shows its side
    # (0, 0, 1) with cosine 2/3; a wall at z = 2 shows (0, 0, -1), which the light does not reach.
    for z, cosine in ((-2.0, 2 / 3), (2.0, 0.0)):
        part = RenderObject((wall(z, flipped=flipped),))
        rendered = render_views(part, camera(turned=z < 0), backend, shading="key", normals=True)
        light = linear_from_srgb(np.array([0.5, 0.5, 0.5]))
        expected = srgb_from_linear(light * (AMBIENT_SHARE + KEY_LIGHT_SHARE * cosine))
        np.testing.assert_allclose(rendered.rgb[0, :, 5, 5], expected, atol=0.51 / 255 + 1e-4)
        normal = torch.tensor([0, 0, -np.sign(z)]).float()
        torch.testing.assert_close(rendered.normals[0, :, 5, 5], normal, atol=1e-5, rtol=0)


@backends
def test_normals_of_a_sphere_point_from_its_centre(backend):
    cameras = orbit_cameras(25.0, 48, num_views=3)
    rendered = render_views(sphere(), cameras, backend, normals=True, shading="key")
    seen = rendered.depth > 0
    assert seen.sum() > 1000
    for view in range(3):
        origins, directions = cameras.rays(view)
        along_axis = directions @ cameras.viewmats[view, 2, :3]
        points = origins + directions * (rendered.depth[view] / along_axis)[..., None]
        radial = torch.nn.functional.normalize(points, dim=-1)[seen[view]]
        normals = rendered.normals[view].permute(1, 2, 0)[seen[view]]
        torch.testing.assert_close(normals.norm(dim=-1), torch.ones(len(normals)))
        # Facets of edge 0.03 on a sphere of radius 0.4 lean by less than 0.05 rad.
        assert (normals * radial).sum(dim=-1).min() > np.cos(0.05)
        cosine = (normals @ torch.tensor(KEY_LIGHT_DIRECTION)).clamp_min(0)
        light = 0.2140411 * (AMBIENT_SHARE + KEY_LIGHT_SHARE * cosine)  # sRGB 0.5 is 0.2140411
        inside = (rendered.alpha[view, 0] == 1)[seen[view]]
        shown = rendered.rgb[view, 0][seen[view]]
        error = (shown - torch.from_numpy(srgb_from_linear(light[:, None].numpy())[:, 0]))[inside]
        assert error.abs().mean() < 0.01
    assert (rendered.normals.permute(0, 2, 3, 1)[~seen] == 0).all()


@needs_opengl
def test_rasterisers_agree_in_light_and_normals():
    cameras = orbit_cameras(10.0, 64, num_views=2)
    gl, rays = (
        render_views(sphere((0.9, 0.4, 0.1, 1)), cameras, b, 4, "key", normals=True)
        for b in ("moderngl", "embreex")
    )
    both = (gl.depth > 0) & (rays.depth > 0)
    cosines = (gl.normals * rays.normals).sum(dim=1)[both]
    assert cosines.quantile(0.02) > 1 - 1e-5  # but for centres on an edge between two facets
    assert (gl.rgb - rays.rgb).abs().mean() < 2e-3


@backends
def test_uniform_light_shows_the_base_color(backend):
    cameras = orbit_cameras(10.0, 32, num_views=1)
    unlit, uniform = (
        render_views(sphere((0.6, 0.6, 0.6, 1)), cameras, backend, shading=shading)
        for shading in ("unlit", "uniform")
    )
    assert torch.equal(unlit.rgba8, uniform.rgba8)
    assert unlit.rgba8[0, 16, 16].tolist() == [153, 153, 153, 255]


@backends
def test_solid_parts_of_blend_materials_are_drawn_first(backend):
    """A nearer, see-through part of a group that lies behind on average used to hide them."""
    texture = np.full((2, 2, 4), 255, np.uint8)
    glass = dict(color=(1, 0, 0, 0.5), alpha_mode="BLEND")
    parts = (
        wall(2.0, x=(-9, 0), **glass),
        wall(10.0, **glass),
        wall(3.0, color=(0, 0, 1, 1), alpha_mode="BLEND", texture=texture),
    )
    rendered = render_views(RenderObject(parts), camera(), backend)
    left, right = rendered.rgb[0, :, 6, 3], rendered.rgb[0, :, 6, 12]
    torch.testing.assert_close(left, torch.tensor([0.5, 0, 0.5]), atol=5e-3, rtol=0)
    torch.testing.assert_close(right, torch.tensor([0.0, 0, 1]), atol=5e-3, rtol=0)


@needs_opengl
def test_outlines_of_cutouts_are_smooth_without_supersampling():
    rows, columns = np.mgrid[:64, :64]
    texture = np.full((64, 64, 4), 255, np.uint8)
    texture[..., 3] = np.where(rows > 1.3 * columns - 8, 255, 0)
    part = wall(9.0, texture=texture, alpha_mode="MASK")
    alpha = render_views(RenderObject((part,)), camera(), "moderngl", 1).alpha
    exact = render_views(RenderObject((part,)), camera(), "embreex", 8).alpha
    outline = (exact > 0.05) & (exact < 0.95)
    assert outline.sum() > 8
    # Four samples cannot be nearer than 1/8 on average; one sample is 1/4 away.
    assert (alpha - exact)[outline].abs().mean() < 0.16
    assert ((alpha > 0.1) & (alpha < 0.9))[outline].float().mean() > 0.4


@needs_opengl
@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.9, 0.0), (-0.7, 0.6)])
def test_objects_that_leave_the_image_are_cropped_alike(shift):
    cameras = orbit_cameras(20.0, 40, num_views=3)
    moved = sphere((0.2, 0.5, 0.8, 1)).parts[0].vertices + np.array([*shift, 0.1], np.float32)
    part = ObjectPart(moved, sphere().parts[0].faces, np.array([0.2, 0.5, 0.8, 1], np.float32))
    gl, rays = (
        render_views(RenderObject((part,)), cameras, backend, 4, normals=True)
        for backend in ("moderngl", "embreex")
    )
    assert (gl.alpha - rays.alpha).abs().max() < 0.2
    assert (gl.alpha - rays.alpha).abs().mean() < 5e-3
    assert ((gl.depth > 0) != (rays.depth > 0)).float().mean() < 5e-3
    both = (gl.depth > 0) & (rays.depth > 0)
    assert both.any()
    assert (gl.depth - rays.depth)[both].abs().max() < 5e-4


def test_workers_share_the_gpus(monkeypatch):
    hardware, software = "EGL_NV_device_cuda EGL_EXT_device_drm", "EGL_MESA_device_software"
    assert [choose_device([hardware, hardware, software], i) for i in range(5)] == [0, 1, 0, 1, 0]
    assert choose_device([software, hardware], 3) == 1
    assert choose_device([software], 3) == 0
    assert choose_device([], 3) == 0
    monkeypatch.setenv("GLCONTEXT_DEVICE_INDEX", "5")
    assert chosen_device() == 5
    monkeypatch.setenv("HI3D_WORKER_INDEX", "first")
    with pytest.raises(InputError, match="HI3D_WORKER_INDEX=first"):
        chosen_device()


def test_unknown_shading():
    with pytest.raises(InputError, match="unknown shading 'toon': use unlit, uniform, key"):
        render_views(sphere(), camera(), shading="toon")
