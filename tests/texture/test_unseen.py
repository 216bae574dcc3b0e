"""What no view sees takes its colors along the surface, and bases are calm."""

import numpy as np
import pytest
import torch
import trimesh

from hi3d.cameras import Cameras, orbit_cameras
from hi3d.mesh import SurfaceMesh
from hi3d.surface.ray_casting import RayCaster
from hi3d.surface.topology import topology
from hi3d.texture.atlas import sample_texture
from hi3d.texture.bake import TextureConfig, bake_texture
from hi3d.texture.refinement import refined
from hi3d.texture.unseen import DATA_STRENGTH, _data, typical
from hi3d.views import Views

RED, GREEN, BLUE = torch.eye(3) * 0.8
CONFIG = TextureConfig(resolution=256, optimization_steps=0)


def from_trimesh(mesh: trimesh.Trimesh) -> SurfaceMesh:
    vertices = torch.tensor(mesh.vertices, dtype=torch.float32)
    return SurfaceMesh(vertices, torch.tensor(mesh.faces), torch.zeros_like(vertices))


def views_of(mesh: SurfaceMesh, cameras: Cameras, colors) -> Views:
    """Images of a mesh whose color is a function of positions and normals, [N, 3] each."""
    caster = RayCaster(mesh.vertices, mesh.faces)
    a, b, c = mesh.vertices[mesh.faces].unbind(1)
    normals = torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=-1)
    rgb, alpha = [], []
    for view in range(len(cameras)):
        origins, directions = (rays.reshape(-1, 3) for rays in cameras.rays(view))
        face, weights = caster.hits(origins.expand_as(directions), directions)
        points = (mesh.vertices[mesh.faces[face]] * weights[..., None]).sum(1)
        hit = (face >= 0)[:, None]
        image = torch.where(hit, colors(points, normals[face]), torch.ones(3))
        shape = (cameras.height, cameras.width, -1)
        rgb.append(image.reshape(shape).permute(2, 0, 1))
        alpha.append(hit.float().reshape(shape).permute(2, 0, 1))
    return Views(torch.stack(rgb), torch.stack(alpha), cameras)


def underside(mesh: SurfaceMesh, points: torch.Tensor) -> torch.Tensor:
    """The colors that rays from below meet above points [N, 2]. [N, 3]"""
    caster = RayCaster(mesh.vertices, mesh.faces)
    origins = torch.cat([points, torch.full((len(points), 1), -2.0)], dim=1)
    face, weights = caster.hits(origins, torch.tensor([0.0, 0, 1]).expand_as(origins))
    assert (face >= 0).all()
    return sample_texture(mesh.texture, (mesh.uvs[mesh.faces[face]] * weights[..., None]).sum(1))


def grid(half: float, count: int = 15) -> torch.Tensor:
    axis = torch.linspace(-half, half, count)
    return torch.cartesian_prod(axis, axis)


def slab_colors(points: torch.Tensor, normals: torch.Tensor) -> torch.Tensor:
    """Red and blue fields above, green sides."""
    field = ((points[:, :2] + 0.4) * 5).floor().long().sum(-1) % 2
    top = torch.where(field[:, None] == 0, RED, BLUE)
    return torch.where(normals[:, 2:] > 0.5, top, GREEN)


@pytest.mark.parametrize("thickness", [0.02, 0.06])
def test_the_underside_of_a_slab_shows_its_rim_and_not_its_top(thickness):
    box = trimesh.creation.box((0.8, 0.8, thickness))
    mesh = from_trimesh(box.subdivide().subdivide().subdivide())
    views = views_of(mesh, orbit_cameras(20, 192), slab_colors)
    found = underside(bake_texture(mesh, views, CONFIG), grid(0.38))
    assert (found - GREEN).abs().max() < 0.1


def test_a_base_is_no_pinwheel():
    """A cylinder of twelve stripes: its base, inside the rim, has hardly a trace of them."""
    mesh = from_trimesh(trimesh.creation.cylinder(0.35, 0.5, sections=48))

    def stripes(points, normals):
        stripe = (torch.atan2(points[:, 1], points[:, 0]) * 6 / torch.pi).floor().long() % 2
        return torch.where(stripe[:, None] == 0, RED, BLUE)

    baked = bake_texture(mesh, views_of(mesh, orbit_cameras(20, 192), stripes), CONFIG)
    angle = torch.linspace(0, 2 * torch.pi, 97)[:-1]
    for radius, limit in ((0.1, 0.02), (0.2, 0.02), (0.3, 0.15)):
        ring = radius * torch.stack([angle.cos(), angle.sin()], dim=1)
        assert underside(baked, ring).std(0).max() < limit


def test_a_piece_without_seen_points_takes_the_typical_color():
    ball = trimesh.creation.icosphere(3, 0.3)
    inner = trimesh.creation.icosphere(2, 0.1)
    mesh = from_trimesh(trimesh.util.concatenate([ball, inner]))
    views = views_of(mesh, orbit_cameras(20, 96), lambda points, _: GREEN.expand_as(points))
    baked = bake_texture(mesh, views, CONFIG)
    assert (baked.texture - GREEN[:, None, None]).abs().max() < 0.02


def test_refining_keeps_a_surface_closed_and_in_place():
    box = trimesh.creation.box((1.0, 0.3, 0.02))
    vertices, faces = refined(np.asarray(box.vertices), np.asarray(box.faces), 0.05)
    assert topology(vertices, faces).sound
    fine = trimesh.Trimesh(vertices, faces, process=False)
    assert fine.edges_unique_length.max() <= 0.05
    assert fine.volume == pytest.approx(box.volume)
    assert fine.area == pytest.approx(box.area)
    assert len(faces) < 12 * box.area / 0.05**2  # triangles of half that edge


def test_the_typical_color_is_not_a_mixture():
    colors = np.array([[0.8, 0, 0]] * 3 + [[0, 0, 0.8]] * 2 + [[0.7, 0.1, 0]])
    assert typical(colors, np.ones(6)) == pytest.approx([0.775, 0.025, 0], abs=0.01)
    assert typical(colors, np.array([1, 1, 1, 9, 9, 1])) == pytest.approx([0, 0, 0.8], abs=0.01)


def test_a_texel_that_only_touches_a_point_does_not_color_it():
    corner, trust, rgb = np.array([[0, 1, 2]]), np.ones(1), np.array([[0.0, 0.8, 0.0]])
    weight = np.array([[0.5, 0.5, 5e-13]])  # rounding of a ray on an edge
    colors, strength = _data(corner, weight, trust, rgb, 4)
    np.testing.assert_allclose(colors[:2], np.repeat(rgb, 2, 0))
    np.testing.assert_allclose(strength, [DATA_STRENGTH, DATA_STRENGTH, 0, 0])
