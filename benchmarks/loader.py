"""Reading orbits: orbits/s per core for each storage format, against what one 8-GPU node needs.

    python benchmarks/loader.py OBJECT [OBJECT ...] [--views 16] [--json FILE]

Renders the objects at 1024 x 1024 with depth, stores them in every format, as shards and as
folders, and streams them with depth as a training does (one process, no worker): at 1024 for
stage 2, reduced to 512 for stage 1, and from files of 512. The need is that of the paper (Section
5, implementation details): on eight A100s stage 1 takes 80,000 steps of 16 orbits in about 3 days,
stage 2 20,000 steps of 8 in about 3 days. Cores = need / rate. A rate is the best of several runs,
in seconds of the process, since other programs share the machine; files come from the page cache.
Prints the baseline that the ratios refer to: PNG of Pillow's default level, 16-bit depth, a shard.
"""

import io
import json
import tarfile
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from hi3d.assets.load import load_object
from hi3d.cameras import orbit_cameras
from hi3d.command_line import make_parser, parse_arguments, run
from hi3d.data.dataset import OrbitDataset
from hi3d.data.epoch_order import Share
from hi3d.data.loader import OrbitLoader
from hi3d.data.stream import OrbitStream
from hi3d.files import write_json
from hi3d.orbits.decoding import OrbitReading
from hi3d.orbits.encoding import encode_png, resize_depth, resize_rgba
from hi3d.progress import track
from hi3d.rendering.rasterizer import render_views
from hi3d.views import cameras_to_json, encode_depth

SIZE = 1024
TRAINING_SECONDS = 3 * 86_400
STEPS_AND_BATCHES = {512: (80_000, 16), 1024: (20_000, 8)}
"""By the image side of stage 1 and stage 2 of the paper."""
NEED = {
    side: steps * batch / TRAINING_SECONDS for side, (steps, batch) in STEPS_AND_BATCHES.items()
}
"""Orbits per second of one node with eight A100s."""


@dataclass(frozen=True)
class Format:
    """How an orbit is stored."""

    name: str
    image: dict
    """Options of Pillow's `save`."""
    depth_bits: int = 16
    """Of the depth maps; 0 stores and reads none."""
    folder: bool = False
    """A folder per orbit in place of a shard."""


PNG = [{"format": "PNG", "compress_level": level} for level in (1, 6, 9)]
WEBP = {"format": "WEBP", "lossless": True, "method": 1, "quality": 20, "exact": True}
BASELINE = Format("PNG 6, depth 16", PNG[1])
FORMATS = [
    BASELINE,
    Format("PNG of render_orbits, depth 16", {"format": "PNG", "ours": True}),
    Format("PNG of render_orbits, depth 8", {"format": "PNG", "ours": True}, 8),
    Format("PNG of render_orbits, no depth", {"format": "PNG", "ours": True}, 0),
    Format("PNG of render_orbits, depth 16, folders", {"format": "PNG", "ours": True}, 16, True),
    Format("PNG 1, depth 16", PNG[0]),
    Format("PNG 9, depth 16", PNG[2]),
    Format("WebP, depth 16", WEBP),
    Format("WebP, depth 8", WEBP, 8),
    Format("WebP, no depth", WEBP, 0),
    Format("WebP, depth 16, folders", WEBP, 16, folder=True),
]


def main() -> None:
    parser = make_parser(
        __doc__.split("\n")[0], "benchmarks/loader.py data/examples/objects/*.glb --repeats 1"
    )
    parser.add_argument(
        "objects", nargs="+", type=Path, metavar="OBJECT", help="about four object files"
    )
    parser.add_argument("--views", type=int, default=16, metavar="N", help="views per orbit (16)")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="epochs of each (3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures")
    arguments = parse_arguments(parser)
    torch.set_num_threads(1)
    orbits = [render(path, arguments.views) for path in track(arguments.objects, "rendering")]
    small = [reduce(orbit) for orbit in orbits]
    rows = []
    for format in track(FORMATS, "formats"):
        with tempfile.TemporaryDirectory() as folder:
            size, encode_s = write_orbits(Path(folder, "large"), orbits, format)
            small_size, _ = write_orbits(Path(folder, "small"), small, format)
            repeats = arguments.repeats
            rows.append(
                {
                    "format": format.name,
                    "mb_1024": size / 1e6,
                    "mb_512": small_size / 1e6,
                    "encode_s": encode_s,
                    "orbits_per_s_1024": rate(Path(folder, "large"), 1024, format, repeats),
                    "orbits_per_s_1024_to_512": rate(Path(folder, "large"), 512, format, repeats),
                    "orbits_per_s_512": rate(Path(folder, "small"), 512, format, repeats),
                }
            )
    show(rows, arguments.views)
    if arguments.json:
        write_json(arguments.json, {"need_orbits_per_s": NEED, "formats": rows})


def render(path: Path, views: int) -> tuple[np.ndarray, np.ndarray]:
    """RGBA [V, H, W, 4] uint8 and depth [V, H, W] uint16."""
    rendered = render_views(load_object(path), orbit_cameras(20.0, SIZE, views))
    rgba = torch.cat([rendered.rgb, rendered.alpha], dim=1).permute(0, 2, 3, 1)
    return (rgba * 255).round().byte().numpy(), encode_depth(rendered.depth)


def reduce(orbit: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The same orbit at half the size."""
    half = SIZE // 2
    rgba, depth = orbit
    return (
        np.stack([resize_rgba(image, half) for image in rgba]),
        np.stack([resize_depth(values, half) for values in depth]),
    )


def encode(pixels: np.ndarray, ours: bool = False, **options: Any) -> bytes:
    """A file of [H, W, C] uint8 by Pillow with its options, or by the renderer's own encoder."""
    if ours:
        return encode_png(pixels)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, **options)
    return buffer.getvalue()


def write_orbits(root: Path, orbits: list, format: Format) -> tuple[float, float]:
    """Store the orbits; bytes per orbit on disk, and CPU seconds of encoding per orbit."""
    root.mkdir()
    suffix = str(format.image["format"]).lower()
    seconds = 0.0
    uids = [f"o{i}" for i in range(len(orbits))]
    with tarfile.open(root / "orbits-000000.tar", "w") as tar:
        for uid, (rgba, depth) in zip(uids, orbits, strict=True):
            start = time.process_time()
            files = {f"{i:03d}.{suffix}": encode(p, **format.image) for i, p in enumerate(rgba)}
            if format.depth_bits:
                if format.depth_bits == 8:
                    depth = (depth / 257).round().astype(np.uint8)
                files |= {f"{i:03d}.depth.png": encode_png(d) for i, d in enumerate(depth)}
            seconds += time.process_time() - start
            cameras = cameras_to_json(orbit_cameras(20.0, rgba.shape[1], len(rgba)))
            files["json"] = json.dumps(cameras).encode()
            for name, data in files.items():
                write_file(root, tar, uid, name, data, format.folder)
    shard = root / "orbits-000000.tar"
    if format.folder:
        shard.unlink()
        return sum(p.stat().st_size for p in root.rglob("*.*")) / len(orbits), seconds / len(orbits)
    entry = {"file": shard.name, "num_bytes": shard.stat().st_size, "uids": uids}
    write_json(root / "index.json", {"shards": [entry]})
    return shard.stat().st_size / len(orbits), seconds / len(orbits)


def write_file(
    root: Path, tar: tarfile.TarFile, uid: str, name: str, data: bytes, folder: bool
) -> None:
    if folder:
        name = "cameras.json" if name == "json" else name.replace(".depth", "-depth")
        (root / uid).mkdir(exist_ok=True)
        (root / uid / name).write_bytes(data)
        return
    member = tarfile.TarInfo(f"{uid}.{name}")
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def rate(root: Path, resolution: int, format: Format, repeats: int) -> float:
    """Orbits per second of CPU time, the best of several epochs, decoded at `resolution`."""
    load_depth = format.depth_bits > 0
    if format.folder:
        orbits: OrbitDataset | OrbitStream = OrbitDataset(
            root, resolution, True, load_depth=load_depth, strict=False, packed=True
        )
    else:
        orbits = OrbitStream(root, OrbitReading(resolution, load_depth), True, 64)
    loader = OrbitLoader(orbits, Share(), train=True)
    best = 0.0
    for _ in range(repeats):
        start = time.process_time()
        count = sum(len(batch["uid"]) for batch in loader)
        best = max(best, count / (time.process_time() - start))
    return best


def show(rows: list[dict], views: int) -> None:
    for stage, (side, (steps, batch)) in enumerate(STEPS_AND_BATCHES.items(), start=1):
        print(
            f"stage {stage} of the paper, 8 A100: {steps} steps x {batch} orbits / 3 days = "
            f"{NEED[side]:.2f} orbits/s"
        )
    columns = (
        *("format", "MB 1024²", "MB 512²", "encode s"),
        *("orbits/s 1024²", "cores", "1024² to 512²", "cores", "512²", "cores"),
        "1024² vs baseline",
    )
    print(f"\norbits of {views} views, per core")
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for row in rows:
        cells = [row["format"], f"{row['mb_1024']:.2f}", f"{row['mb_512']:.2f}"]
        cells.append(f"{row['encode_s']:.2f}")
        for key, need in (
            ("orbits_per_s_1024", NEED[1024]),
            ("orbits_per_s_1024_to_512", NEED[512]),
            ("orbits_per_s_512", NEED[512]),
        ):
            cells += [f"{row[key]:.1f}", f"{need / row[key]:.2f}"]
        ratio = row["orbits_per_s_1024"] / rows[0]["orbits_per_s_1024"]
        print(f"| {' | '.join([*cells, f'{ratio:.2f}x'])} |")


if __name__ == "__main__":
    run(main)
