"""In which precision networks compute: sixteen bits on CPUs, and which have units for them."""

import os
from contextlib import AbstractContextManager
from typing import Any

import torch

from hi3d.errors import InputError
from hi3d.progress import console

PRECISION_VARIABLE = "HI3D_PRECISION"
"""Of the environment, since it says what a machine does well: a name of `PRECISIONS`."""
PRECISIONS = {
    "cpu": {"float32": torch.float32, "bfloat16": torch.float32},
    "cuda": {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32},
}
"""Type of the weights by device and name; the first is the default. On a CPU bfloat16 is only the
type of the products."""
UNITS = ("amx_bf16", "avx512_bf16")
"""Instruction sets that multiply bfloat16 faster than float32."""


def has_bfloat16_units() -> bool:
    """Whether this machine's CPU has one of `UNITS`; False where torch cannot say."""
    found: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(found.get(name, False) for name in UNITS)


def warn_of_slow_bfloat16(setting: str, instead: str) -> None:
    """Say in one line that a CPU without these units is slower in bfloat16 than in float32.

    Args:
        setting: what asks for it.
        instead: what to set.
    """
    if not has_bfloat16_units():
        console.print(
            f"{setting}: this CPU has neither AMX nor AVX512-BF16 and will be slower than with "
            f"{instead}",
            markup=False,
        )


def wanted_precision(device: str) -> str:
    """What `HI3D_PRECISION` asks for, or else the default of the device.

    Args:
        device: `cpu` or `cuda`.

    Raises:
        InputError: it is none of the device's.
    """
    names = tuple(PRECISIONS[device])
    name = os.environ.get(PRECISION_VARIABLE) or names[0]
    if name not in names:
        raise InputError(f"{PRECISION_VARIABLE}={name}: on {device} choose {', '.join(names)}")
    return name


def bfloat16_products(device: torch.device, wanted: bool) -> AbstractContextManager[None]:
    """Matrix products and convolutions in bfloat16, all else in float32; if not wanted as it is."""
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted)
