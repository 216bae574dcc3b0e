"""Contact sheets hold the stored pictures at their places, from folders and from shards."""

import shutil
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from hi3d.degradation.draws import DegradationConfig
from hi3d.errors import InputError
from hi3d.pipelines.data_sheets import GAP, LABEL_HEIGHT, LABEL_WIDTH, write_data_sheets
from hi3d.views import Views

CELL = 16
TOP = LABEL_WIDTH + 2 * LABEL_HEIGHT


def cell(sheet: Image.Image, row: int, column: int) -> np.ndarray:
    left, top = LABEL_WIDTH + column * (CELL + GAP), TOP + row * (CELL + GAP)
    return np.asarray(sheet.crop((left, top, left + CELL, top + CELL)))


def pixels(image: torch.Tensor) -> np.ndarray:
    return (image * 255).round().byte().permute(1, 2, 0).numpy()


def test_rows_of_an_orbit(orbits, tmp_path):
    config = DegradationConfig(reference_resolution=16)
    paths = write_data_sheets(orbits, tmp_path, config, 2, [0, 1], 4, CELL)
    assert [path.name for path in paths] == ["sphere0.png", "sphere1.png"]
    sheet = Image.open(paths[1])
    # Target, depth, two degraded inputs, and three rows of details.
    assert sheet.size == (LABEL_WIDTH + 4 * (CELL + GAP), TOP + 7 * (CELL + GAP))
    views = Views.load(orbits / "sphere1")
    for column, view in enumerate((0, 4, 8, 12)):
        assert np.array_equal(cell(sheet, 0, column), pixels(views.rgb[view]))
        outside = (views.alpha[view, 0] == 0).numpy()
        depth = cell(sheet, 1, column)
        assert (depth[outside] == 255).all()
        assert (depth[~outside] < 255).all()
        degraded = cell(sheet, 2, column)
        assert (degraded[outside] == 255).all()
        assert np.array_equal(degraded, cell(sheet, 0, column)) == (column == 0)
    assert not np.array_equal(cell(sheet, 2, 1), cell(sheet, 3, 1))


def test_depth_is_darker_where_nearer(orbits, tmp_path):
    (path,) = write_data_sheets(orbits, tmp_path, None, 1, [], 1, CELL)
    depth = cell(Image.open(path), 1, 0)[..., 0]
    assert depth[8, 8] < depth[8, 5] < 255  # a sphere: its middle is nearest


def test_ring_is_seen_from_above(orbits, tmp_path):
    """Camera 0 stands at azimuth 0, to the right of the middle."""
    (path,) = write_data_sheets(orbits, tmp_path, None, 1, [], 1, CELL)
    ring = np.asarray(Image.open(path))[LABEL_HEIGHT : LABEL_HEIGHT + LABEL_WIDTH, :LABEL_WIDTH]
    rows, columns = np.nonzero((ring == (255, 0, 0)).all(axis=2))
    assert abs(rows.mean() - LABEL_WIDTH / 2) < 2
    assert columns.min() > 0.75 * LABEL_WIDTH


def test_shards_give_the_same_sheets(orbits, tmp_path):
    shard = tmp_path / "shards" / "orbits-000000.tar"
    shard.parent.mkdir()
    with tarfile.open(shard, "w") as tar:
        for file in sorted((orbits / "sphere2").iterdir(), key=lambda p: (p.suffix == ".json", p)):
            name = file.name.replace("-depth", ".depth").replace("cameras.json", "json")
            tar.add(file, f"sphere2.{name}")
    (ours,) = write_data_sheets(shard.parent, tmp_path / "a", None, 8, [], 2, CELL)
    one = tmp_path / "one"
    shutil.copytree(orbits / "sphere2", one / "sphere2")
    (expected,) = write_data_sheets(one, tmp_path / "b", None, 8, [], 2, CELL)
    assert np.array_equal(np.asarray(Image.open(ours)), np.asarray(Image.open(expected)))


def test_normals_are_drawn_where_stored(orbits, tmp_path):
    shutil.copytree(orbits / "sphere0", tmp_path / "data" / "sphere0")
    for view in range(16):
        up = np.full((16, 16, 3), 128, np.uint8)
        up[4:8] = (128, 128, 255)
        Image.fromarray(up).save(tmp_path / "data" / "sphere0" / f"{view:03d}-normal.png")
    (path,) = write_data_sheets(tmp_path / "data", tmp_path / "out", None, 1, [], 1, CELL)
    normals = cell(Image.open(path), 2, 0)
    assert (normals[:4] == 255).all()
    assert np.abs(normals[5, 5].astype(int) - (128, 128, 255)).max() <= 1


def test_wrong_input_is_one_line(orbits, tmp_path):
    with pytest.raises(InputError, match="neither orbit folders nor shards"):
        write_data_sheets(tmp_path, tmp_path / "out", None)
    with pytest.raises(InputError, match="1 or more"):
        write_data_sheets(orbits, tmp_path / "out", None, cell=0)
    with pytest.raises(InputError, match="no shard"):
        write_data_sheets(tmp_path / "missing", tmp_path / "out", None)
