"""The pyrender side of `benchmarks/render.py`; runs in an environment with pyrender, isal, Pillow.

    PYTHONPATH=. PYOPENGL_PLATFORM=egl \\
        python benchmarks/other_tools/render_with_pyrender.py FOLDER...

Each folder holds what `hi3d.rendering.blender.backend.write_geometry` writes, and `job.json` with
cameras and materials. Views are drawn flat (unlit) and double-sided with pyrender's 4 samples per
pixel, and encoded by `hi3d.orbits.png`. Waits for a line on standard input after a first object;
prints wall and CPU seconds of the objects that follow.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import pyrender
from PIL import Image
from pyrender.constants import RenderFlags

from hi3d.orbits.encoding import encode_png

FLAGS = RenderFlags.RGBA | RenderFlags.FLAT | RenderFlags.SKIP_CULL_FACES


def read_scene(folder: Path, job: dict) -> pyrender.Scene:
    scene = pyrender.Scene(bg_color=[1.0, 1.0, 1.0, 0.0])
    primitives = []
    with np.load(folder / "geometry.npz") as geometry:
        for i, batch in enumerate(job["batches"]):
            texture = None
            if batch["texture"]:
                image = Image.open(folder / batch["texture"])
                texture = pyrender.Texture(source=np.asarray(image), source_channels="RGBA")
            material = pyrender.MetallicRoughnessMaterial(
                baseColorTexture=texture, alphaMode=batch["alpha_mode"], doubleSided=True
            )
            primitives.append(
                pyrender.Primitive(
                    geometry[f"vertices{i}"],
                    indices=geometry[f"faces{i}"],
                    texcoord_0=geometry[f"uvs{i}"],
                    color_0=geometry[f"rgba{i}"],
                    material=material,
                    mode=4,
                )
            )
    scene.add(pyrender.Mesh(primitives))
    return scene


def render(renderer: pyrender.OffscreenRenderer, folder: Path, output: Path | None) -> None:
    """Draw and encode every view of an object; with `output`, also write the images."""
    job = json.loads((folder / "job.json").read_text())
    scene = read_scene(folder, job)
    near_and_far = {"znear": job["near"], "zfar": job["far"]}
    node = None
    for view, (camtoworld, K) in enumerate(zip(job["camtoworlds"], job["Ks"], strict=True)):
        if node is not None:
            scene.remove_node(node)
        camera = pyrender.IntrinsicsCamera(K[0][0], K[1][1], K[0][2], K[1][2], **near_and_far)
        node = scene.add(camera, pose=np.array(camtoworld) @ np.diag([1.0, -1, -1, 1]))
        rgba, depth = renderer.render(scene, flags=FLAGS)
        maximum = 65535
        levels = ((depth - 0.6) * (maximum / 1.8)).round().clip(0, maximum).astype(np.uint16)
        files = encode_png(rgba), encode_png(levels)
        if output is not None:
            (output / f"{view:03d}.png").write_bytes(files[0])


def main() -> None:
    folders = [Path(name) for name in sys.argv[1:]]
    job = json.loads((folders[0] / "job.json").read_text())
    renderer = pyrender.OffscreenRenderer(job["width"], job["height"])
    render(renderer, folders[0], folders[0])  # shaders are compiled here, not in what is timed
    print("ready", flush=True)
    sys.stdin.readline()
    wall, cpu = time.perf_counter(), time.process_time()
    for folder in folders:
        render(renderer, folder, None)
    print(json.dumps([time.perf_counter() - wall, time.process_time() - cpu]), flush=True)


if __name__ == "__main__":
    main()
