"""Sets of objects: the lists that the project ships, folders, and what a download lacks."""

import shutil
from pathlib import Path

import pytest

from hi3d.errors import InputError
from hi3d.evaluation.object_sets import load_objects, set_faults

OBJECTS = Path(__file__).parents[2] / "data" / "examples" / "objects"
LIST = "files: ['{name}.glb', '{name}/model.glb']\nviews: ['gso-eval/{name}']\n"


@pytest.mark.parametrize(
    ("name", "count"), [("gso30", 30), ("gso30_varied", 30), ("household", 40)]
)
def test_the_shipped_lists_have_their_objects(name, count):
    entries = load_objects(f"data/eval/{name}.yaml", "somewhere")
    assert len(entries) == len({entry.name for entry in entries}) == count
    assert all(entry.path.is_relative_to("somewhere") for entry in entries)


def test_the_published_set_has_its_angles():
    angles = {e.name: e.azimuth_deg for e in load_objects("data/eval/gso30.yaml", "x")}
    expected = {"sofa": -90, "chicken": 270, "elephant": 180, "turtle": 225, "sorter": 112.5}
    assert {name: angles[name] for name in expected} == expected
    assert sum(angle == 0 for angle in angles.values()) == 11
    assert angles["hat"] == 0


def test_any_folder_is_a_set():
    assert [entry.name for entry in load_objects(str(OBJECTS))] == ["chair", "mailbox"]


def test_faults_of_a_download_name_object_and_file(tmp_path):
    listed = tmp_path / "set.yaml"
    listed.write_text(LIST + "objects: {chair: 0, lost: 90, broken: 0}\n")
    (tmp_path / "chair").mkdir()
    shutil.copy(OBJECTS / "chair.glb", tmp_path / "chair" / "model.glb")
    (tmp_path / "broken.glb").write_bytes(b"no model")
    (tmp_path / "gso-eval" / "chair").mkdir(parents=True)
    faults = set_faults(str(listed))
    assert sum("lost: no file" in fault for fault in faults) == 1
    assert sum(fault.startswith("broken: ") for fault in faults) == 1
    assert sum(fault.startswith("chair: ") for fault in faults) == 16  # views that are not there
    assert len(faults) == 18


@pytest.mark.parametrize(
    ("text", "message"),
    [("title: x\n", "objects is empty"), ("files: [a.glb]\nobjects: {a: 0}\n", "has no {name}")],
)
def test_a_list_that_is_none_is_one_line(tmp_path, text, message):
    (tmp_path / "set.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        load_objects(str(tmp_path / "set.yaml"))
