"""An installation without the checkout: the wheel holds all that `hi3d generate` needs."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

from hi3d.assets.surface_mesh import load_mesh

ROOT = Path(__file__).parents[2]
FEW_STEPS = [
    "foreground.resolution=32",
    "mesh.interpolated_views=2",
    "mesh.splats.steps=2",
    "mesh.splats.num_initial=100",
    "mesh.neus.steps=2",
    "mesh.neus.rays_per_step=64",
    "mesh.neus.resolutions=[16]",
    "mesh.neus.resolution_starts=[0.0]",
    "mesh.meshing.target_faces=300",
    "mesh.texture.resolution=64",
    "turntable.num_frames=2",
    "turntable.resolution=32",
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy of what is under version control here, as `pip install .` builds it."""
    if find_spec("setuptools") is None or find_spec("pip") is None:
        pytest.skip("no pip and setuptools in this environment: a wheel cannot be built offline")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("hi3d", "configs", "scripts", "data/models", "data/weights"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    options = ["--no-deps", "--no-build-isolation", "--quiet", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", folder, source]
    subprocess.run(list(map(str, command)), check=True, timeout=120)
    (path,) = folder.glob("hi3d-*.whl")
    return path


@pytest.fixture(scope="module")
def program(wheel, tmp_path_factory) -> Path:
    """The command of a fresh environment that has the wheel and sees the libraries of this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    paths = {"base": str(folder), "platbase": str(folder)}
    packages = Path(sysconfig.get_path("purelib", "venv", vars=paths))
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    options = ["--no-deps", "--quiet", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install"]
    subprocess.run(list(map(str, [*command, *options, wheel])), check=True, timeout=120)
    return folder / "bin" / "hi3d"


def run(program: Path, cwd: Path, *words: object) -> subprocess.CompletedProcess[str]:
    cwd.mkdir(exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(program), *map(str, words)]
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )


def test_generate_from_an_empty_folder(program, tmp_path):
    photo = tmp_path / "photo.png"
    with Image.open(ROOT / "data/examples/chair.png") as chair:
        chair.resize((96, 96)).save(photo)
    empty = tmp_path / "empty"
    done = run(program, empty, "generate", photo, "--output", "out", *FEW_STEPS)
    assert done.returncode == 0, done.stderr
    assert load_mesh(empty / "out" / "photo" / "mesh.glb").texture is not None
    report = (empty / "out" / "photo" / "report.json").read_text()
    assert '"stage1": "data/models/nano/stage1"' in report
    assert "no C compiler" not in done.stdout


def test_shipped_config_is_found_and_a_missing_object_is_one_line(program, tmp_path):
    config = "configs/render_orbits/paper.yaml"
    words = ["render-orbits", "absent.glb", "--output", "out", "--config", config]
    done = run(program, tmp_path / "empty", *words)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "absent.glb" in done.stderr
    assert len(done.stderr.splitlines()) == 1
