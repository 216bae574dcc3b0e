"""No value of any setting of the degradation is a traceback or a picture that is none."""

import copy
import dataclasses
import math
from functools import reduce

import pytest
import torch

from hi3d.config import load_config
from hi3d.degradation.draws import DegradationConfig, DegradationPass, second_pass
from hi3d.degradation.kernels import KernelConfig
from hi3d.degradation.masks import MaskConfig
from hi3d.degradation.pipeline import degrade
from hi3d.errors import InputError

INF, NAN = math.inf, math.nan
INTEGERS = [-1, 0, 1, 16, 99, 10**9, 10**30]
NUMBERS = [-1.0, 0.0, 1e-9, 1.0, 1.5, 99.0, 1e9, INF, -INF, NAN]
INTEGER_RANGES = [(0, 0), (2, 1), (1, 1), (1, 10**9 + 1), (1, 3, 5), (1,), ()]
RANGES = [(0.0, 0.0), (0.0, INF), (NAN, 1.0), (1.0, NAN), (2.0, 1.0), (0.0, 1e9), (-INF, INF)]
RANGES += [(1.0,), (), (1.0, 1.0), (1e-9, 1.0), (0.0, 1.0), (1.0, 2.0, 3.0)]
WEIGHTS = [-1.0, 0.0, 1e6, 1e300, INF, NAN]


def always() -> DegradationConfig:
    """All that can happen does, so that nothing is spared by chance."""
    first = DegradationPass(
        kernels=KernelConfig(sinc_probability=1.0),
        gaussian_probability=0.0,
        poisson_photons=100.0,
    )
    second = dataclasses.replace(
        second_pass(), blur_probability=1.0, gaussian_probability=1.0, poisson_photons=100.0
    )
    masks = MaskConfig(probability=1.0, count=(1, 1))
    return DegradationConfig(first=first, second=second, masks=masks)


def leaves(config, prefix=""):
    """Keys of all numbers and ranges, and the values that are tried."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        key = f"{prefix}{field.name}"
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{key}.")
        elif isinstance(value, dict):
            yield from ((f"{key}.{name}", WEIGHTS) for name in value)
        elif isinstance(value, tuple):
            yield key, INTEGER_RANGES if isinstance(value[0], int) else RANGES
        elif not isinstance(value, bool):
            yield key, INTEGERS if isinstance(value, int) else NUMBERS


LEAVES = dict(leaves(always()))


def changed(key: str, value) -> DegradationConfig:
    """Raises InputError where the value is refused."""
    config = copy.deepcopy(always())
    *groups, name = key.split(".")
    owners = [reduce(getattr, groups[:end], config) for end in range(len(groups) + 1)]
    if isinstance(owners[-1], dict):
        owners.pop()[name] = value
    else:
        setattr(owners[-1], name, value)
    owners[-1].__post_init__()
    return config


def test_all_settings_are_tried():
    assert len(LEAVES) > 60
    assert {"first.poisson_scale", "masks.count", "final_sinc.cutoff", "bottleneck"} <= {*LEAVES}


@pytest.mark.parametrize("key", LEAVES)
def test_a_value_is_refused_or_gives_a_picture(key):
    rgb, alpha = torch.rand(1, 2, 3, 16, 16), torch.ones(1, 2, 1, 16, 16)
    refused = 0
    for value in LEAVES[key]:
        try:
            config = changed(key, value)
        except InputError:
            refused += 1
            continue
        degraded = degrade(rgb, alpha, config, torch.Generator().manual_seed(0))
        assert degraded.isfinite().all(), value
        assert 0 <= degraded.min() <= degraded.max() <= 1, value
    assert refused >= 2


@pytest.mark.parametrize(
    "option",
    ["first.poisson_scale=[0,.inf]", "masks.kind_weights.removed=.nan", "final_sinc.size=[7]"],
)
def test_on_the_command_line_it_is_one_line(option):
    with pytest.raises(InputError, match=r"^[^\n]*(give|unpack|length|2)[^\n]*$"):
        load_config(DegradationConfig, None, [option])
