"""The Dockerfile's steps, read and checked, or run in an empty folder where that is asked for.

HI3D_TEST_IMAGE=1 runs COPY, WORKDIR and RUN below a temporary root with this machine's packages in
the place of the image's, and makes a mesh with what was installed: minutes, and gigabytes.
"""

import fnmatch
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.test_front_door import FEW_STEPS

ROOT = Path(__file__).parents[2]
SYSTEM = ("apt-get", "useradd", "rm")
"""Commands that change the machine: the image's own."""
PACKAGE_OF = {"python3": "python3", "gcc": "gcc"}


def instructions() -> list[tuple[str, str]]:
    """Every instruction and its arguments, continued lines joined."""
    text = (ROOT / "Dockerfile").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [tuple(line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]


def given(name: str) -> list[str]:
    """Arguments of every instruction of a kind."""
    return [words for kind, words in instructions() if kind == name]


def commands() -> list[list[str]]:
    """The words of every command of every RUN."""
    return [shlex.split(part) for words in given("RUN") for part in words.split("&&")]


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps a path out of the build; the last line that fits decides."""
    found = False
    for line in (ROOT / ".dockerignore").read_text().split():
        pattern = line.removeprefix("!").removeprefix("**/")
        parents = ["/".join(path.split("/")[:end]) for end in range(1, path.count("/") + 2)]
        names = [parent.rsplit("/", 1)[-1] for parent in parents] if "**/" in line else parents
        if any(fnmatch.fnmatch(name, pattern) for name in names):
            found = not line.startswith("!")
    return found


def test_what_is_copied_is_there_and_is_not_ignored():
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\n")
    for words in given("COPY"):
        *sources, _ = words.split()
        for source in sources:
            inside = [name for name in tracked if name == source or name.startswith(f"{source}/")]
            assert inside, source
            assert not [name for name in inside if ignored(name)], source
    for name in (
        ".git/config",
        "outputs/a/mesh.glb",
        "data/orbits/a.tar",
        "hi3d/__pycache__/a.pyc",
    ):
        assert ignored(name), name


def test_commands_are_installed_before_they_are_used():
    (packages,) = [words for words in commands() if words[:2] == ["apt-get", "install"]]
    for command in (words[0] for words in commands()):
        known = command in SYSTEM or command.startswith("/opt/venv/bin/")
        assert known or PACKAGE_OF[command] in packages, command
    assert {"gcc", "libc6-dev", "python3-venv"} <= set(packages)  # C kernels; `-m venv`


def test_both_devices_have_a_base():
    assert given("ARG") == ["DEVICE=cpu"]
    assert [words.split(" AS ")[-1] for words in given("FROM")] == [
        "base-cpu",
        "base-cuda",
        "base-${DEVICE}",
    ]


def test_the_user_is_not_root_and_the_entry_point_answers():
    kinds = [kind for kind, _ in instructions()]
    assert given("USER") == ["hi3d"]
    assert "hi3d" in next(words for words in commands() if words[0] == "useradd")
    assert kinds.index("USER") > max(i for i, kind in enumerate(kinds) if kind == "RUN")
    (entry,), (arguments,) = given("ENTRYPOINT"), given("CMD")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"hi3d": "hi3d.__main__:main"}
    assert entry == '["hi3d"]'
    words = [sys.executable, "-m", "hi3d", *re.findall(r'"(.*?)"', arguments)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0
    assert "generate" in done.stdout


@pytest.mark.skipif("HI3D_TEST_IMAGE" not in os.environ, reason="HI3D_TEST_IMAGE=1 builds it")
def test_the_steps_run_in_an_empty_folder(tmp_path):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    folder, environment = tmp_path, kept | {"HOME": str(tmp_path)}

    def inside(words: str) -> str:
        return re.sub(r"(?<![\w.])/(opt|work|tmp/hi3d)\b", rf"{tmp_path}/\1", words)

    seen = []
    for kind, words in instructions():
        seen.append(kind) if kind == "FROM" else None
        if len(seen) == 2:  # the other device's
            continue
        if kind == "WORKDIR":
            folder = Path(inside(words))
            folder.mkdir(parents=True, exist_ok=True)
        elif kind == "ENV":
            for name, value in (word.split("=", 1) for word in words.split()):
                if name not in kept or name == "PATH":  # a mirror of this machine's stays
                    environment[name] = inside(value).replace("$PATH", environment["PATH"])
        elif kind == "COPY":
            *sources, target = words.split()
            for source in sources:
                if (ROOT / source).is_dir():
                    shutil.copytree(ROOT / source, folder / target, symlinks=True)
                else:
                    shutil.copy(ROOT / source, folder / target)
        elif kind == "RUN" and shlex.split(words)[0] not in SYSTEM:
            subprocess.run(inside(words), shell=True, cwd=folder, env=environment, check=True)
    photo = ROOT / "data/examples/mailbox_photo.jpg"
    made = ["hi3d", "generate", str(photo), "--output", "outputs", *FEW_STEPS]
    subprocess.run(made, cwd=folder, env=environment, check=True)
    assert (folder / "outputs/mailbox_photo/mesh.glb").stat().st_size > 0
