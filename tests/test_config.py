"""Configs: deltas over bases, typed, and a misspelt key is told with the nearest valid one."""

from dataclasses import dataclass, field

import pytest

from hi3d.config import config_to_dict, load_config, peek
from hi3d.errors import InputError


@dataclass
class Inner:
    rate: float = 0.1
    sizes: list[int] = field(default_factory=lambda: [1, 2])


@dataclass
class Outer:
    steps: int = 10
    name: str | None = None
    inner: Inner = field(default_factory=Inner)


def write(path, text):
    path.write_text(text)
    return path


def test_base_then_file_then_override(tmp_path):
    write(tmp_path / "base.yaml", "steps: 1\ninner: {rate: 0.5}\n")
    path = write(tmp_path / "run.yaml", "base: base.yaml\nsteps: 2\n")
    config = load_config(Outer, path, ["inner.sizes=[3]", "name=x"])
    assert config == Outer(2, "x", Inner(0.5, [3]))
    assert config_to_dict(config)["inner"] == {"rate": 0.5, "sizes": [3]}
    assert peek(path, "steps", ["steps=7"]) == 7


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["stepz=1"], "did you mean 'steps'"),
        (["inner.rte=1"], "did you mean 'inner.rate'"),
        (["steps=many"], "many"),
        (["=3"], "key=value"),
    ],
)
def test_wrong_override_is_one_line(overrides, message):
    with pytest.raises(InputError, match=message) as error:
        load_config(Outer, None, overrides)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["a: [", "- 1\n", "base: other.yaml\n", "base: run.yaml\n"])
def test_wrong_file_is_one_line(tmp_path, text):
    with pytest.raises(InputError) as error:
        load_config(Outer, write(tmp_path / "run.yaml", text))
    assert "\n" not in str(error.value)


def test_missing_file():
    with pytest.raises(InputError, match="no config file"):
        load_config(Outer, "nowhere.yaml")


def test_a_group_may_have_a_base_of_its_own(tmp_path):
    (tmp_path / "inner").mkdir()
    write(tmp_path / "inner/common.yaml", "rate: 0.5\nsizes: [7]\n")
    write(tmp_path / "inner/fast.yaml", "base: common.yaml\nrate: 0.7\n")
    path = write(tmp_path / "run.yaml", "steps: 2\ninner: {base: inner/fast.yaml, sizes: [9]}\n")
    config = load_config(Outer, path, ["inner.rate=0.9"])
    assert (config.steps, config.inner.rate, config.inner.sizes) == (2, 0.9, [9])
    assert load_config(Outer, path).inner.rate == 0.7
    write(tmp_path / "inner/fast.yaml", "ratio: 0.7\n")
    with pytest.raises(InputError, match="rate"):
        load_config(Outer, path)
