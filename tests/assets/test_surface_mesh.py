"""Object files as surface meshes and back."""

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from hi3d.assets.surface_mesh import load_mesh, surface_mesh_to_object
from hi3d.mesh import SurfaceMesh, save_mesh


def test_a_scene_becomes_one_mesh(tmp_path):
    scene = trimesh.Scene()
    red = trimesh.creation.box((1, 1, 1))
    red.visual.vertex_colors = [255, 0, 0, 255]
    scene.add_geometry(red)
    scene.add_geometry(trimesh.creation.box((1, 1, 1)), transform=np.diag([2.0, 2, -2, 1]))
    scene.export(tmp_path / "two.glb")
    mesh = load_mesh(tmp_path / "two.glb")
    assert mesh.vertices.shape == (16, 3)
    assert mesh.faces.max() == 15
    assert mesh.vertices.abs().amax(dim=0).tolist() == pytest.approx([1, 1, 1])
    is_red = (mesh.vertex_rgb - torch.tensor([1.0, 0, 0])).abs().amax(-1) < 1e-6
    assert is_red.sum() == 8
    assert mesh.vertices[is_red].abs().max().item() == pytest.approx(0.5)
    assert torch.equal(mesh.vertex_rgb[~is_red], torch.full((8, 3), 0.8))
    # The mirrored part is turned outside again: both volumes, 1 and 8, count positive.
    whole = trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), process=False)
    assert whole.volume == pytest.approx(9)


def test_surface_mesh_keeps_place_colors_and_texture():
    vertices = torch.tensor([[5.0, 0, 0], [6, 0, 0], [5, 1, 0]])
    faces, rgb = torch.tensor([[0, 1, 2]]), torch.tensor([[0.2, 0.4, 0.6]]).repeat(3, 1)
    part = surface_mesh_to_object(SurfaceMesh(vertices, faces, rgb)).parts[0]
    np.testing.assert_array_equal(part.vertices, vertices.numpy())
    np.testing.assert_allclose(part.vertex_rgba[0], [0.2, 0.4, 0.6, 1])
    texture = torch.zeros(3, 2, 4)
    texture[:, 0, 1] = torch.tensor([1.0, 0.2, 0.0])
    uvs = torch.tensor([[0.0, 0], [1, 0], [0, 1]])
    part = surface_mesh_to_object(SurfaceMesh(vertices, faces, rgb, uvs, texture)).parts[0]
    assert part.texture.shape == (2, 4, 4)
    assert part.texture[0, 1].tolist() == [255, 51, 0, 255]
    assert part.vertex_rgba is None


def test_textured_parts_become_vertex_colors_times_their_factors(tmp_path):
    Image.new("RGB", (2, 2), (255, 51, 0)).save(tmp_path / "a.png")
    (tmp_path / "a.mtl").write_text("newmtl m\nmap_Kd a.png\nnewmtl n\nKd 0.1 0.2 0.3\n")
    (tmp_path / "a.obj").write_text(
        "mtllib a.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\n"
        "usemtl m\nf 1/1 2/2 3/3\nusemtl n\nf 3 2 1\n"
    )
    mesh = load_mesh(tmp_path / "a.obj")
    assert mesh.texture is None
    expected = torch.tensor([[1, 0.2, 0], [0.1, 0.2, 0.3]]).repeat_interleave(3, 0)
    torch.testing.assert_close(mesh.vertex_rgb, expected)


def test_a_factor_is_multiplied_into_the_texture(gltf, tmp_path):
    image = np.full((2, 2, 4), 255, np.uint8)
    gltf.textured(image, [[0, 0], [1, 0], [0, 1]])
    surface = gltf.content["materials"][0]["pbrMetallicRoughness"]
    surface["baseColorFactor"] = [0.5, 1, 0, 1]
    mesh = load_mesh(gltf.save(tmp_path / "a.glb"))
    # IEC 61966-2-1: 1.055 * 0.5^(1/2.4) - 0.055 = 0.735357.
    expected = torch.tensor([0.735357, 1, 0])
    torch.testing.assert_close(mesh.texture[:, 1, 0], expected)
    torch.testing.assert_close(mesh.vertex_rgb[0], expected)


def test_white_vertices_stay_white(tmp_path):
    mesh = SurfaceMesh(torch.eye(3), torch.tensor([[0, 1, 2]]), torch.ones(3, 3))
    for suffix in ("glb", "obj", "ply"):
        save_mesh(mesh, tmp_path / f"a.{suffix}")
        torch.testing.assert_close(load_mesh(tmp_path / f"a.{suffix}").vertex_rgb, mesh.vertex_rgb)


@pytest.mark.parametrize("vertex_colors", [False, True])
def test_clamped_textures_go_on(gltf, tmp_path, vertex_colors):
    """Along u from -1 to 2, where the texture is 0 to the left and 1 to the right."""
    image = gltf.black((1, 2))
    image[..., 1, :3] = 255
    uvs = [[-1, 0.5], [2, 0.5], [2, 0.5]]
    primitive = gltf.textured(image, uvs, texture={"source": 0, "sampler": 0})
    gltf.content["samplers"] = [{"wrapS": 33071, "magFilter": 9728}]
    if vertex_colors:
        primitive["attributes"]["COLOR_0"] = gltf.accessor(np.ones((3, 3), np.float32))
    mesh = load_mesh(gltf.save(tmp_path / "a.glb"))
    np.testing.assert_allclose(mesh.vertex_rgb[:, 0], [0, 1, 1], atol=1e-6)
    if not vertex_colors:
        assert mesh.texture[0, 0].tolist() == [0, 0, 0, 1, 1, 1]
        np.testing.assert_allclose(mesh.uvs[:, 0], [0, 1, 1])
