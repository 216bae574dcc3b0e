"""`import hi3d`: light, whole, and as the README uses it."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import hi3d

ROOT = Path(__file__).parents[1]
FEW_STEPS = [
    "seed=0",
    "mesh.interpolated_views=2",
    "mesh.splats.steps=5",
    "mesh.splats.num_initial=200",
    "mesh.neus.steps=6",
    "mesh.neus.rays_per_step=128",
    "mesh.neus.resolutions=[16]",
    "mesh.neus.resolution_starts=[0.0]",
    "mesh.meshing.target_faces=500",
    "mesh.texture.resolution=128",
]


def test_import_loads_no_library():
    code = "import sys, hi3d; dir(hi3d); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert "hi3d" in loaded, done.stderr
    assert not loaded & {"torch", "numpy", "diffusers", "omegaconf", "PIL", "rich"}


@pytest.mark.parametrize("name", hi3d.__all__)
def test_public_name(name):
    value = getattr(hi3d, name)
    assert value.__name__ == name
    assert value.__doc__
    assert name in dir(hi3d)


def test_type_checkers_see_the_same_names():
    (block,) = (n for n in ast.parse(Path(hi3d.__file__).read_text()).body if isinstance(n, ast.If))
    seen = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert sorted(seen) == sorted(hi3d.__all__)
    for name, module in seen.items():
        assert getattr(importlib.import_module(str(module)), name) is getattr(hi3d, name)
    assert (Path(hi3d.__file__).parent / "py.typed").is_file()


def test_unknown_name():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = hi3d.nonsense  # type: ignore[attr-defined]


def test_readme_goes_from_a_photo_to_a_glb(tmp_path, monkeypatch):
    """The lines as they stand, with fewer steps."""
    (lines,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(lines.strip().splitlines()) <= 8
    assert lines.count('["seed=0"]') == 1
    photo = "data/examples/mailbox_photo.jpg"
    lines = lines.replace('["seed=0"]', repr(FEW_STEPS)).replace(photo, str(ROOT / photo))
    monkeypatch.chdir(tmp_path)
    exec(compile(lines, "README.md", "exec"), {})
    assert hi3d.Views.load("mailbox_views").rgb.shape == (16, 3, 128, 128)
    mesh = hi3d.load_mesh("mailbox.glb")
    assert mesh.texture is not None
    assert mesh.texture.shape == (3, 128, 128)
    sides = mesh.vertices.amax(0) - mesh.vertices.amin(0)
    assert 0.3 < sides.max() < 1.1 + 1.1 / 16  # the box that is searched, and a voxel
