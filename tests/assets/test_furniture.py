"""A small furniture catalogue, written by hand, is extracted."""

import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from hi3d.assets.furniture import (
    FurnitureConfig,
    installed_catalogues,
    parse_properties,
    prepare_furniture,
)
from hi3d.assets.load import load_object
from hi3d.assets.obj_repair import repaired_mtl, rotated_obj
from hi3d.assets.sources import find_objects
from hi3d.errors import InputError

OBJ = "mtllib m.mtl\nv 0 0 0\nv 1 0 0\nv 0 2 0\nvt 0 0\nvt 1 0\nvt 0 1\nusemtl m\nf 1/1 2/2 3/3\n"


def catalogue(path, license_text="Public domain"):
    png = io.BytesIO()
    Image.fromarray(np.array([[[1, 2, 3, 0], [4, 5, 6, 255]]], np.uint8)).save(png, "PNG")
    nested = io.BytesIO()
    with zipfile.ZipFile(nested, "w") as inner:
        inner.writestr("lamp.obj", OBJ.replace("mtllib m.mtl\n", "").replace("usemtl m\n", ""))
    properties = f"""# comment
license={license_text}
provider=us
name#1=Bill 10\\u20ac
model#1=/set/chair/chair.obj
creator#1=Ann
category#1=Seats
modelRotation#1=1 0 0 0 0 1 0 -1 0
name#2=Lamp
model#2=/set/lamp.zip
name#3=Gone
model#3=/set/gone.obj
name#4=Other
model#4=/set/other.dae
"""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("PluginFurnitureCatalog.properties", properties.encode("latin-1"))
        archive.writestr("set/chair/chair.obj", OBJ)
        archive.writestr("set/chair/m.mtl", "newmtl m\nmap_Kd t.png\n")
        archive.writestr("set/chair/t.png", png.getvalue())
        archive.writestr("set/chair/LICENSE.txt", "thanks")
        archive.writestr("set/lamp.zip", nested.getvalue())
        archive.writestr("set/other.dae", "")
    return path


def test_each_object_gets_a_folder_with_its_source(tmp_path):
    output = tmp_path / "out"
    summary = prepare_furniture(output, catalogues=[catalogue(tmp_path / "Set 1.sh3f")])
    assert (summary.num_objects, summary.num_extracted, summary.num_failed) == (4, 2, 2)
    assert sorted(find_objects(output)) == ["Set_1__chair__chair", "Set_1__lamp__lamp"]
    sources = [json.loads(line) for line in (output / "sources.jsonl").read_text().splitlines()]
    assert sources[0] == {
        "folder": "Set_1/chair",
        "file": "Set_1/chair/chair.obj",
        "name": "Bill 10€",
        "category": "Seats",
        "author": "Ann",
        "license": "CC0-1.0",
        "catalogue": "Set 1.sh3f",
        "missing_textures": [],
    }
    assert sources[1]["author"] == "us"
    failures = [json.loads(line) for line in (output / "failures.jsonl").read_text().splitlines()]
    assert "gone.obj" in failures[0]["reason"]
    assert failures[1]["reason"] == "its model is .dae, not OBJ"
    assert (output / "Set_1" / "chair" / "LICENSE.txt").read_text() == "thanks"


def test_models_are_turned_and_their_alpha_is_used(tmp_path):
    prepare_furniture(tmp_path / "out", catalogues=[catalogue(tmp_path / "s.sh3f")])
    path = tmp_path / "out" / "s" / "chair" / "chair.obj"
    part = load_object(path, normalise=False, up="z").parts[0]
    # (x, y, z) -> (x, z, -y)
    np.testing.assert_allclose(part.vertices, [[0, 0, 0], [1, 0, 0], [0, 0, -2]])
    assert part.alpha_mode == "MASK"


def test_another_call_finishes_the_rest(tmp_path):
    path, output = catalogue(tmp_path / "s.sh3f"), tmp_path / "out"
    partial = output / "s" / ".chair.part"
    partial.mkdir(parents=True)
    (partial / "chair.obj").write_text("cut of")
    prepare_furniture(output, catalogues=[path])
    assert not partial.exists()
    (output / "s" / "chair" / "mine.txt").touch()
    summary = prepare_furniture(output, catalogues=[path])
    assert (summary.num_extracted, summary.num_skipped) == (0, 2)
    assert (output / "s" / "chair" / "mine.txt").exists()


def test_only_the_public_domain(tmp_path):
    free = catalogue(tmp_path / "free.sh3f")
    named = catalogue(tmp_path / "named.sh3f", "Creative Commons Attribution 3.0 license")
    config = FurnitureConfig(cc0_only=True)
    prepare_furniture(tmp_path / "out", config, [free, named])
    assert {uid.partition("__")[0] for uid in find_objects(tmp_path / "out")} == {"free"}
    with pytest.raises(InputError, match="no such object"):
        prepare_furniture(tmp_path / "other", config, [named])


def test_properties_and_rotation():
    text = "a = 1\n! no\nb:x\\u00e9\\\n  y\nmodel#1=/a b.obj\n"
    expected = {"a": "1", "b": "xéy", "model#1": "/a b.obj"}
    assert parse_properties(text.encode("latin-1")) == expected
    content = b"v 1 2 3 0.5 0.5 0.5\r\nvn 0 0 1\r\nvt 1 2\r\n"
    turned = rotated_obj(content, [0, -1, 0, 1, 0, 0, 0, 0, 1])
    assert turned == b"v -2 1 3 0.5 0.5 0.5\r\nvn 0 0 1\r\nvt 1 2\r\n"


def test_maps_without_a_file_are_dropped():
    mtl = b"newmtl a\nKd 1 0 0\nmap_Kd C:\\art\\GONE.png\nnewmtl b\nmap_Kd -s 2 2 T.jpg\n"
    content, missing = repaired_mtl(mtl, {"t.jpg": b""})
    assert content == b"newmtl a\nKd 1 0 0\n\nnewmtl b\nmap_Kd -s 2 2 T.jpg\n"
    assert missing == ["C:/art/GONE.png"]


def test_what_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_DIRS", str(tmp_path))
    with pytest.raises(InputError, match="apt-get install sweethome3d-furniture"):
        prepare_furniture(tmp_path / "out")
    (tmp_path / "sweethome3d" / "furniture").mkdir(parents=True)
    bad = tmp_path / "sweethome3d" / "furniture" / "a.sh3f"
    bad.write_text("no zip")
    assert installed_catalogues() == [bad]
    with pytest.raises(InputError, match="is no furniture catalogue"):
        prepare_furniture(tmp_path / "out")
