"""The NeuS side of `benchmarks/reconstruction_tools.py`; runs the authors' code from a checkout.

    PYTHONPATH=NEUS \\
        python benchmarks/other_tools/reconstruction_with_neus.py NEUS FOLDER MINUTES RAYS SAMPLES

NEUS is a checkout of https://github.com/Totoro97/NeuS, in an environment with what it needs
(pyhocon, icecream, opencv, PyMCubes, tensorboard, trimesh, tqdm). It asks for CUDA by name; to run
it without, write cpu where exp_runner.py and models/*.py of the checkout say cuda.

FOLDER holds `data/` in the layout of that code (images, masks, cameras_sphere.npz). The authors'
settings with masks are taken but for what a bounded time asks for: RAYS in a step, SAMPLES along a
ray (half of them by importance), and as many steps as fit into MINUTES of CPU time, or of the clock
with CUDA, with the same share of warm-up. Writes `mesh.npz` (vertices, faces) in the world of
FOLDER, and prints the steps and the seconds of wall and CPU as a line of JSON.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from exp_runner import Runner

TIMED_STEPS = 5  # to learn what a step costs
WARM_UP_SHARE = 5000 / 300000  # of the authors' settings
EXTRACTION_RESOLUTION = 128
HALF_EXTENT = 0.55  # of the extracted cube, world units
NEVER = 10**9


def settings(neus: Path, folder: Path, rays: int, samples: int, steps: int) -> str:
    """The authors' configuration, with later lines that take precedence."""
    return (
        (neus / "confs" / "wmask.conf").read_text()
        + f"""
general {{ base_exp_dir = "{folder}/run", recording = [] }}
dataset {{ data_dir = "{folder}/data" }}
train {{
    end_iter = {steps}, batch_size = {rays}, warm_up_end = {max(1, round(WARM_UP_SHARE * steps))}
    save_freq = {NEVER}, val_freq = {NEVER}, val_mesh_freq = {NEVER}, report_freq = {NEVER}
}}
model {{ neus_renderer {{ n_samples = {samples - samples // 2}, n_importance = {samples // 2} }} }}
"""
    )


def untrained(neus: Path, folder: Path, rays: int, samples: int, steps: int) -> Runner:
    """A runner that will take so many steps."""
    path = folder / "neus.conf"
    path.write_text(settings(neus, folder, rays, samples, steps))
    torch.manual_seed(0)
    return Runner(str(path), "train", "case", False)


def main() -> None:
    neus, folder = (Path(name).resolve() for name in sys.argv[1:3])
    minutes, rays, samples = float(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])
    cuda = torch.cuda.is_available()
    if cuda:
        torch.set_default_tensor_type("torch.cuda.FloatTensor")
    clock = time.perf_counter if cuda else time.process_time
    os.chdir(neus)
    runner = untrained(neus, folder, rays, samples, TIMED_STEPS)
    start = clock()
    runner.train()
    steps = max(1, int(60 * minutes * TIMED_STEPS / (clock() - start)))
    wall, cpu = time.perf_counter(), time.process_time()
    runner = untrained(neus, folder, rays, samples, steps)
    runner.train()
    scale = float(runner.dataset.scale_mats_np[0][0, 0])
    corner = torch.full((3,), HALF_EXTENT / scale)
    vertices, faces = runner.renderer.extract_geometry(-corner, corner, EXTRACTION_RESOLUTION)
    seconds = [time.perf_counter() - wall, time.process_time() - cpu]
    np.savez(
        folder / "mesh.npz",
        vertices=(vertices * scale).astype(np.float32),
        faces=faces.astype(np.int64),
    )
    print(json.dumps({"steps": steps, "seconds": seconds}), flush=True)


if __name__ == "__main__":
    main()
