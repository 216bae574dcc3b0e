import json
import struct

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from hi3d.assets.surface_mesh import load_mesh
from hi3d.errors import InputError
from hi3d.mesh import SurfaceMesh, is_closed, save_mesh, vertex_normals
from hi3d.texture.atlas import sample_texture


@pytest.fixture
def colored() -> SurfaceMesh:
    box = trimesh.creation.box((1, 0.6, 0.3))
    generator = torch.Generator().manual_seed(0)
    return SurfaceMesh(
        torch.tensor(box.vertices, dtype=torch.float32),
        torch.tensor(box.faces),
        (torch.rand(8, 3, generator=generator) * 255).round() / 255,
    )


@pytest.fixture
def textured(colored) -> SurfaceMesh:
    """Every face has vertices of its own, as along texture seams."""
    corners = colored.faces.reshape(-1)
    generator = torch.Generator().manual_seed(1)
    uvs = torch.rand(len(corners), 2, generator=generator)
    texture = (torch.rand(3, 8, 16, generator=generator) * 255).round() / 255
    faces = torch.arange(len(corners)).reshape(-1, 3)
    vertex_rgb = sample_texture(texture, uvs)
    return SurfaceMesh(colored.vertices[corners], faces, vertex_rgb, uvs, texture)


def glb_json(path) -> dict:
    data = path.read_bytes()
    magic, version, length, json_length, kind = struct.unpack_from("<4sIII4s", data)
    assert (magic, version, length, kind) == (b"glTF", 2, len(data), b"JSON")
    assert json_length % 4 == 0
    assert data[20 + json_length + 4 :][:4] == b"BIN\0"
    return json.loads(data[20 : 20 + json_length])


def glb_floats(path, attribute: str) -> np.ndarray:
    content, data = glb_json(path), path.read_bytes()
    (json_length,) = struct.unpack_from("<I", data, 12)
    accessor = content["accessors"][content["meshes"][0]["primitives"][0]["attributes"][attribute]]
    view = content["bufferViews"][accessor["bufferView"]]
    start = 28 + json_length + view["byteOffset"]
    return np.frombuffer(data[start : start + view["byteLength"]], "<f4").reshape(
        accessor["count"], -1
    )


@pytest.mark.parametrize("suffix", [".glb", ".obj"])
def test_textured_round_trip(textured, tmp_path, suffix):
    save_mesh(textured, tmp_path / f"box{suffix}")
    loaded = load_mesh(tmp_path / f"box{suffix}")
    assert torch.equal(loaded.vertices, textured.vertices)
    assert torch.equal(loaded.faces, textured.faces)
    assert torch.allclose(loaded.uvs, textured.uvs, atol=1e-7)
    assert torch.equal(loaded.texture, textured.texture)
    assert torch.allclose(loaded.vertex_rgb, textured.vertex_rgb, atol=1e-5)


@pytest.mark.parametrize("suffix", [".glb", ".obj", ".ply"])
def test_colored_round_trip(colored, tmp_path, suffix):
    save_mesh(colored, tmp_path / f"box{suffix}")
    loaded = load_mesh(tmp_path / f"box{suffix}")
    assert torch.equal(loaded.vertices, colored.vertices)
    assert torch.equal(loaded.faces, colored.faces)
    assert torch.allclose(loaded.vertex_rgb, colored.vertex_rgb, atol=1e-6)
    assert loaded.texture is None


def test_front_is_z_in_glb_and_obj(tmp_path):
    """glTF 2.0, Section 3.4: up +Y, front +Z; a PLY keeps up z, front x."""
    vertices = torch.tensor([[1.0, 2.0, 3.0], [0, 0, 0], [0, 1, 0]])
    mesh = SurfaceMesh(vertices, torch.tensor([[0, 1, 2]]), torch.ones(3, 3))
    for suffix in ("glb", "ply", "obj"):
        save_mesh(mesh, tmp_path / f"a.{suffix}")
    assert glb_floats(tmp_path / "a.glb", "POSITION")[0].tolist() == [2, 3, 1]
    assert glb_json(tmp_path / "a.glb")["asset"]["extras"] == {"front": "+Z"}
    assert (tmp_path / "a.obj").read_text().startswith("# front +Z, up +Y\nv 2 3 1 1 1 1\n")
    assert trimesh.load(tmp_path / "a.ply", process=False).vertices[0].tolist() == [1, 2, 3]
    assert load_mesh(tmp_path / "a.obj", up="z").vertices[0].tolist() == [2, 3, 1]


def test_a_file_without_a_declared_front_is_read_as_blender_does(colored, tmp_path):
    save_mesh(colored, tmp_path / "a.obj")
    text = (tmp_path / "a.obj").read_text().split("\n", 1)[1]
    (tmp_path / "b.obj").write_text(text)
    x, y, z = colored.vertices.unbind(-1)
    turned = torch.stack([y, -x, z], dim=-1)  # file (y, z, x) taken as (x, -z, y)
    assert torch.equal(load_mesh(tmp_path / "b.obj").vertices, turned)
    assert torch.equal(load_mesh(tmp_path / "b.obj", front="z").vertices, colored.vertices)
    trimesh.load(tmp_path / "b.obj", process=False).export(tmp_path / "b.glb")
    assert torch.equal(load_mesh(tmp_path / "b.glb").vertices, turned)


def test_the_photo_is_seen_from_z(tmp_path):
    """Another reader finds the side at +x, where view 0 looks from, at +Z."""
    box = trimesh.creation.box((1, 0.6, 0.3))
    corners = torch.tensor(box.vertices[box.faces].reshape(-1, 3), dtype=torch.float32)
    red = torch.tensor(box.face_normals[:, 0] > 0.5).repeat_interleave(3)[:, None]
    rgb = torch.where(red, torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 0, 1]))
    faces = torch.arange(len(corners)).reshape(-1, 3)
    save_mesh(SurfaceMesh(corners, faces, rgb), tmp_path / "box.glb")
    save_mesh(SurfaceMesh(corners, faces, rgb), tmp_path / "box.obj")
    for path in (tmp_path / "box.glb", tmp_path / "box.obj"):
        loaded = trimesh.load(path, force="mesh", process=False)
        front = loaded.face_normals[:, 2] > 0.99
        assert front.sum() == 2
        assert np.array_equal(front.repeat(3), red[:, 0].numpy())
    assert (loaded.visual.vertex_colors[:, 0] == 255 * red[:, 0].numpy()).all()
    assert np.array_equal(glb_floats(tmp_path / "box.glb", "COLOR_0"), rgb.numpy())


def test_exported_meshes_stand_upright_in_trimesh(tmp_path):
    """Y is up in GLB and OBJ, as their readers expect; z in PLY, as in memory."""
    tall = trimesh.creation.cone(radius=0.1, height=0.9)  # base at z = 0, tip at z = 0.9
    vertices = torch.tensor(tall.vertices, dtype=torch.float32)
    mesh = SurfaceMesh(vertices, torch.tensor(tall.faces), torch.ones_like(vertices))
    for suffix, axis in (("glb", 1), ("obj", 1), ("ply", 2)):
        save_mesh(mesh, tmp_path / f"tall.{suffix}")
        loaded = trimesh.load(tmp_path / f"tall.{suffix}", force="mesh")
        assert loaded.bounds[:, axis].tolist() == pytest.approx([0, 0.9], abs=1e-6)
        assert loaded.volume > 0
        top = loaded.vertices[loaded.vertices[:, axis].argmax()]
        assert abs(top).sum() == pytest.approx(0.9, abs=1e-5)  # the tip, on the axis


def test_glb_fields_of_a_textured_mesh(textured, tmp_path):
    save_mesh(textured, tmp_path / "box.glb")
    content = glb_json(tmp_path / "box.glb")
    (material,) = content["materials"]
    assert material["pbrMetallicRoughness"] == {
        "metallicFactor": 0.0,
        "roughnessFactor": 1.0,
        "baseColorTexture": {"index": 0},
    }
    assert material["doubleSided"] is False
    assert content["extensionsUsed"] == ["KHR_materials_unlit"]
    assert content["images"][0]["mimeType"] == "image/png"
    (primitive,) = content["meshes"][0]["primitives"]
    # A vertex colour would be multiplied with the texture.
    assert set(primitive["attributes"]) == {"POSITION", "NORMAL", "TEXCOORD_0"}
    # The origin of glTF's texture coordinates is at the top left.
    uvs = glb_floats(tmp_path / "box.glb", "TEXCOORD_0")
    assert np.allclose(uvs[:, 1], 1 - textured.uvs[:, 1].numpy())
    position = content["accessors"][primitive["attributes"]["POSITION"]]
    assert np.allclose(position["min"], [-0.3, -0.15, -0.5])
    assert np.allclose(position["max"], [0.3, 0.15, 0.5])
    assert all(view["byteOffset"] % 4 == 0 for view in content["bufferViews"])


def test_glb_vertex_colors_are_linear(tmp_path):
    # sRGB 0.5 is linear ((0.5 + 0.055) / 1.055)^2.4 = 0.21404; 0.04 is 0.04 / 12.92 = 0.003096.
    rgb = torch.tensor([[0.5, 0.04, 1.0]]).repeat(3, 1)
    mesh = SurfaceMesh(torch.eye(3), torch.tensor([[0, 1, 2]]), rgb)
    save_mesh(mesh, tmp_path / "a.glb")
    colors = glb_floats(tmp_path / "a.glb", "COLOR_0")
    assert colors[0] == pytest.approx([0.21404, 0.003096, 1.0], abs=1e-5)


def test_normals_of_a_sphere_are_its_radii(tmp_path):
    """A ball with every face's corners apart, as along seams, moved off the origin."""
    ball = trimesh.creation.uv_sphere(0.5, count=[24, 24])  # long thin triangles at the poles
    corners = torch.tensor(ball.vertices[ball.faces].reshape(-1, 3), dtype=torch.float32)
    center = torch.tensor([0.1, -0.2, 0.3])
    faces = torch.arange(len(corners)).reshape(-1, 3)
    mesh = SurfaceMesh(corners + center, faces, torch.ones_like(corners))
    cosines = (vertex_normals(mesh) * corners / 0.5).sum(-1)
    assert cosines.min() > np.cos(np.deg2rad(0.5))
    save_mesh(mesh, tmp_path / "ball.glb")
    save_mesh(mesh, tmp_path / "ball.obj")
    stored = glb_floats(tmp_path / "ball.glb", "NORMAL")
    assert np.allclose(np.linalg.norm(stored, axis=1), 1, atol=1e-6)
    radii = glb_floats(tmp_path / "ball.glb", "POSITION") - [-0.2, 0.3, 0.1]
    assert (stored * radii / 0.5).sum(1).min() > np.cos(np.deg2rad(0.5))
    lines = (tmp_path / "ball.obj").read_text().splitlines()
    normals = np.array([line.split()[1:] for line in lines if line.startswith("vn ")], float)
    assert np.allclose(normals, stored, atol=1e-5)


def test_normals_are_unit_also_where_faces_have_no_area():
    points = torch.tensor([[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [0, 0, 0], [1, 0, 0], [0, -1, 0]])
    mesh = SurfaceMesh(points, torch.tensor([[0, 1, 2], [3, 5, 4]]), torch.ones(6, 3))
    assert torch.allclose(vertex_normals(mesh), torch.tensor([0.0, 0, 1]).expand(6, 3))
    alone = SurfaceMesh(points[:3], torch.tensor([[0, 1, 2]]), torch.ones(3, 3))
    assert vertex_normals(alone).tolist() == [[0, 0, 1]] * 3


def test_a_lit_material_is_an_option(textured, tmp_path):
    save_mesh(textured, tmp_path / "box.glb", lit=True)
    save_mesh(textured, tmp_path / "box.obj", lit=True)
    content = glb_json(tmp_path / "box.glb")
    assert "extensionsUsed" not in content
    assert "extensions" not in content["materials"][0]
    assert content["materials"][0]["pbrMetallicRoughness"]["roughnessFactor"] == 1
    assert "illum 1\n" in (tmp_path / "box.mtl").read_text()
    assert torch.equal(load_mesh(tmp_path / "box.glb").texture, textured.texture)


def test_obj_names_its_material_and_texture(textured, tmp_path):
    save_mesh(textured, tmp_path / "box.obj")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["box.mtl", "box.obj", "box.png"]
    assert "mtllib box.mtl\n" in (tmp_path / "box.obj").read_text()
    assert "map_Kd box.png\n" in (tmp_path / "box.mtl").read_text()
    with Image.open(tmp_path / "box.png") as image:
        assert image.size == (16, 8)


def test_is_closed_sees_through_seams(colored, textured):
    assert is_closed(colored)
    assert is_closed(textured)
    opened = SurfaceMesh(colored.vertices, colored.faces[1:], colored.vertex_rgb)
    assert not is_closed(opened)
    doubled = SurfaceMesh(
        colored.vertices, torch.cat([colored.faces, colored.faces[:1]]), colored.vertex_rgb
    )
    assert not is_closed(doubled)


def test_bad_input_is_one_line(colored, tmp_path):
    with pytest.raises(InputError, match="end the name in"):
        save_mesh(colored, tmp_path / "a.stl")
    with pytest.raises(InputError, match="no faces"):
        save_mesh(SurfaceMesh(colored.vertices, colored.faces[:0], colored.vertex_rgb), "a.glb")
    with pytest.raises(InputError, match="no object file"):
        load_mesh(tmp_path / "absent.glb")
    with pytest.raises(InputError, match="not an object file"):
        load_mesh(tmp_path / "a.txt")
    for suffix in ("glb", "obj", "ply"):
        (tmp_path / f"broken.{suffix}").write_bytes(b"not a mesh")
        with pytest.raises(InputError) as caught:
            load_mesh(tmp_path / f"broken.{suffix}")
        assert "\n" not in str(caught.value)
