"""Every method's layout is read from files written as that method writes them."""

import imageio
import numpy as np
import pytest
import torch
from PIL import Image

from hi3d.errors import InputError
from hi3d.evaluation.methods.layouts import LAYOUTS, Layout
from hi3d.evaluation.methods.reading import find_output, over_white, read_output, turned
from hi3d.mesh import SurfaceMesh, save_mesh

SIDE = 16
CORNER = np.array([[0, 0, 0], [1, 0, 0], [0, 0.5, 0], [0, 0, 0.25]])
FACES = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
FOLDERS = {name: layout for name, layout in LAYOUTS.items() if layout.views}
MESHES = {name: layout for name, layout in LAYOUTS.items() if layout.meshes}


def gray(view: int, count: int) -> np.ndarray:
    """A view whose level says its number."""
    return np.full((SIDE, SIDE, 3), 40 + view * 200 // count, np.uint8)


def write_views(layout: Layout, path) -> None:
    count = len(layout.azimuths_deg)
    images = [gray(view, count) for view in range(count)]
    if layout.kind == "files":
        path.mkdir(parents=True, exist_ok=True)
        for name, image in zip(
            layout.names or [f"{view:03d}.png" for view in range(count)], images, strict=True
        ):
            Image.fromarray(image).save(path / name)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if layout.kind == "video":
        imageio.mimwrite(path, images, fps=8, macro_block_size=1, codec="libx264rgb", quality=10)
        return
    columns = count if layout.kind == "strip" else layout.columns
    rows = [np.hstack(images[i : i + columns]) for i in range(0, count, columns)]
    Image.fromarray(np.vstack(rows)).save(path, quality=95)


def filled(pattern: str, seed: int | None = 0) -> str:
    return pattern.replace("{object}", "cup").replace("{seed}", str(seed)).replace("*", "a")


@pytest.mark.parametrize("name", FOLDERS)
def test_the_views_of_a_method_come_in_order(name, tmp_path):
    layout = LAYOUTS[name]
    write_views(layout, tmp_path / filled(layout.views[0]))
    found = read_output(layout, tmp_path, "cup", seed=0)
    count = len(layout.azimuths_deg)
    assert found.rgb is not None
    assert found.rgb.shape == (count, 3, SIDE, SIDE)
    levels = torch.tensor([gray(view, count)[0, 0, 0] / 255 for view in range(count)])
    torch.testing.assert_close(found.rgb.mean((1, 2, 3)), levels.float(), atol=0.02, rtol=0)
    assert len(set(found.azimuths_deg)) == count
    assert min(found.azimuths_deg) >= 0


@pytest.mark.parametrize("name", MESHES)
def test_the_mesh_of_a_method_stands_upright_with_its_front_at_x(name, tmp_path):
    layout = LAYOUTS[name]
    unit = {axis: np.eye(3)["xyz".index(axis)] for axis in "xyz"}
    unit |= {f"-{axis}": -unit[axis] for axis in "xyz"}
    front, up = unit[layout.front], unit[layout.up]
    world = CORNER @ np.stack([front, np.cross(up, front), up])  # the truth in the method's axes
    path = tmp_path / filled(layout.meshes[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    if layout.declared:
        points = torch.tensor(CORNER, dtype=torch.float32)
        save_mesh(SurfaceMesh(points, torch.tensor(FACES), torch.full_like(points, 0.5)), path)
    elif path.suffix == ".ply":
        write_ply(path, world)
    elif path.suffix == ".obj":
        lines = [f"v {x} {y} {z}" for x, y, z in world]
        path.write_text("\n".join([*lines, *(f"f {a + 1} {b + 1} {c + 1}" for a, b, c in FACES)]))
    else:
        import trimesh

        trimesh.Trimesh(world, FACES, process=False).export(path)
    mesh = read_output(layout, tmp_path, "cup", seed=0).mesh
    assert mesh is not None
    extent = mesh.vertices.amax(0) - mesh.vertices.amin(0)
    torch.testing.assert_close(extent, torch.tensor([1.0, 0.5, 0.25]), atol=1e-5, rtol=0)
    far = mesh.vertices[mesh.vertices[:, 0].argmax()]
    assert far[2] == mesh.vertices[:, 2].min()  # the long edge lies on the ground, towards +x


def write_ply(path, vertices) -> None:
    head = f"ply\nformat ascii 1.0\nelement vertex {len(vertices)}\n"
    head += "".join(f"property float {axis}\n" for axis in "xyz")
    head += f"element face {len(FACES)}\nproperty list uchar int vertex_indices\nend_header\n"
    body = [" ".join(map(str, row)) for row in vertices]
    body += [" ".join(map(str, [3, *row])) for row in FACES]
    path.write_text(head + "\n".join(body) + "\n")


def test_axes_are_turned_without_mirroring():
    for up, front in (("z", "x"), ("y", "z"), ("z", "-y")):
        rotation = turned(torch.eye(3), up, front)
        assert torch.linalg.det(rotation).item() == pytest.approx(1)
    assert turned(torch.tensor([[0.0, 0.0, 1.0]]), "y", "z").tolist() == [[1, 0, 0]]
    with pytest.raises(InputError, match="one axis"):
        turned(torch.eye(3), "y", "-y")


def test_what_is_missing_or_of_another_number_is_one_line(tmp_path):
    with pytest.raises(InputError, match="nothing of cup"):
        read_output(LAYOUTS["triposr"], tmp_path, "cup")
    Image.new("RGB", (SIDE * 15, SIDE)).save(tmp_path / "cup.png")
    with pytest.raises(InputError, match="no 1 x 16 grid"):
        read_output(LAYOUTS["syncdreamer"], tmp_path, "cup")
    folder = tmp_path / "jug"
    folder.mkdir()
    Image.new("RGB", (SIDE, SIDE)).save(folder / "000.png")
    with pytest.raises(InputError, match="1 views, not 16"):
        read_output(LAYOUTS["plain"], tmp_path, "jug")


def test_names_with_wildcards_are_names(tmp_path):
    (tmp_path / "cup1.ply").write_text("")
    assert find_output(("{object}.ply",), tmp_path, "cup[0-9]", None, True) is None
    (tmp_path / "cup[0-9].ply").write_text("")
    assert find_output(("{object}.ply",), tmp_path, "cup[0-9]", None, True) is not None


def test_straight_alpha_is_put_over_white_and_white_stays():
    alpha = torch.zeros(1, 2, 2)
    assert (over_white(torch.zeros(3, 2, 2), alpha) == 1).all()
    assert (over_white(torch.ones(3, 2, 2), alpha) == 1).all()
