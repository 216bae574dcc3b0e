"""Typed experiment configs: a dataclass is the schema, a YAML file holds the deltas.

A YAML, or a group within it, may name another with `base: other.yaml` (relative to the file it
stands in); then come `key=value` overrides. An unknown key or a wrong type is an `InputError` that
names the nearest valid key.
"""

import dataclasses
import difflib
import functools
import math
import re
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import AliasEvent, CollectionEndEvent, CollectionStartEvent, YAMLError

from hi3d.errors import InputError
from hi3d.files import regular_file, shipped

T = TypeVar("T")
MAX_SEED = 2**63 - 1
MAX_PATH, MAX_NAME = 4095, 255
"""Longest path and longest name in it, in bytes, that Linux takes."""
MAX_CONFIG_BYTES, MAX_ALIASES, MAX_DEPTH = 1_000_000, 20, 50
YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
SHOWN = 80
"""Characters of a wrong value that a message shows."""
UNREADABLE = (
    *(OmegaConfBaseException, YAMLError, OSError),
    *(ValueError, TypeError, OverflowError, RecursionError),
)
"""What reading a value can raise: also for a number of thousands of digits, or deep brackets."""


def load_config(
    schema: type[T], path: str | Path | None = None, overrides: Sequence[str] = ()
) -> T:
    """Build a config: defaults of `schema`, then the YAML file with its bases, then the overrides.

    Args:
        schema: a dataclass with a default (or `omegaconf.MISSING`) for every field.
        path: YAML file, also one that the project ships; None for the defaults alone.
        overrides: `key=value` or `group.key=value` strings.

    Returns:
        An instance of `schema`.

    Raises:
        InputError: missing or malformed file, unknown key, wrong type, or no required value.
    """
    config: Any = _defaults(typing.cast(Any, schema))
    layers = [] if path is None else _yaml_layers(Path(path))
    for item in overrides:
        layers.append(("command line", _parse_override(item)))
    for source, layer in layers:
        _check_keys(schema, layer, source)
        try:
            config = OmegaConf.merge(config, layer)
        except UNREADABLE as error:
            raise InputError(f"{source}: {_first_line(error)}") from error
    try:
        return typing.cast(T, OmegaConf.to_object(config))
    except UNREADABLE as error:
        raise InputError(f"{path or 'config'}: {_first_line(error)}") from error


def peek(path: str | Path, key: str, overrides: Sequence[str] = ()) -> Any:
    """One top-level value of a YAML file with its bases and overrides, before any schema.

    Returns:
        The value, or None where the key is not given.

    Raises:
        InputError: missing or malformed file.
    """
    layers = [layer for _, layer in _yaml_layers(Path(path))]
    layers += [_parse_override(item) for item in overrides]
    try:
        values = [layer[key] for layer in layers if key in layer]
    except OmegaConfBaseException as error:
        raise InputError(f"{path}: {_first_line(error)}") from error
    return values[-1] if values else None


def config_to_dict(config: Any) -> dict[str, Any]:
    """The resolved values of a config dataclass as plain types, for reports and checkpoints."""
    container = OmegaConf.to_container(OmegaConf.structured(config), resolve=True, enum_to_str=True)
    return typing.cast(dict[str, Any], container)


def check_number(key: str, value: float, low: float, high: float = math.inf) -> None:
    """Raise where a setting is not a finite number from `low` to `high`, both allowed.

    Raises:
        InputError: with one line that names key, value and range.
    """
    if not low <= value <= high or value == math.inf:
        span = f"of at least {low:g}" if math.isinf(high) else f"from {low:g} to {high:g}"
        raise InputError(f"{key} is {shortened(value)}: give a number {span}")


def check_numbers(
    key: str, values: Sequence[float], length: int | None, low: float, high: float = math.inf
) -> None:
    """`check_number` of every entry of a list, and its length where that is not None."""
    if not values or length not in (None, len(values)):
        raise InputError(
            f"{key} is {shortened(list(values))}: give {length or 'one or more'} numbers"
        )
    for value in values:
        check_number(key, value, low, high)


def check_choice(key: str, value: str, choices: Sequence[str]) -> None:
    """Raise where a setting is none of the choices.

    Raises:
        InputError: with one line that names key, value and choices.
    """
    if value not in choices:
        raise InputError(f"{key} is {shortened(value)}: give one of {', '.join(choices)}")


def check_seed(seed: int) -> None:
    """Raise where `seed` is none that every generator takes: 0 to 2^63 - 1."""
    if not 0 <= seed <= MAX_SEED:
        raise InputError(f"seed is {shortened(seed)}: give a number from 0 to {MAX_SEED}")


def check_elevation(degrees: float) -> None:
    """Raise where a camera at this elevation has no upright picture: not above -90 and below 90."""
    if not -90 < degrees < 90:
        raise InputError(f"elevation_deg is {degrees}: give degrees above -90 and below 90")


def parse_elevation(value: str) -> float | None:
    """`auto` to None, a number to degrees.

    Raises:
        InputError: neither, or not above -90 and below 90.
    """
    if value == "auto":
        return None
    try:
        degrees = float(value)
    except ValueError as error:
        raise InputError(
            f"elevation_deg is {shortened(value)}: give a number of degrees, or auto"
        ) from error
    check_elevation(degrees)
    return degrees


def check_path(key: str, path: str | Path) -> None:
    """Raise where no file or folder can have this path.

    Raises:
        InputError: it is empty, or it or a name in it is too long.
    """
    text = str(path)
    too_long = len(text.encode(errors="replace")) > MAX_PATH or any(
        len(name.encode(errors="replace")) > MAX_NAME for name in text.split("/")
    )
    if not text or too_long or "\0" in text:
        raise InputError(f"{key} is '{shortened(text)}', which is no path: check it")


def shortened(value: Any, longest: int = SHOWN) -> str:
    """A value for a message, on one line and not longer than so many characters."""
    try:
        text = " ".join(str(value).split())
    except ValueError:  # an integer of thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


@functools.cache
def _defaults(schema: Any) -> DictConfig:
    """The schema with its defaults, which merging copies: making it takes most of a load's time."""
    return OmegaConf.structured(schema)


def _yaml_layers(path: Path, seen: tuple[Path, ...] = ()) -> list[tuple[str, DictConfig]]:
    """The file's layers, the base's first."""
    check_path("the config", path)
    path = regular_file(shipped(path)).resolve()
    if path in seen:
        raise InputError(f"{path}: its base files form a circle: remove one 'base:' line")
    if not path.is_file():
        raise InputError(f"no config file at {path}: check the path given to --config or base:")
    try:
        _check_size(path)
        _check_nesting(path.read_bytes())
        layer = OmegaConf.load(path)
    except UNREADABLE as error:
        raise InputError(f"{path} is not a readable YAML file: {_first_line(error)}") from error
    if isinstance(layer, ListConfig):
        raise InputError(f"{path} holds a list: a config is a mapping of keys to values")
    if not isinstance(layer, DictConfig):
        raise InputError(f"{path} holds one value: a config is a mapping of keys to values")
    base = _taken_base(layer, path)
    layers = _yaml_layers(base, (*seen, path)) if base else []
    for key in list(layer):
        group = None if _has_no_value(layer, key) else layer[key]
        nested = _taken_base(group, path) if isinstance(group, DictConfig) else None
        if nested:
            inner = _yaml_layers(nested, (*seen, path))
            layers += [(source, OmegaConf.create({key: values})) for source, values in inner]
    return [*layers, (str(path), layer)]


def _check_size(path: Path) -> None:
    """Raise for a file of settings that is larger than any."""
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise ValueError(f"it has over {MAX_CONFIG_BYTES} bytes")


def _check_nesting(text: str | bytes) -> None:
    """Raise for YAML that would fill memory or time: aliases of aliases, brackets in brackets."""
    aliases = depth = 0
    for event in yaml.parse(text, YAML_LOADER):
        aliases += isinstance(event, AliasEvent)
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if aliases > MAX_ALIASES:
            raise ValueError(f"it has over {MAX_ALIASES} aliases: write the values out")
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested over {MAX_DEPTH} deep")


def _taken_base(layer: DictConfig, path: Path) -> Path | None:
    """The file that `base:` names, taken out of the layer."""
    try:
        base = layer.pop("base", None)
    except OmegaConfBaseException as error:
        raise InputError(f"{path}: base: {_first_line(error)}") from error
    if base is None:
        return None
    if not isinstance(base, str):
        raise InputError(f"{path}: base is {shortened(base)}: give the path of one YAML file")
    return path.parent / base


def _has_no_value(layer: DictConfig, key: Any) -> bool:
    """Whether a key has none before all layers are merged."""
    return OmegaConf.is_missing(layer, key) or OmegaConf.is_interpolation(layer, key)


def _parse_override(item: str) -> DictConfig:
    key, equals, value = item.partition("=")
    if not equals or not re.fullmatch(r"\w+(\.\w+)*", key):
        raise InputError(f"'{shortened(item)}' is not an option: write key=value")
    try:
        _check_nesting(value)
        return OmegaConf.from_dotlist([item])
    except UNREADABLE as error:
        raise InputError(f"option '{shortened(item)}': {_first_line(error)}") from error


def _check_keys(schema: Any, layer: Any, source: str, prefix: str = "") -> None:
    """Raise for a key of `layer` that `schema` lacks, at any depth."""
    if not isinstance(layer, DictConfig):
        return
    if typing.get_origin(schema) is dict:  # any keys, values of one schema
        for key in map(str, layer):
            value = None if OmegaConf.is_missing(layer, key) else layer[key]
            _check_keys(typing.get_args(schema)[1], value, source, f"{prefix}{key}.")
        return
    if not dataclasses.is_dataclass(schema):
        return
    types = typing.get_type_hints(schema)
    for key in map(str, layer):
        if key not in types:
            near = difflib.get_close_matches(key, types, n=1, cutoff=0.4)
            hint = f"did you mean '{prefix}{near[0]}'?" if near else f"valid: {', '.join(types)}"
            raise InputError(f"{source}: unknown key '{prefix}{key}': {hint}")
        value = None if _has_no_value(layer, key) else layer[key]
        _check_keys(_dataclass_in(types[key]), value, source, f"{prefix}{key}.")


def _dataclass_in(annotation: Any) -> Any:
    """The dataclass of `X` or `X | None`; a dictionary stays."""
    if typing.get_origin(annotation) is dict:
        return annotation
    options = [a for a in (annotation, *typing.get_args(annotation)) if dataclasses.is_dataclass(a)]
    return options[0] if options else annotation


def _first_line(error: Exception) -> str:
    key = getattr(error, "full_key", None)
    line = (str(error).strip().split("\n")[0] or type(error).__name__)[: 2 * SHOWN]
    return f"{key}: {line}" if key else line
