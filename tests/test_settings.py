"""What is read from a config's source is what the dataclass says when imported."""

import dataclasses
import typing

import pytest
from omegaconf import OmegaConf

from hi3d.config import config_to_dict, load_config
from hi3d.errors import InputError
from hi3d.evaluation.mesh_metrics import MeshMetricsConfig
from hi3d.evaluation.view_metrics import ViewMetricsConfig
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


WRONG = ["0", "-1", "nan", "inf", "1e30", "9" * 400, "[]", "[nan, 1]", "null", "{a: 1}"]
SCHEMAS = [
    GenerateConfig,
    ReconstructConfig,
    OrbitRenderConfig,
    ViewMetricsConfig,
    MeshMetricsConfig,
]


@pytest.mark.parametrize("schema", SCHEMAS)
def test_every_value_of_every_key_is_taken_or_refused_in_one_line(schema):
    for key in leaves(config_to_dict(schema())):
        for value in WRONG:
            try:
                config = load_config(schema, None, [f"{key}={value}"])
            except InputError as error:
                message = str(error)
                assert "\n" not in message, key
                assert len(message) < 500, key
                continue
            taken = leaves(config_to_dict(config))[key]
            numbers = [n for n in (taken if isinstance(taken, list) else [taken])]
            assert all(abs(n) < 1e19 for n in numbers if isinstance(n, int | float)), (key, value)


@pytest.mark.parametrize("schema", SCHEMAS)
def test_no_number_is_not_a_number(schema):
    for key, default in leaves(config_to_dict(schema())).items():
        if isinstance(default, float):
            for value in ("nan", "inf", "-inf", "-1000", "1e30"):
                with pytest.raises(InputError):
                    load_config(schema, None, [f"{key}={value}"])


@pytest.mark.parametrize(
    ("word", "key"),
    [
        ("elevation_deg=200", "elevation_deg"),
        ("elevation_deg=nan", "elevation_deg"),
        ("seed=18446744073709551616", "seed"),
        ("seed=9223372036854775808", "seed"),
        ("seed=-1", "seed"),
        ("turntable.num_frames=0", "turntable.num_frames"),
        ("turntable.resolution=0", "turntable.resolution"),
        ("turntable.resolution=65", "turntable.resolution"),
        ("foreground.object_fraction=0", "object_fraction"),
        ("foreground.resolution=-4", "foreground.resolution"),
        ("orbit.decode_chunk_size=0", "decode_chunk_size"),
        ("orbit.num_inference_steps=0", "num_inference_steps"),
        ("refiner.sigma_max=-1", "sigma_max"),
        ("orbit.noise_aug_strength=2", "noise_aug_strength"),
        ("orbit.guidance.max_scale=nan", "max_scale"),
        ("orbit.guidance.schedule=cubic", "schedule"),
        ("mesh.interpolated_views=-1", "interpolated_views"),
        ("mesh.export=[stl]", "export"),
        (f"stage1={'a' * 4096}", "stage1"),
    ],
)
def test_wrong_settings_are_told_before_the_run(word, key):
    with pytest.raises(InputError, match=key):
        load_config(GenerateConfig, None, [word])
