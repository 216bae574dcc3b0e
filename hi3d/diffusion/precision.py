"""Sixteen bits on CPUs: which have units for them."""

from contextlib import AbstractContextManager
from typing import Any

import torch

from hi3d.progress import console

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


def bfloat16_products(device: torch.device, wanted: bool) -> AbstractContextManager[None]:
    """Matrix products and convolutions in bfloat16, all else in float32; if not wanted as it is."""
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted)
