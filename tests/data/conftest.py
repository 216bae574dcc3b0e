"""Five hand-made orbits of four 8 x 8 views, as folders and as shards."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hi3d.cameras import orbit_cameras
from hi3d.views import Views, cameras_to_json, save_depth

NUM_VIEWS, SIZE = 4, 8
UIDS = [f"object{i}" for i in range(5)]


def orbit(index):
    """View v of orbit i: a square of red 50 i and green 60 v, on white; depth 1 + v / 10."""
    pixels = np.full((NUM_VIEWS, SIZE, SIZE, 4), 255, dtype=np.uint8)
    pixels[..., 3] = 0
    depth = torch.zeros(NUM_VIEWS, SIZE, SIZE)
    for view in range(NUM_VIEWS):
        pixels[view, 2:6, 2:6] = (50 * index, 60 * view, 0, 255)
        depth[view, 2:6, 2:6] = 1 + view / 10
    return pixels, depth, orbit_cameras(10.0 * index, SIZE, NUM_VIEWS)


@pytest.fixture(scope="session")
def orbit_folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("folders")
    for index, uid in enumerate(UIDS):
        pixels, depth, cameras = orbit(index)
        rgba = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
        Views(rgba[:, :3], rgba[:, 3:], cameras).save(root / uid)
        for view in range(NUM_VIEWS):
            save_depth(root / uid / f"{view:03d}-depth.png", depth[view])
    return root


@pytest.fixture(scope="session")
def orbit_shards(tmp_path_factory, orbit_folders):
    """The same orbits in three shards, written with plain tarfile as the interface says."""
    root = tmp_path_factory.mktemp("shards")
    for number, uids in enumerate((UIDS[:2], UIDS[2:4], UIDS[4:])):
        with tarfile.open(root / f"orbits-{number:06d}.tar", "w") as tar:
            for uid in uids:
                folder = orbit_folders / uid
                for view in range(NUM_VIEWS):
                    tar.add(folder / f"{view:03d}.png", f"{uid}.{view:03d}.png")
                    tar.add(folder / f"{view:03d}-depth.png", f"{uid}.{view:03d}.depth.png")
                tar.add(folder / "cameras.json", f"{uid}.json")
    (root / ".orbits-000003.tar.part").write_bytes(b"unfinished")
    (root / ".orbits-000003.tar").write_bytes(b"unfinished")
    return root


def write_shard(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def png(size: int, value: int = 255) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGBA", (size, size), (value, value, value, 255)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="session")
def make_shards():
    """Writes shards of tiny two-view orbits, with an index; gives their uids."""

    def make(root: Path, counts: list[int], with_index: bool = True) -> list[str]:
        root.mkdir(parents=True, exist_ok=True)
        content = json.dumps(cameras_to_json(orbit_cameras(0.0, 2, 2))).encode()
        entries = []
        for number, count in enumerate(counts):
            uids = [f"s{number}o{i}" for i in range(count)]
            files = {}
            for uid in uids:
                files |= {f"{uid}.{view:03d}.png": png(2, 10 * view) for view in range(2)}
                files[f"{uid}.json"] = content
            path = root / f"orbits-{number:06d}.tar"
            write_shard(path, files)
            size = path.stat().st_size
            entries.append(
                {"file": path.name, "num_orbits": count, "num_bytes": size, "uids": uids}
            )
        if with_index:
            (root / "index.json").write_text(json.dumps({"shards": entries}))
        return [uid for entry in entries for uid in entry["uids"]]

    return make


@pytest.fixture(scope="session")
def shard_writer():
    return write_shard
