"""What the parts share: sizes, rows of the table, seconds and memory on the device."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from hi3d.training.watching.throughput import device_peak_tflops


@dataclass(frozen=True)
class Row:
    """One measured number."""

    what: str
    value: float
    unit: str
    goal: str = ""


@dataclass(frozen=True)
class Size:
    """The paper's size, or a tiny one that a CPU runs."""

    tiny: bool
    where: str | None = None
    """A device; None takes CUDA, or the CPU where there is none."""

    @property
    def device(self) -> torch.device:
        """`where`, or the best there is."""
        return torch.device(self.where or ("cuda" if torch.cuda.is_available() else "cpu"))

    @property
    def dtype(self) -> torch.dtype:
        """Half precision on a GPU."""
        return torch.float16 if self.device.type == "cuda" else torch.float32


def seconds_of(run: Callable[[], Any], repeats: int) -> float:
    """Mean wall-clock seconds of a call, after one that warms up."""
    run()
    synchronize()
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    synchronize()
    return (time.perf_counter() - start) / repeats


def synchronize() -> None:
    """Wait for the device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def forget_peak_memory() -> None:
    """Measure from here on."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_memory_gb() -> float:
    """Largest memory of tensors since `forget_peak_memory`; NaN without CUDA."""
    return torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else math.nan


def tflop_of(run: Callable[[], Any]) -> float:
    """Operations of a call, 10^12."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() / 1e12


def mfu_percent(tflop: float, seconds: float, device: torch.device) -> float:
    """Share of the device's peak; NaN where that is not known."""
    peak = device_peak_tflops(device)
    return 100 * tflop / seconds / peak if peak else math.nan


def weights_gb(*networks: torch.nn.Module) -> float:
    """Memory of the weights."""
    sizes = (p.numel() * p.element_size() for network in networks for p in network.parameters())
    return sum(sizes) / 1e9
