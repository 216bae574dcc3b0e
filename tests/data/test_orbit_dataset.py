"""Reading orbits back, by index and as a stream, from folders and shards of hand-made pixels."""

import io
import json
import pickle
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from hi3d.cameras import orbit_cameras
from hi3d.data.orbit_dataset import OrbitDataset, resize_depth, resize_rgba
from hi3d.data.shards import read_orbits
from hi3d.errors import InputError
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


@pytest.fixture(scope="module")
def orbit_folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("folders")
    for index, uid in enumerate(UIDS):
        pixels, depth, cameras = orbit(index)
        rgba = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
        Views(rgba[:, :3], rgba[:, 3:], cameras).save(root / uid)
        for view in range(NUM_VIEWS):
            save_depth(root / uid / f"{view:03d}-depth.png", depth[view])
    return root


@pytest.fixture(scope="module")
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


@pytest.fixture(params=["folders", "shards"])
def source(request, orbit_folders, orbit_shards):
    return orbit_folders if request.param == "folders" else orbit_shards


@pytest.mark.parametrize("cached", [False, True])
def test_items_are_what_was_stored(source, cached):
    dataset = OrbitDataset(source, load_depth=True, cache_in_memory=cached)
    assert dataset.uids == UIDS
    for _ in range(2):  # the second time from the cache
        item = dataset[3]
        assert item["uid"] == "object3"
        assert item["elevation_deg"].dtype == torch.float32
        assert item["elevation_deg"].item() == pytest.approx(30, abs=1e-3)
        assert item["rgb"].shape == (NUM_VIEWS, 3, SIZE, SIZE)
        assert item["alpha"].sum() == NUM_VIEWS * 16
        assert item["rgb"][2, :, 4, 4].tolist() == pytest.approx([150 / 255, 120 / 255, 0])
        assert item["rgb"][2, :, 0, 0].tolist() == [1, 1, 1]
        assert item["depth"][2, 4, 4].item() == pytest.approx(1.2, abs=1.8 / 65535)
        assert item["depth"][2, 0, 0].item() == 0
    assert "depth" not in OrbitDataset(source)[0]
    assert dataset[-1]["uid"] == "object4"
    with pytest.raises(IndexError):
        dataset[5]


def test_random_start_rotates_the_ring(source):
    dataset = OrbitDataset(source, random_start=True, load_depth=True)
    torch.manual_seed(0)
    first_greens = set()
    for _ in range(30):
        item = dataset[1]
        green = (item["rgb"][:, 1, 4, 4] * 255 / 60).round().int().tolist()
        start = green[0]
        assert green == [(start + k) % NUM_VIEWS for k in range(NUM_VIEWS)]
        depth = item["depth"][:, 4, 4]
        assert torch.allclose(depth, 1 + torch.tensor(green) / 10, atol=1e-4)
        first_greens.add(start)
    assert first_greens == set(range(NUM_VIEWS))
    torch.manual_seed(7)
    once = dataset[1]["rgb"]
    torch.manual_seed(7)
    assert torch.equal(once, dataset[1]["rgb"])


def test_loader_batches_in_forked_workers_that_share_the_cache(orbit_shards):
    dataset = OrbitDataset(orbit_shards, cache_in_memory=True, load_depth=True)
    dataset[0]
    loader = DataLoader(dataset, batch_size=5, num_workers=1, multiprocessing_context="fork")
    (batch,) = list(loader)
    assert batch["rgb"].shape == (5, NUM_VIEWS, 3, SIZE, SIZE)
    assert batch["elevation_deg"].tolist() == pytest.approx([0, 10, 20, 30, 40], abs=1e-3)
    assert batch["uid"] == UIDS
    assert dataset._cache is not None
    assert dataset._cache.filled.all()  # filled by the worker, seen here
    assert torch.equal(dataset[4]["rgb"], batch["rgb"][4])
    copy = pickle.loads(pickle.dumps(dataset))  # as a spawned worker gets it
    assert torch.equal(copy[4]["depth"], batch["depth"][4])


def test_resize_averages_areas_over_white(source):
    item = OrbitDataset(source, resolution=4, load_depth=True)[3]
    assert item["rgb"].shape == (NUM_VIEWS, 3, 4, 4)
    # The square's pixels 2..5 are exactly the new pixels 1..2.
    assert item["alpha"][0, 0].tolist() == [[0] * 4, [0, 1, 1, 0], [0, 1, 1, 0], [0] * 4]
    assert item["rgb"][0, 0, 1, 1].item() == pytest.approx(150 / 255)
    assert item["depth"][1, 1, 1].item() == pytest.approx(1.1, abs=1e-4)
    half = OrbitDataset(source, resolution=2, load_depth=True)[3]
    # Now every pixel is a quarter square (2 x 2 of 4 x 4): alpha 1/4, red 3/4 white + 1/4 of 150.
    assert half["alpha"][0, 0].flatten().tolist() == pytest.approx([0.25] * 4, abs=1 / 255)
    assert half["rgb"][0, 0, 0, 0].item() == pytest.approx(
        (0.75 * 255 + 0.25 * 150) / 255, abs=2e-3
    )
    assert (half["depth"] == 0).all()  # less than half of each pixel is surface


def test_resize_of_other_factors():
    pixels = np.full((1, 6, 6, 4), 200, dtype=np.uint8)
    assert (resize_rgba(pixels, 4) == 200).all()
    assert resize_rgba(pixels, 9).shape == (1, 9, 9, 4)
    values = np.zeros((1, 4, 4), dtype=np.uint16)
    values[0, 0, 0], values[0, 0, 1], values[0, 1, 0] = 100, 300, 65535
    # Of the first area's four pixels two are surface: mean of 100 and 300.
    assert resize_depth(values, 2).tolist() == [[[200, 0], [0, 0]]]
    assert resize_depth(values, 8)[0, :2, :4].tolist() == [[100, 100, 300, 300]] * 2


def test_streaming_gives_the_same_samples(orbit_shards):
    dataset = OrbitDataset(orbit_shards, load_depth=True)
    samples = list(read_orbits(orbit_shards))
    assert [sample.uid for sample in samples] == UIDS
    for sample, item in zip(samples, dataset, strict=True):
        assert torch.equal(sample.rgb, item["rgb"])
        assert torch.equal(sample.alpha, item["alpha"])
        assert torch.equal(sample.depth, item["depth"])
        assert sample.elevation_deg == pytest.approx(item["elevation_deg"].item(), abs=1e-3)
        assert len(sample.cameras) == NUM_VIEWS
    expected = orbit(4)[2]
    assert torch.allclose(samples[4].cameras.viewmats, expected.viewmats)
    assert torch.allclose(samples[4].cameras.Ks, expected.Ks)
    assert next(iter(read_orbits(orbit_shards, load_depth=False))).depth is None


def test_streaming_shuffles_by_seed_and_epoch(orbit_shards):
    stream = read_orbits(orbit_shards, shuffle_buffer=5, seed=1)
    epochs = [[sample.uid for sample in stream] for _ in range(4)]
    assert all(sorted(epoch) == UIDS for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    again = read_orbits(orbit_shards, shuffle_buffer=5, seed=1)
    assert [sample.uid for sample in again] == epochs[0]


def test_errors_name_the_file_and_the_fix(tmp_path, orbit_folders, orbit_shards):
    with pytest.raises(InputError, match=r"neither orbit folders nor shards.*render_orbits"):
        OrbitDataset(tmp_path)
    with pytest.raises(InputError, match="no shard"):
        read_orbits(tmp_path)
    for folder in orbit_folders.iterdir():
        (tmp_path / "o" / folder.name).mkdir(parents=True)
        for path in folder.iterdir():
            (tmp_path / "o" / folder.name / path.name).write_bytes(path.read_bytes())
    dataset = OrbitDataset(tmp_path / "o", load_depth=True)
    (tmp_path / "o" / "object1" / "002.png").unlink()
    with pytest.raises(InputError, match=r"object1.002\.png is missing"):
        dataset[1]
    (tmp_path / "o" / "object2" / "001-depth.png").write_bytes(b"\x89PNG broken")
    with pytest.raises(InputError, match=r"object2.001-depth\.png"):
        dataset[2]
    whole = (tmp_path / "o" / "object3" / "000.png").read_bytes()
    (tmp_path / "o" / "object3" / "000.png").write_bytes(whole[:60])
    with pytest.raises(InputError, match=r"object3.000\.png"):
        dataset[3]
    (tmp_path / "o" / "object4" / "cameras.json").write_text("{}")
    with pytest.raises(InputError, match=r"object4.cameras\.json"):
        dataset[4]
    (tmp_path / "orbits-000000.tar").write_bytes(b"no tar")
    with pytest.raises(InputError, match=r"orbits-000000\.tar"):
        OrbitDataset(tmp_path)


def write_shard(path, files):
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def test_orbits_of_different_sizes_and_missing_views_in_shards(tmp_path):
    def png(size):
        buffer = io.BytesIO()
        Image.new("RGBA", (size, size), "white").save(buffer, "PNG")
        return buffer.getvalue()

    files = {}
    for uid, size in (("a", 8), ("b", 16)):
        cameras = cameras_to_json(orbit_cameras(0.0, size, 2))
        files |= {f"{uid}.000.png": png(size), f"{uid}.001.png": png(size)}
        files[f"{uid}.json"] = json.dumps(cameras).encode()
    write_shard(tmp_path / "x.tar", files)
    with pytest.raises(InputError, match=r"b\.000\.png.*give a resolution"):
        OrbitDataset(tmp_path)[1]
    assert OrbitDataset(tmp_path, resolution=8)[1]["rgb"].shape == (2, 3, 8, 8)
    with pytest.raises(InputError, match=r"a\.000\.depth\.png is missing"):
        OrbitDataset(tmp_path, load_depth=True)
    del files["b.001.png"]
    write_shard(tmp_path / "x.tar", files)
    with pytest.raises(InputError, match=r"b\.001\.png is missing"):
        list(read_orbits(tmp_path))
