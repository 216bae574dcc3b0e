"""Files, folders, lists, scanned objects and Objaverse (a stand-in of its package) as sources."""

import gzip
import json
import sys
import types

import pytest

from hi3d.assets.sources import collection_root, fetch_object, find_objects
from hi3d.errors import InputError

UIDS = [digit * 32 for digit in "0123"]


@pytest.fixture
def folder(tmp_path):
    for name in ("a.glb", "b.obj", "kit 1.0/c.d.ply", ".hidden.glb", ".part/x.glb", "notes.txt"):
        path = tmp_path / "objects" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    return tmp_path / "objects"


@pytest.fixture
def objaverse(monkeypatch, tmp_path):
    """A module with the functions of objaverse 0.1.7 that are called."""
    module = types.ModuleType("objaverse")
    module.BASE_PATH = str(tmp_path)
    module.calls = []
    paths = {uid: f"glbs/000-000/{uid}.glb" for uid in UIDS}

    def _load_object_paths():
        module.calls.append("paths")
        return paths

    def load_objects(uids, download_processes=1):
        found = module._load_object_paths()
        print("Downloaded 1 / 1 objects")
        return {uid: str(tmp_path / found[uid]) for uid in uids if uid in found}

    module._load_object_paths = _load_object_paths
    module.load_uids = lambda: list(module._load_object_paths())
    module.load_objects = load_objects
    module.load_lvis_annotations = lambda: {"chair": UIDS[:2], "sofa": UIDS[1:3]}
    monkeypatch.setitem(sys.modules, "objaverse", module)
    return module


def test_folder_file_and_list_of_files(folder):
    found = find_objects(folder)
    assert found == {
        "a": str(folder / "a.glb"),
        "b": str(folder / "b.obj"),
        "kit_1_0__c_d": str(folder / "kit 1.0/c.d.ply"),
    }
    assert find_objects(str(folder / "a.glb")) == {"a": str(folder / "a.glb")}
    assert list(find_objects([folder / "b.obj", folder / "kit 1.0"])) == ["b", "c_d"]
    assert fetch_object(found["a"]) == folder / "a.glb"


def test_list_files(folder, objaverse):
    text = f"# mine\na.glb\n\nkit 1.0\n{folder / 'b.obj'}\na.glb\n{UIDS[0]}\nobjaverse:{UIDS[1]}\n"
    (folder / "list.txt").write_text("\ufeff" + text)
    found = find_objects(folder / "list.txt")
    assert list(found) == ["a", "c_d", "b", UIDS[0], UIDS[1]]
    assert found[UIDS[1]] == f"objaverse:{UIDS[1]}"
    (folder / "uids.json").write_text(json.dumps(UIDS))
    assert list(find_objects(folder / "uids.json")) == UIDS
    (folder / "lvis.json").write_text(json.dumps({"chair": UIDS[:2], "sofa": UIDS[1:3]}))
    assert list(find_objects(folder / "lvis.json")) == UIDS[:3]


def test_the_same_name_in_two_places_stays_distinct(folder):
    (folder / "kit 1.0" / "a.glb").touch()
    uids = list(find_objects([folder / "a.glb", folder / "kit 1.0" / "a.glb"]))
    assert len(set(uids)) == 2
    assert all(uid.startswith("a-") for uid in uids)


def test_scanned_objects_are_listed_once_by_their_folder(tmp_path):
    for name in ("Blue_Bowl", "Cup v1.5"):
        meshes = tmp_path / "gso" / name / "meshes"
        meshes.mkdir(parents=True)
        for file in ("model.obj", "model.mtl", "model.glb"):
            (meshes / file).touch()
    found = find_objects(tmp_path / "gso")
    bowl = tmp_path / "gso" / "Blue_Bowl"
    assert sorted(found) == ["Blue_Bowl", "Cup_v1_5"]
    assert found["Blue_Bowl"] == str(bowl / "meshes" / "model.obj")
    assert list(find_objects(bowl)) == ["Blue_Bowl"]
    assert list(find_objects(bowl / "meshes" / "model.obj")) == ["Blue_Bowl"]
    cup = tmp_path / "gso" / "Cup v1.5" / "meshes" / "model.obj"
    assert list(find_objects(cup)) == ["Cup_v1_5"]


def test_objaverse_objects(objaverse, tmp_path, capsys):
    assert list(find_objects("objaverse:lvis")) == UIDS[:3]
    assert list(find_objects("objaverse:lvis:sofa")) == UIDS[1:3]
    found = find_objects(UIDS[3])
    assert found == {UIDS[3]: f"objaverse:{UIDS[3]}"}
    for uid in UIDS:
        assert fetch_object(f"objaverse:{uid}") == tmp_path / f"glbs/000-000/{uid}.glb"
    assert objaverse.calls == ["paths"]  # parsed once, not for every object
    assert capsys.readouterr().out == ""
    with pytest.raises(InputError, match="Objaverse has no object"):
        fetch_object("objaverse:" + "f" * 32)
    with pytest.raises(InputError, match="no category chairs: did you mean chair"):
        find_objects("objaverse:lvis:chairs")
    with pytest.raises(InputError, match="32 hexadecimal digits"):
        find_objects("objaverse:chair")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError("no route to host"), "cannot be reached .* check the network"),
        (EOFError("ended early"), "cut off .* delete the .json.gz"),
        (gzip.BadGzipFile("not gzip"), "cannot be reached|cut off"),
    ],
)
def test_objaverse_failures_are_one_clear_line(objaverse, error, message):
    def fail(uids):
        raise error

    objaverse.load_objects = fail
    with pytest.raises(InputError, match=message):
        fetch_object(f"objaverse:{UIDS[0]}")


def test_objaverse_without_its_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "objaverse", None)
    with pytest.raises(InputError, match=r"pip install 'hi3d\[objaverse\]'"):
        find_objects("objaverse:lvis")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("list.txt", "# nothing\n", "names no object"),
        ("list.txt", "gone.glb\n", "no object at .*gone.glb"),
        ("list.txt", "other.txt\n", "list in a list"),
        ("list.json", "[1, 2]", "JSON list of paths"),
        ("list.json", "{", "is no list of objects"),
        ("list.txt", b"\xff\xfe\x00", "is no list of objects"),
        ("image.png", "", "not an object file"),
    ],
)
def test_bad_sources_are_one_clear_line(tmp_path, name, content, message):
    (tmp_path / "other.txt").write_text("a.glb\n")
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message) as caught:
        find_objects(path)
    assert "\n" not in str(caught.value)


def test_empty_sources(tmp_path):
    with pytest.raises(InputError, match="holds no object"):
        find_objects(tmp_path)
    with pytest.raises(InputError, match="list of objects is empty"):
        find_objects([])


def test_folders_and_lists_are_the_roots_of_their_objects(tmp_path):
    file = tmp_path / "all" / "chairs" / "a.obj"
    file.parent.mkdir(parents=True)
    file.touch()
    (tmp_path / "all" / "list.txt").write_text("chairs/a.obj\n")
    (location,) = find_objects(tmp_path / "all").values()
    assert collection_root(tmp_path / "all", location) == tmp_path / "all"
    assert collection_root(tmp_path / "all" / "list.txt", location) == tmp_path / "all"
    assert collection_root([tmp_path / "gone", str(tmp_path)], location) == tmp_path
    assert collection_root(file, location) is None
    assert collection_root("objaverse:lvis", "objaverse:" + "0" * 32) is None
