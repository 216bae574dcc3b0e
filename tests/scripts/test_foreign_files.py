"""Files that never end, unpack to far more than they are, or are nested without end."""

import json
import os
import shutil
import socket
import zipfile
from pathlib import Path

import pytest

from hi3d.assets.furniture import prepare_furniture
from hi3d.cameras import orbit_cameras
from hi3d.config import load_config
from hi3d.errors import InputError
from hi3d.files import parse_json, regular_file
from hi3d.pipelines.image_to_3d import GenerateConfig
from hi3d.views import load_depth, load_rgba
from tests.conftest import sphere_views
from tests.scripts.test_bad_input import huge_png

SPECIAL = ["pipe", "socket", "device"]
DEEP = "[" * 100_000


def make_special(path: Path, kind: str) -> None:
    """A file whose reading would wait or go on for ever."""
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        os.chdir(path.parent)  # a socket's path has at most 108 bytes
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    else:
        path.symlink_to("/dev/zero")


@pytest.fixture(autouse=True)
def _come_back(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


def check_line(finished, *words: str) -> None:
    assert finished.code == 2, finished
    lines = [line for line in finished.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, finished.err
    assert "Traceback" not in finished.err
    assert all(word in lines[0] for word in words), lines[0]


@pytest.mark.parametrize("kind", SPECIAL)
def test_only_regular_files_are_read(kind, tmp_path):
    make_special(tmp_path / "x", kind)
    with pytest.raises(InputError, match="x is not a regular file"):
        regular_file(tmp_path / "x")
    assert regular_file(tmp_path / "absent") == tmp_path / "absent"
    assert regular_file(tmp_path) == tmp_path


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize(
    ("script", "name"),
    [
        ("generate.py", "photo.png"),
        ("generate.py", "settings.yaml"),
        ("reconstruct.py", "000.png"),
        ("reconstruct.py", "cameras.json"),
        ("reconstruct.py", "transforms.json"),
        ("evaluate.py", "mesh.ply"),
        ("evaluate.py", "mesh.stl"),
        ("evaluate.py", "mesh.glb"),
        ("render_orbits.py", "mesh.obj"),
        ("inspect_data.py", "001.png"),
        ("prepare_furniture.py", "set.sh3f"),
    ],
)
def test_what_never_ends_is_one_line(kind, script, name, tmp_path, run_script):
    views, _ = sphere_views(orbit_cameras(20, 16, 4))
    folder = tmp_path / "in" / "views"
    views.save(folder)
    path = folder / name
    output = ("--output", tmp_path / "out")
    if name == "transforms.json":
        (folder / "cameras.json").unlink()
    make_special(path, kind)
    words = {
        "photo.png": (path, *output),
        "settings.yaml": (folder / "000.png", "--config", path, *output),
        "000.png": (folder, *output),
        "cameras.json": (folder, *output),
        "transforms.json": (folder, *output),
        "001.png": (folder.parent, *output),
        "mesh.obj": (path, *output, "num_workers=0"),
        "set.sh3f": (path, *output),
    }.get(name, ("mesh", "--pred", path, "--gt", path))
    expected = () if name == "mesh.obj" else (name, "is not a regular file")
    check_line(run_script(script, *words, "--quiet"), *expected)


@pytest.mark.parametrize("name", ["cameras.json", "transforms.json"])
@pytest.mark.parametrize(
    "text",
    [DEEP, '{"frames": ' + DEEP, "NaN", '{"frames": 1e999}'],
    ids=["deep", "deep frames", "nan", "infinite"],
)
def test_deep_or_infinite_json_is_one_line(name, text, tmp_path, run_script):
    views, _ = sphere_views(orbit_cameras(20, 16, 4))
    views.save(tmp_path / "views")
    (tmp_path / "views" / "cameras.json").unlink()
    (tmp_path / "views" / name).write_text(text)
    result = run_script("reconstruct.py", tmp_path / "views", "--output", tmp_path / "out")
    check_line(result, name)


def test_json_of_others_is_finite_and_flat():
    assert parse_json('{"a": [1, 2.5, null]}') == {"a": [1, 2.5, None]}
    for text in (DEEP, "NaN", "[-Infinity]", "1e999"):
        with pytest.raises(ValueError, match=r"nested|finite"):
            parse_json(text)


@pytest.mark.parametrize(
    "text",
    ["[" * 2000, "a: " + "[" * 2000, "seed: " + "9" * 100_000, "x" * 2_000_000],
    ids=["deep", "deep value", "digits", "large"],
)
def test_deep_or_large_yaml_is_one_line(text, tmp_path):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(InputError, match=r"^[^\n]{1,400}$"):
        load_config(GenerateConfig, tmp_path / "a.yaml")


def test_aliases_of_aliases_do_not_fill_the_memory(tmp_path):
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 20)]
    (tmp_path / "a.yaml").write_text("\n".join(lines))
    with pytest.raises(InputError, match=r"over \d+ aliases"):
        load_config(GenerateConfig, tmp_path / "a.yaml")


def test_images_of_too_many_pixels_are_one_line(tmp_path):
    huge_png(tmp_path / "a.png")
    for read in (load_rgba, load_depth):
        with pytest.raises(InputError, match="cannot read"):
            read(tmp_path / "a.png")


@pytest.mark.parametrize("where", ["properties", "model", "beside", "nested", "many"])
def test_a_catalogue_that_unpacks_to_gigabytes_is_a_failure(where, tmp_path, monkeypatch):
    import hi3d.assets.furniture as furniture

    for name in ("MAX_MEMBER_BYTES", "MAX_OBJECT_BYTES"):
        monkeypatch.setattr(furniture, name, 1 << 20)
    bomb, triangle = bytes(2 << 20), "v 0 0 0\nv 1 0 0\nv 0 2 0\nf 1 2 3\n"
    properties = "name#1=A\nmodel#1=/a/a.obj\nname#2=B\nmodel#2=/b/b.obj\n"
    files: dict[str, str | bytes] = {"a/a.obj": triangle, "b/b.obj": triangle}
    if where == "nested":
        with zipfile.ZipFile(tmp_path / "inner.zip", "w", zipfile.ZIP_DEFLATED) as inner:
            inner.writestr("a.obj", bomb)
        files["a/a.zip"] = (tmp_path / "inner.zip").read_bytes()
        properties = properties.replace("a.obj", "a.zip")
    elif where == "many":
        files |= {f"a/{i}.png": bytes(1 << 19) for i in range(4)}
    else:
        files[{"properties": "-", "model": "a/a.obj", "beside": "a/t.png"}[where]] = bomb
    with zipfile.ZipFile(tmp_path / "set.sh3f", "w", zipfile.ZIP_DEFLATED) as archive:
        content = properties.encode() + (bomb if where == "properties" else b"")
        archive.writestr("PluginFurnitureCatalog.properties", content)
        for name, data in files.items():
            archive.writestr(name, data)
    if where == "properties":
        with pytest.raises(InputError, match="is no furniture catalogue"):
            prepare_furniture(tmp_path / "out", catalogues=[tmp_path / "set.sh3f"])
        return
    summary = prepare_furniture(tmp_path / "out", catalogues=[tmp_path / "set.sh3f"])
    assert (summary.num_extracted, summary.num_failed) == (1, 1)
    (failure,) = (tmp_path / "out" / "failures.jsonl").read_text().splitlines()
    assert "unpacked" in json.loads(failure)["reason"]
    shutil.rmtree(tmp_path / "out")
