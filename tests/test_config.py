"""Configs: deltas over bases, typed, and a misspelt key is told with the nearest valid one."""

import math
from dataclasses import dataclass, field

import pytest

from hi3d.config import (
    check_choice,
    check_number,
    check_numbers,
    check_path,
    config_to_dict,
    load_config,
    parse_elevation,
    peek,
)
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


@pytest.mark.parametrize(
    "text",
    [
        "base: 3\n",
        "base: [a.yaml]\n",
        "base: ${nope}\n",
        "inner: {base: 3}\n",
        "steps: ${nope}\n",
        f"steps: {'9' * 6000}\n",
        f"steps: {'9' * 4000}\n",
        f"inner: {{rate: {'9' * 4000}}}\n",
        f"base: {'a' * 4096}\n",
        f"inner: {{base: {'a/' * 2048}}}\n",
        f"inner: {'[' * 20000}\n",
        f"inner: {'{a: ' * 60 + '1' + '}' * 60}\n",
        "just words\n",
        "3\n",
    ],
    ids=lambda text: text[:24],
)
def test_what_cannot_be_a_config_is_one_short_line(tmp_path, text):
    path = write(tmp_path / "run.yaml", text)
    with pytest.raises(InputError) as error:
        check_number("steps", load_config(Outer, path).steps, 0, 10)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    "item",
    [
        *(f"steps={'9' * 6000}", f"inner.rate={'9' * 4000}", f"steps={'[' * 100_000}"),
        *("[=1", "a[=1"),
    ],
    ids=lambda item: item[:24],
)
def test_odd_words_are_one_short_line(item):
    with pytest.raises(InputError) as error:
        load_config(Outer, None, [item])
    assert len(str(error.value)) < 500


def test_an_interpolation_of_another_layer_is_resolved(tmp_path):
    path = write(tmp_path / "run.yaml", "name: ${steps}\n")
    assert load_config(Outer, path, ["steps=7"]).name == "7"


def test_paths_that_no_system_takes_are_one_line():
    check_path("key", "a" * 255)
    for path in ("", "a" * 256, "a/" * 2048, "a\0b"):
        with pytest.raises(InputError, match="key is"):
            check_path("key", path)


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


@pytest.mark.parametrize("value", [-1, 11, math.nan, math.inf, -math.inf])
def test_numbers_out_of_range_are_one_line(value):
    check_number("key", 0, 0, 10)
    check_number("key", 10, 0, 10)
    with pytest.raises(InputError, match=rf"^key is {value}: give a number from 0 to 10$"):
        check_number("key", value, 0, 10)
    with pytest.raises(InputError, match=f"key is {value}"):
        check_numbers("key", [1, value], 2, 0, 10)


def test_lists_of_wrong_length_and_unknown_choices_are_one_line():
    check_numbers("key", [1, 2], 2, 0)
    check_choice("key", "a", ["a", "b"])
    with pytest.raises(InputError, match=r"key is \[1\]: give 2 numbers"):
        check_numbers("key", [1], 2, 0)
    with pytest.raises(InputError, match=r"key is \[\]: give one or more numbers"):
        check_numbers("key", [], None, 0)
    with pytest.raises(InputError, match="key is c: give one of a, b"):
        check_choice("key", "c", ["a", "b"])


def test_elevation():
    assert parse_elevation("auto") is None
    assert parse_elevation("-7.5") == -7.5
    with pytest.raises(InputError, match="auto"):
        parse_elevation("high")
