"""Mesh files of other units, axes and formats are scored in the coordinates of the protocol."""

import math

import numpy as np
import pytest
import torch
import trimesh

from hi3d.config import load_config
from hi3d.errors import InputError
from hi3d.evaluation.mesh_files import MeshFilesConfig, read_mesh, score_mesh_files, up_axis
from hi3d.mesh import SurfaceMesh, save_mesh

SIDES = (1.0, 0.5, 0.25)
QUICK = ["num_samples=3000", "resolution=32"]


def write(folder, name: str, scale: float = 1.0, shift=(0, 0, 0), y_up: bool = False):
    mesh = trimesh.creation.box(SIDES, trimesh.transformations.translation_matrix((0, 0, 0)))
    mesh.apply_scale(scale)
    mesh.apply_translation(shift)
    if y_up:
        mesh.apply_transform(trimesh.transformations.rotation_matrix(-math.pi / 2, (1, 0, 0)))
    mesh.export(folder / name)
    return folder / name


def scores(pred, gt, *overrides: str):
    return score_mesh_files(pred, gt, load_config(MeshFilesConfig, None, [*QUICK, *overrides]))


def test_a_truth_in_other_units_is_normalised_and_told(tmp_path):
    pred = write(tmp_path, "pred.ply")
    gt = write(tmp_path, "gt.ply", 270.0, (0, 0, 34.0))
    found, line = scores(pred, gt)
    assert found.volume_iou == 1
    assert line.endswith("; truth centered from (0, 0, 34) and divided by 270")
    with pytest.raises(InputError, match="true mesh reaches 135"):
        scores(pred, gt, "normalize_gt=false")
    assert "is centered with longest side 1" in scores(pred, pred)[1]


def test_a_prediction_in_millimeters_is_one_line(tmp_path):
    pred, gt = write(tmp_path, "mm.ply", 1000.0), write(tmp_path, "gt.ply")
    with pytest.raises(InputError, match=r"predicted mesh reaches 500, outside the cube"):
        scores(pred, gt)
    assert scores(pred, gt, "normalize_pred=true")[0].volume_iou == 1


def test_the_upward_axis_is_an_option(tmp_path):
    gt = write(tmp_path, "gt.ply")
    z_up = write(tmp_path, "z_up.obj")  # OBJ is taken as y up
    assert scores(z_up, gt)[0].volume_iou < 0.6
    assert scores(z_up, gt, "up=z")[0].volume_iou == 1
    y_up = write(tmp_path, "y_up.ply", y_up=True)
    assert scores(gt, y_up, "gt_up=y")[0].volume_iou == 1
    with pytest.raises(InputError, match="up is x: give one of y, z"):
        scores(gt, gt, "up=x")


def test_the_output_says_which_axis_is_up_and_why(tmp_path):
    gt, glb = write(tmp_path, "gt.ply"), write(tmp_path, "mesh.glb")
    assert scores(glb, gt)[1].startswith(
        "prediction y up (as glTF has it); truth z up (as PLY files are read); "
    )
    line = scores(gt, glb, "gt_up=z")[1]
    assert "truth z up (as set, ALTHOUGH y is up as glTF has it)" in line
    points = torch.tensor(trimesh.creation.box(SIDES).vertices, dtype=torch.float32)
    faces = torch.tensor(trimesh.creation.box(SIDES).faces)
    save_mesh(SurfaceMesh(points, faces, torch.ones_like(points)), tmp_path / "own.obj")
    assert up_axis(tmp_path / "own.obj", "z").endswith("ALTHOUGH y is up as the file declares)")
    assert up_axis(tmp_path / "other.stl", "y") == "y up (as set)"


def test_meshes_of_this_project_are_scored_in_their_own_axes(tmp_path):
    truth = trimesh.creation.box(SIDES)
    points = torch.tensor(truth.vertices, dtype=torch.float32)
    mesh = SurfaceMesh(points, torch.tensor(truth.faces), torch.ones_like(points))
    gt = write(tmp_path, "gt.ply")
    for name in ("a.glb", "a.obj"):
        save_mesh(mesh, tmp_path / name)
        assert scores(tmp_path / name, gt)[0].volume_iou == 1
        assert scores(tmp_path / name, gt, "front=x")[0].volume_iou < 0.6
    other = write(tmp_path, "other.glb")  # +X, +Y, +Z of the file are SIDES long, nothing declared
    stored = read_mesh(other, "z").vertices
    assert torch.equal(read_mesh(other, None, "z").vertices, stored[:, [2, 0, 1]])
    assert scores(other, other, "front=z", "gt_front=z")[0].volume_iou == 1
    with pytest.raises(InputError, match="front is y: give one of x, z"):
        scores(gt, gt, "front=y")


@pytest.mark.parametrize("name", ["a.stl", "a.off", "a.glb", "a.obj", "a.ply"])
def test_every_format_is_read(name, tmp_path):
    mesh = read_mesh(write(tmp_path, name), "z")
    sides = (mesh.vertices.amax(0) - mesh.vertices.amin(0)).numpy()
    np.testing.assert_allclose(sides, SIDES, atol=1e-5)


def test_files_that_are_no_meshes_are_one_line(tmp_path):
    for name, message in (("a.stl", "read mesh|no triangles"), ("a.xyz", "give one of .glb")):
        (tmp_path / name).write_text("nothing")
        with pytest.raises(InputError, match=message):
            read_mesh(tmp_path / name, None)
    with pytest.raises(InputError, match="no mesh file"):
        read_mesh(tmp_path / "missing.off", None)
