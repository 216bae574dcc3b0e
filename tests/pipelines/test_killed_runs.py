"""A reconstruction that is killed again and again gives the bytes of one that was left alone."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from hi3d.cameras import orbit_cameras
from tests.conftest import sphere_views

ROOT = Path(__file__).parents[2]
CODE = """
    import json, os, random, signal, sys, time
    from pathlib import Path
    from hi3d.config import load_config
    from hi3d.pipelines.views_to_mesh import ReconstructConfig, reconstruct
    from hi3d.progress import set_quiet

    views, whole, killed, seed, *settings = sys.argv[1:]
    set_quiet(True)
    config = load_config(ReconstructConfig, None, [*settings, "resume=true"])
    rng = random.Random(seed)

    def started(output):
        process = os.fork()
        if process == 0:
            code = 1
            try:
                reconstruct(views, config, output)
                code = 0
            finally:
                os._exit(code)
        return process

    def ended(process):
        return os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    begin = time.monotonic()
    assert os.waitpid(started(whole), 0)[1] == 0
    seconds = time.monotonic() - begin
    splats = Path(killed) / "splats.ply"
    kills = in_neus = 0
    process = started(killed)
    for number in range(8):
        # Four moments anywhere, then four after the splats, while the surface is fitted.
        if number >= 4:
            while not splats.exists() and not ended(process):
                time.sleep(0.002)
        time.sleep(rng.uniform(0, seconds / (8 if number < 4 else 4)))
        if (Path(killed) / "mesh.glb").exists():
            break
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        kills += 1
        in_neus += splats.exists()
        process = started(killed)
    assert os.waitpid(process, 0)[1] == 0
    print(json.dumps({"kills": kills, "in_neus": in_neus}))
"""
SETTINGS = [
    *("interpolated_views=4", "splats.steps=10", "splats.num_initial=300"),
    *("neus.steps=60", "neus.rays_per_step=256", "neus.resolutions=[24]"),
    *("neus.resolution_starts=[0.0]", "neus.regularized_vertices=256"),
    *("meshing.target_faces=600", "meshing.smoothing_iterations=0", "texture.resolution=64"),
]


def results(folder: Path) -> dict[str, bytes]:
    """All files but the report, which holds times."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "report.json"
    }


@pytest.mark.parametrize("seed", [0])
def test_killed_at_random_moments_also_while_the_surface_is_fitted(seed, tmp_path):
    views, _ = sphere_views(orbit_cameras(20, 32, 8))
    views.save(tmp_path / "views")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    result = subprocess.run(
        [
            *(sys.executable, "-c", textwrap.dedent(CODE)),
            *map(str, (tmp_path / "views", whole, killed, seed)),
            *SETTINGS,
        ],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    counts = json.loads(result.stdout.splitlines()[-1])
    assert counts["kills"] >= 3
    assert counts["in_neus"] >= 1
    expected, found = results(whole), results(killed)
    assert {"mesh.glb", "splats.ply"} <= expected.keys()
    differing = [name for name in expected if found.get(name) != expected[name]]
    assert not differing
    assert found.keys() == expected.keys()  # nothing half-written is left
