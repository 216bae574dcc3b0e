"""`report.json`: what ran, with which settings, on what, and what each step cost."""

import platform
import resource
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from hi3d.files import write_json

REPORTED_PACKAGES = ("torch", "diffusers", "transformers", "gsplat", "trimesh", "pytorch-lightning")


class RunReport:
    """Collects the inputs, the resolved config and the cost of every step; `save` writes JSON."""

    def __init__(self, inputs: dict[str, Any], config: dict[str, Any], seed: int | None = None):
        """Args:
        inputs: names and paths of what the run was given.
        config: the resolved config as plain types.
        seed: of the run, if it has one.
        """
        self.content: dict[str, Any] = {
            "inputs": inputs,
            "config": config,
            "seed": seed,
            "versions": package_versions(),
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
            "num_threads": torch.get_num_threads(),
            "steps": {},
        }

    @contextmanager
    def step(self, name: str) -> Iterator[dict[str, Any]]:
        """Time a step. The yielded dict takes further facts (backend, counts, losses).

        Records `seconds`, `cpu_seconds` (of all threads of the process) and `peak_memory_gb`
        (resident memory of the process sampled during the step; with CUDA also
        `peak_cuda_memory_gb`).
        """
        facts: dict[str, Any] = {}
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        with _PeakMemory() as memory:
            start, cpu_start = time.perf_counter(), time.process_time()
            yield facts
            seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
        costs = {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_memory_gb": memory.peak_gb}
        facts = {name: round(cost, 3) for name, cost in costs.items()} | facts
        if torch.cuda.is_available():
            facts["peak_cuda_memory_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 3)
        self.content["steps"][name] = facts

    def skip(self, name: str, reason: str) -> None:
        """Record a step that did not run, for example because its result was there already."""
        self.content["steps"][name] = {"skipped": reason}

    def save(self, path: str | Path) -> None:
        """Write the report as JSON, atomically."""
        write_json(path, self.content)


class _PeakMemory:
    """Samples resident memory every 50 ms, since the kernel's own peak never falls."""

    def __enter__(self) -> "_PeakMemory":
        self.peak_gb = _resident_gb()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.peak_gb = max(self.peak_gb, _resident_gb())

    def _sample(self) -> None:
        while not self._stop.wait(0.05):
            self.peak_gb = max(self.peak_gb, _resident_gb())


def _resident_gb() -> float:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 1e9
    except OSError:  # no /proc: the peak since the start is the best figure there is
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def package_versions() -> dict[str, str]:
    """Of Python and the packages that results depend on."""
    found = {"python": platform.python_version()}
    for package in REPORTED_PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found
