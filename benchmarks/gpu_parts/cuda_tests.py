"""The tests that are skipped where there is no CUDA device."""

import re
import subprocess
import sys
from pathlib import Path

from gpu_parts.rows import Row, Size

ROOT = Path(__file__).parents[2]
FILES = (
    "tests/degradation/test_pipeline.py",
    "tests/splatting/test_density.py",
    "tests/splatting/test_fit.py",
    "tests/splatting/test_rasterization.py",
    "tests/surface/test_neus_networks.py",
)
NAMES = "cuda or gsplat"


def cuda_tests(size: Size) -> list[Row]:
    """Run them and count.

    Raises:
        RuntimeError: one failed; the last lines tell which.
    """
    arguments = ["-p", "no:cacheprovider", "-k", NAMES, "--deselect", DESELECTED, *FILES]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-rf", *arguments, *(["--co"] if size.tiny else [])],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    counts = {word: int(number) for number, word in COUNTED.findall(done.stdout)}
    if done.returncode:
        raise RuntimeError(" / ".join((done.stdout + done.stderr).strip().splitlines()[-4:]))
    goals = {"passed": "all", "skipped": "0"}
    words = ("collected",) if size.tiny else ("passed", "skipped")
    return [Row(f"tests {word}", counts.get(word, 0), "", goals.get(word, "")) for word in words]


DESELECTED = "tests/splatting/test_fit.py::test_strategies_of_gsplat_need_cuda"
"""Says what happens without CUDA."""
COUNTED = re.compile(r"(\d+)(?:/\d+ tests)? (passed|skipped|collected)")
