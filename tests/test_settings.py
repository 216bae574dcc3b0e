"""What is read from a config's source is what the dataclass says when imported."""

import dataclasses
import typing

import pytest
from omegaconf import OmegaConf

from hi3d.config import config_to_dict
from hi3d.orbits.config import OrbitRenderConfig
from hi3d.pipelines.image_to_3d import GenerateConfig
from hi3d.pipelines.views_to_mesh import ReconstructConfig
from hi3d.settings import describe_settings, settings_of


def leaves(values: dict, prefix: str = "") -> dict[str, object]:
    """The values of a nested dict by dotted key."""
    found: dict[str, object] = {}
    for key, value in values.items():
        found |= (
            leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        )
    return found


@pytest.mark.parametrize("schema", [GenerateConfig, ReconstructConfig])
def test_keys_and_defaults_are_those_of_the_dataclass(schema):
    settings = settings_of(f"{schema.__module__}:{schema.__name__}")
    expected = leaves(config_to_dict(schema()))
    assert {setting.key for setting in settings} == set(expected)
    for setting in settings:
        written = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={setting.default}"]))
        assert written["value"] == expected[setting.key], setting.key


def test_every_key_of_a_script_is_in_its_table():
    table = describe_settings("hi3d.orbits.config:OrbitRenderConfig")
    hints = typing.get_type_hints(OrbitRenderConfig)
    for field in dataclasses.fields(OrbitRenderConfig):
        group = dataclasses.is_dataclass(hints[field.name])
        assert f"  {field.name}{'.' if group else '='}" in table
    assert "resolution=512" in table
    assert "Image side in pixels" in table
    assert max(map(len, table.splitlines())) <= 100


def test_a_group_that_code_makes_is_one_entry():
    defaults = {s.key: s.default for s in settings_of("hi3d.degradation.draws:DegradationConfig")}
    assert defaults["second"] == "{...}"  # its values are not those of the class
    assert defaults["bottleneck"] == "0.5"
