"""Reading orbits by index, from folders and shards of hand-made pixels."""

import io
import json
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from hi3d.cameras import orbit_cameras
from hi3d.data.dataset import OrbitDataset
from hi3d.data.epoch_order import Share, fold_of
from hi3d.errors import InputError
from hi3d.orbits.decoding import decode_orbit_files, unpack_orbits
from hi3d.orbits.encoding import over_white, resize_depth, resize_rgba
from hi3d.views import cameras_to_json

NUM_VIEWS, SIZE = 4, 8
UIDS = [f"object{i}" for i in range(5)]


@pytest.fixture(params=["folders", "shards"])
def source(request, orbit_folders, orbit_shards):
    return orbit_folders if request.param == "folders" else orbit_shards


def encoded(pixels, format="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format, **options)
    return buffer.getvalue()


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


@pytest.mark.parametrize("cached", [False, True])
def test_random_start_rotates_the_ring(source, cached):
    dataset = OrbitDataset(source, random_start=True, load_depth=True, cache_in_memory=cached)
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


def test_an_epoch_decides_the_start(orbit_shards):
    dataset = OrbitDataset(orbit_shards, random_start=True, num_views=2, seed=3)
    greens = [(dataset[1, epoch]["rgb"][:, 1, 4, 4] * 255 / 60).round() for epoch in range(40)]
    assert {g[0].item() for g in greens} == set(range(NUM_VIEWS))
    assert all((g[1] - g[0]) % NUM_VIEWS == 1 for g in greens)
    assert torch.equal(dataset[1, 5]["rgb"], dataset[1, 5]["rgb"])


def test_loader_batches_in_forked_workers_that_share_the_cache(orbit_shards):
    dataset = OrbitDataset(orbit_shards, cache_in_memory=True, load_depth=True)
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


def test_folds_are_held_out_by_name(orbit_shards, orbit_folders):
    uids = OrbitDataset(orbit_folders).uids
    kept = [OrbitDataset(orbit_folders, held_out_fold=(fold, 2)).uids for fold in (0, 1)]
    assert all(kept)
    assert sorted(kept[0] + kept[1]) == sorted(uids)
    assert not [uid for uid in kept[0] if fold_of(uid, 2) == 0]
    assert OrbitDataset(orbit_shards, held_out_fold=(0, 2)).uids == kept[0]
    sizes = np.bincount([fold_of(f"object-{i}", 3) for i in range(3000)])
    assert (abs(sizes - 1000) < 100).all()  # four standard deviations


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
    pixels = np.full((6, 6, 4), 200, dtype=np.uint8)
    pixels[..., 3] = 100  # neither weighs the colours nor is weighed
    assert (resize_rgba(pixels, 4) == [200, 200, 200, 100]).all()
    assert (resize_rgba(pixels, 3) == [200, 200, 200, 100]).all()
    assert resize_rgba(pixels, 9).shape == (9, 9, 4)
    noise = np.random.default_rng(0).integers(0, 256, (12, 12, 4), dtype=np.uint8)
    exact = noise.reshape(4, 3, 4, 3, 4).mean((1, 3))
    assert np.abs(resize_rgba(noise, 4) - exact).max() <= 1
    # A fine chequerboard has no frequency that 3/4 of its size can hold: antialiased, it is grey.
    board = np.indices((32, 32)).sum(0) % 2 * 255
    board = np.repeat(board[..., None], 4, 2).astype(np.uint8)
    assert np.abs(resize_rgba(board, 12)[3:-3, 3:-3].astype(int) - 127).max() < 16
    values = np.zeros((4, 4), dtype=np.uint16)
    values[0, 0], values[0, 1], values[1, 0] = 100, 300, 65535
    # Of the first area's four pixels two are surface: mean of 100 and 300.
    assert resize_depth(values, 2).tolist() == [[200, 0], [0, 0]]
    assert resize_depth(values, 8)[:2, :4].tolist() == [[100, 100, 300, 300]] * 2


def test_straight_alpha_over_white():
    pixels = np.array([[[10, 20, 30, 0], [10, 20, 30, 255], [0, 100, 255, 51]]], np.uint8)
    # At alpha 51 / 255 = 1/5: 0 -> 204, 100 -> 20 + 204, 255 -> 255.
    assert over_white(pixels)[0, :, :3].tolist() == [[255] * 3, [10, 20, 30], [204, 224, 255]]


def test_webp_8_bit_depth_and_normals(tmp_path, shard_writer):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (2, 8, 8, 4), dtype=np.uint8)
    normals = np.full((2, 8, 8, 3), 128, np.uint8)
    normals[:, 0, 0] = (255, 128, 128)  # +x, as near as 8 bits come
    normals[:, 0, 1] = (128, 37, 37)  # -y - z
    depth = np.zeros((2, 8, 8), np.uint8)
    depth[:, 0, :3] = (51, 255, 0)  # 51 / 255 = 1/5 of the range
    files = {}
    for view in range(2):
        files[f"a.{view:03d}.webp"] = encoded(pixels[view], "WEBP", lossless=True, exact=True)
        files[f"a.{view:03d}.depth.png"] = encoded(depth[view])
        files[f"a.{view:03d}.normal.png"] = encoded(normals[view])
    files["a.json"] = json.dumps(cameras_to_json(orbit_cameras(0.0, 8, 2))).encode()
    shard_writer(tmp_path / "x.tar", files)
    dataset = OrbitDataset(tmp_path, load_depth=True, load_normals=True)
    item = dataset[0]
    assert torch.equal(
        (item["rgb"] * 255).round().byte(), torch.from_numpy(pixels)[..., :3].permute(0, 3, 1, 2)
    )
    assert item["depth"][0, 0, :3].tolist() == pytest.approx([0.6 + 1.8 / 5, 0, 0])
    assert item["normals"][0, :, 0, 0].tolist() == pytest.approx([1, 0, 0], abs=6e-3)
    assert item["normals"][0, :, 0, 1].tolist() == pytest.approx(
        [0, -(0.5**0.5), -(0.5**0.5)], 6e-3, 6e-3
    )
    assert (item["normals"][0, :, 4, 4] == 0).all()
    packed = OrbitDataset(tmp_path, load_depth=True, load_normals=True, packed=True)[0]
    assert packed["rgba"].dtype == torch.uint8
    assert torch.equal(unpack_orbits(packed)["normals"], item["normals"])


def test_official_layout(tmp_path):
    """Index = elevation * 16 + azimuth: image i is a colour of red i and green 2 i, alpha 1/5."""
    for uid in ("b", "a"):
        (tmp_path / uid).mkdir()
        for i in range(96):
            image = Image.new("RGBA", (4, 4), (i, 2 * i, 0, 51))
            image.save(tmp_path / uid / f"{i:03d}.png")
    dataset = OrbitDataset(tmp_path, resolution=2)
    assert len(dataset) == 12
    assert dataset.uids[:2] == ["a_-10deg", "a_0deg"]
    item = dataset[6 + 4]
    assert item["uid"] == "b_30deg"
    assert item["elevation_deg"] == 30
    red = 204 + np.arange(64, 80) / 5  # over white, at alpha 1/5
    assert item["rgb"][:, 0, 0, 0].numpy() * 255 == pytest.approx(red, abs=0.51)
    assert item["alpha"][0, 0, 0, 0].item() == pytest.approx(0.2)
    with pytest.raises(InputError, match="load_depth=false"):
        OrbitDataset(tmp_path, load_depth=True)
    (tmp_path / "a" / "095.png").unlink()
    with pytest.raises(InputError, match="95 images"):
        OrbitDataset(tmp_path)
    assert OrbitDataset(tmp_path, strict=False)[0]["uid"] == "b_-10deg"


def copy_folders(source, target):
    for folder in source.iterdir():
        (target / folder.name).mkdir(parents=True)
        for path in folder.iterdir():
            (target / folder.name / path.name).write_bytes(path.read_bytes())


def test_errors_name_the_file_and_the_fix(tmp_path, orbit_folders):
    with pytest.raises(InputError, match=r"neither orbit folders nor shards.*render_orbits"):
        OrbitDataset(tmp_path)
    with pytest.raises(InputError, match="resolution 0: give 1 or more"):
        OrbitDataset(orbit_folders, resolution=0)
    with pytest.raises(InputError, match="num_views 0: give 1 or more"):
        OrbitDataset(orbit_folders, num_views=0)
    with pytest.raises(InputError, match="streaming=true"):
        OrbitDataset("https://host/orbits-000000.tar")
    copy_folders(orbit_folders, tmp_path / "o")
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
    (tmp_path / "o" / "object4" / "cameras.json").write_text(
        '{"frames": [{"elevation_deg": 0}], "width": "wide", "height": 8}'
    )
    with pytest.raises(InputError, match=r"object4.cameras\.json"):
        dataset[4]
    tolerant = OrbitDataset(tmp_path / "o", load_depth=True, strict=False)
    items = [tolerant[i] for i in range(5)]
    assert [item["uid"] for item in items] == ["object0"] * 5  # in place of all others
    kinds = [[error.kind for error in item.get("broken", [])] for item in items]
    assert kinds == [
        [],
        ["missing view"],
        ["unreadable image"],
        ["unreadable image"],
        ["bad camera file"],
    ]
    (tmp_path / "orbits-000000.tar").write_bytes(b"no tar")
    with pytest.raises(InputError, match=r"orbits-000000\.tar"):
        OrbitDataset(tmp_path)
    with pytest.raises(InputError, match="no orbit that can be read"):
        OrbitDataset(tmp_path, strict=False)


def test_orbits_of_different_sizes_in_shards(tmp_path, shard_writer):
    files = {}
    for uid, size in (("a", 8), ("b", 16)):
        image = encoded(np.zeros((size, size, 4), np.uint8))
        files |= {f"{uid}.000.png": image, f"{uid}.001.png": image}
        files[f"{uid}.json"] = json.dumps(cameras_to_json(orbit_cameras(0.0, size, 2))).encode()
    shard_writer(tmp_path / "x.tar", files)
    with pytest.raises(InputError, match=r"b\.000\.png.*give a resolution"):
        OrbitDataset(tmp_path)[1]
    assert OrbitDataset(tmp_path, resolution=8)[1]["rgb"].shape == (2, 3, 8, 8)
    with pytest.raises(InputError, match=r"a\.000\.depth\.png is missing"):
        OrbitDataset(tmp_path, load_depth=True)
    with pytest.raises(InputError, match="num_views=2 or less"):
        OrbitDataset(tmp_path, num_views=3)
    cached = OrbitDataset(tmp_path, num_views=3, cache_in_memory=True)
    with pytest.raises(InputError, match="num_views=2 or less"):
        cached[0]  # regression: the cache repeated views
    dataset = OrbitDataset(tmp_path, resolution=8)
    (tmp_path / "x.tar").unlink()
    with pytest.raises(InputError, match=r"no shard at .*x\.tar: copy it"):
        dataset[1]
    files["a.001.png"] = encoded(np.zeros((4, 8, 4), np.uint8))
    shard_writer(tmp_path / "x.tar", files)
    with pytest.raises(InputError, match=r"a\.001\.png is 8x4 pixels and its cameras 8x8"):
        OrbitDataset(tmp_path, resolution=8)


def test_only_wanted_views_are_decoded(orbit_folders):
    dataset = OrbitDataset(orbit_folders, num_views=1)
    read = []

    class Watched:
        def __getattr__(self, name):
            return getattr(dataset._orbits[2], name)

        def __contains__(self, name):
            return name in dataset._orbits[2]

        def read(self, name):
            read.append(name)
            return dataset._orbits[2].read(name)

    assert decode_orbit_files(Watched(), dataset._reading, start=7).rgba.shape[0] == 1
    assert [name for name in read if name != "json"] == ["003.png"]


@pytest.mark.parametrize(("total", "drop_last"), [(13, True), (13, False), (12, False), (3, False)])
def test_steps_are_dealt_to_processes(total, drop_last):
    tape = np.arange(100, 100 + total)
    whole = Share(0, 1, 4, drop_last).deal(tape)
    parts = [Share(rank, 2, 2, drop_last).deal(tape) for rank in (0, 1)]
    assert len(parts[0]) == len(parts[1]) == Share(0, 2, 2, drop_last).num_orbits(total)
    assert set(whole) == set(parts[0]) | set(parts[1])
    for step in range(total // 4):  # one process with both batches sees the same
        both = [part[2 * step : 2 * step + 2].tolist() for part in parts]
        assert both[0] + both[1] == whole[4 * step : 4 * step + 4].tolist()
