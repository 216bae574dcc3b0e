"""What a GPU does with the full size, in under ten minutes and without a download.

    python benchmarks/gpu_check.py --output outputs/gpu_check [--only PART ...] [--tiny]

Tests that need CUDA, gsplat, nerfacc's marching, NeuS's networks, half precision, sampling of both
stages and a training step at Stable Video Diffusion's size with random weights, and reconstruction
of views of 1024^2. Each part has a process and seconds of its own: one that fails, runs out of
memory or of time is a row, and the rest goes on. Writes `gpu_check.md` and `gpu_check.json`.
"""

import argparse
import math
import multiprocessing
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import diffusers
import torch
from gpu_parts.rows import Row, Size

from hi3d.command_line import run
from hi3d.errors import InputError
from hi3d.files import atomic_path, write_json
from hi3d.progress import console

BUDGETS_S = {
    "cuda_tests": 120,
    "rasterization": 40,
    "marching": 35,
    "half_precision": 40,
    "vae": 40,
    "stage1": 50,
    "stage2": 75,
    "training": 50,
    "reconstruction": 100,
    "torch_neus": 45,
}
"""Seconds of each part, imports included; together under ten minutes."""
TINY_BUDGET_S = 300
"""Of each part with tiny sizes, on a CPU that others may use too."""
MODULES = {
    "gpu_parts.cuda_tests": ("cuda_tests",),
    "gpu_parts.geometry": ("rasterization", "marching", "reconstruction", "torch_neus"),
    "gpu_parts.vae": ("vae",),
    "gpu_parts.diffusion": ("half_precision", "stage1", "stage2", "training"),
}


def part_of(name: str) -> Callable[[Size], list[Row]]:
    """The function of a part."""
    import importlib

    module = next(module for module, parts in MODULES.items() if name in parts)
    function: Callable[[Size], list[Row]] = getattr(importlib.import_module(module), name)
    return function


def measure(name: str, tiny: bool, results: Any) -> None:
    """What the process of a part does."""
    diffusers.utils.logging.set_verbosity_error()  # it warns of casts that are meant
    try:
        rows = part_of(name)(Size(tiny))
        results.send({"rows": [asdict(row) for row in rows]})
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        results.send({"fault": f"{type(error).__name__}: {lines[0]}"[:300]})


def measured(name: str, tiny: bool, budget_s: float) -> dict[str, Any]:
    """Rows of a part or what went wrong, and its seconds."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=measure, args=(name, tiny, sender))
    start = time.monotonic()
    process.start()
    sender.close()
    try:
        if receiver.poll(budget_s):
            found = receiver.recv()
        else:
            found = {"fault": f"not done after {budget_s:g} s"}
            process.terminate()
        process.join(10)
    except EOFError:
        process.join(10)
        found = {"fault": f"the process ended with exit code {process.exitcode}"}
    if process.is_alive():
        process.kill()
    return {"part": name, "seconds": round(time.monotonic() - start, 1), "rows": [], **found}


def device_name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


def table(results: list[dict[str, Any]], title: str, tiny: bool = False) -> str:
    """Markdown: a line for each number, or for the fault of a part; tiny sizes have no goals."""
    lines = [title, "", "| part | what | measured | goal |", "|---|---|---|---|"]
    for part in results:
        if "fault" in part:
            fault = part["fault"].replace("|", "/")
            lines.append(f"| {part['part']} | **failed**: {fault} | | |")
        for row in part["rows"]:
            known = not math.isnan(row["value"])
            value = f"{row['value']:.4g} {row['unit']}".strip() if known else "-"
            goal = "" if tiny else row["goal"]
            lines.append(f"| {part['part']} | {row['what']} | {value} | {goal} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("outputs/gpu_check"), metavar="DIR")
    parser.add_argument("--only", nargs="+", choices=BUDGETS_S, default=list(BUDGETS_S))
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, to try it on a CPU")
    arguments = parser.parse_args()
    if not arguments.tiny and not torch.cuda.is_available():
        raise InputError("no GPU that torch can use: add --tiny to try the check on the CPU")
    title = f"{device_name()}, torch {torch.__version__}{', tiny sizes' * arguments.tiny}"
    results = []
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name in arguments.only:
        budget_s = TINY_BUDGET_S if arguments.tiny else BUDGETS_S[name]
        console.print(f"{name}: at most {budget_s} s", markup=False)
        results.append(measured(name, arguments.tiny, budget_s))
        # After each part, so that what is known stays when the machine does not.
        write_json(arguments.output / "gpu_check.json", {"device": title, "parts": results})
        with atomic_path(arguments.output / "gpu_check.md") as partial:
            partial.write_text(table(results, title, arguments.tiny))
    written = arguments.output / "gpu_check.md"
    console.print(f"{written.read_text()}\ntable: {written}", markup=False)
    if any("fault" in part for part in results):
        sys.exit(1)


if __name__ == "__main__":
    run(main)
