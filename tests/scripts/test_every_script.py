"""What all scripts have in common: help, settings that are checked, nothing lost."""

from pathlib import Path

import pytest

from hi3d import __version__

SCRIPTS = sorted(path.name for path in (Path(__file__).parents[2] / "scripts").glob("*.py"))
WORDS = {
    "ablate.py": ["--config", "{tmp}/absent.yaml", "--output", "{tmp}/out"],
    "cache_latents.py": ["--config", "{tmp}/absent.yaml", "--output", "{tmp}/out"],
    "convert_checkpoint.py": [
        *("--source", "svd", "--input", "{tmp}/absent", "--output", "{tmp}/out"),
    ],
    "demo.py": ["stage1={tmp}/absent"],
    "evaluate.py": ["views", "--pred", "{tmp}/absent", "--gt", "{tmp}/absent"],
    "generate.py": ["{tmp}/absent.png", "--output", "{tmp}/out"],
    "inspect_data.py": ["{tmp}/absent", "--output", "{tmp}/out"],
    "prepare_furniture.py": ["{tmp}/absent.sh3f", "--output", "{tmp}/out"],
    "reconstruct.py": ["{tmp}/absent", "--output", "{tmp}/out"],
    "render_orbits.py": ["{tmp}/absent", "--output", "{tmp}/out"],
    "train.py": ["--config", "{tmp}/absent.yaml"],
    "train_small_model.py": [
        *("{tmp}/absent", "--val-objects", "{tmp}/absent", "--output", "{tmp}/out"),
    ],
}
"""Arguments that name an input which is not there."""
WITHOUT_SETTINGS = {"convert_checkpoint.py", "train_small_model.py"}


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_shows_an_example_of_this_script(name, run_script):
    finished = run_script(name, "--help")
    assert finished.code == 0
    example = finished.out.partition("Example:\n")[2]
    assert f"scripts/{name}" in example


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_command_is_the_script(name, run_command):
    command = name.removesuffix(".py").replace("_", "-")
    finished = run_command(command, "--help")
    assert finished.code == 0
    assert finished.out.startswith(f"usage: hi3d {command} ")
    assert f"hi3d {command}" in finished.out.partition("Example:\n")[2]
    if name not in WITHOUT_SETTINGS:
        assert "=" in finished.out.partition("key=default:\n")[2]
    assert f"\n  {command}  " in run_command("--help").out


def test_version_and_a_misspelt_command(run_command):
    assert run_command("--version").out == f"hi3d {__version__}\n"
    wrong = run_command("genrate", "cup.png")
    assert (wrong.code, wrong.err) == (2, "error: no command 'genrate': did you mean 'generate'?\n")


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("extra", [[], ["no_such_key=1"], ["--config", "{tmp}/absent.yaml"]])
def test_what_is_not_there_is_one_line(name, extra, tmp_path, run_script):
    words = [word.replace("{tmp}", str(tmp_path)) for word in [*WORDS[name], *extra]]
    finished = run_script(name, *words, "--quiet")
    assert finished.code == 2
    assert finished.err.startswith("error: ")
    assert len(finished.err.splitlines()) == 1
    assert "absent" in finished.err or "no_such_key" in finished.err
    assert finished.out == ""
    assert not list(tmp_path.rglob("*.*"))
