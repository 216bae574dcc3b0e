"""A run of few tests starts at once: the shared fixtures load no heavy library before their use."""

import subprocess
import sys
from pathlib import Path

HEAVY = {"diffusers", "transformers", "pytorch_lightning", "gsplat", "nerfacc"}


def test_the_shared_fixtures_load_no_heavy_library():
    code = (
        "import runpy, sys; "
        f"runpy.run_path({str(Path(__file__).parent / 'conftest.py')!r}); "
        f"print(sorted({HEAVY!r} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[1]
    )
    assert done.stdout == "[]\n", done.stderr
