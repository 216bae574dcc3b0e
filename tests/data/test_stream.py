"""Streaming shards: every orbit once, whoever reads it, from anywhere, and again after a stop."""

import http.server
import itertools
import json
import shutil
import threading
from functools import partial

import numpy as np
import pytest
import torch

from hi3d.data.dataset import OrbitDataset
from hi3d.data.epoch_order import (
    Share,
    buffer_shuffled,
    lane_batches,
    lane_bounds,
    shard_tape,
)
from hi3d.data.loader import OrbitLoader
from hi3d.data.shards import find_shards
from hi3d.data.stream import OrbitStream
from hi3d.errors import InputError
from hi3d.orbits.decoding import OrbitReading, unpack_orbits
from hi3d.progress import console

READING = OrbitReading(2)


def stream_loader(source, share=None, workers=0, train=True, **options):
    stream = OrbitStream(source, READING, shuffle_buffer=3, seed=5)
    return OrbitLoader(stream, share or Share(), train, workers, seed=5, **options)


def random_access_loader(source, share=None, workers=0, train=True):
    orbits = OrbitDataset(source, 2, packed=True, strict=False, seed=5)
    return OrbitLoader(orbits, share or Share(), train, workers, seed=5)


def batches(loader):
    return [batch["uid"] for batch in loader]


def flat(batch_lists):
    return list(itertools.chain.from_iterable(batch_lists))


def test_buffer_shuffle_is_a_bounded_permutation():
    order = buffer_shuffled(1000, 10, (0,))
    assert sorted(order) == list(range(1000))
    assert (order - np.arange(1000)).max() <= 9  # the 10 first may come first
    assert (order != np.arange(1000)).mean() > 0.8
    assert buffer_shuffled(5, 0, (0,)).tolist() == [0, 1, 2, 3, 4]
    assert sorted(buffer_shuffled(3, 100, (1,))) == [0, 1, 2]
    firsts = [buffer_shuffled(4, 4, (seed,))[0] for seed in range(400)]
    assert np.bincount(firsts).min() > 70  # uniform: 100 each, standard deviation 8.7


def test_tape_keeps_shards_together():
    tape = shard_tape([2, 3, 1], seed=0, epoch=1, shuffle=True)
    assert sorted(tape) == [0, 1, 2, 3, 4, 5]
    assert any(list(tape[i : i + 3]) == [2, 3, 4] for i in range(4))
    assert shard_tape([2, 3], 0, 0, False).tolist() == [0, 1, 2, 3, 4]
    orders = {tuple(shard_tape([1] * 5, 0, epoch, True)) for epoch in range(10)}
    assert len(orders) > 5


@pytest.mark.parametrize(("total", "size", "lanes"), [(12, 2, 3), (13, 2, 4), (5, 4, 3), (1, 1, 4)])
def test_lanes_cover_a_stretch(total, size, lanes):
    bounds = [lane_bounds(total, size, lane, lanes) for lane in range(lanes)]
    assert bounds[0][0] == 0
    assert bounds[-1][1] == total
    assert all(a[1] == b[0] for a, b in itertools.pairwise(bounds))
    num_batches = -(-total // size)
    counts = [lane_batches(num_batches, lane, lanes) for lane in range(lanes)]
    assert sum(counts) == num_batches
    assert [-(-(end - first) // size) for first, end in bounds] == counts


@pytest.mark.parametrize("world_size", [1, 2, 5])
@pytest.mark.parametrize("make_loader", [stream_loader, random_access_loader])
def test_processes_take_equal_parts_and_no_orbit_twice(
    tmp_path, make_shards, make_loader, world_size
):
    uids = make_shards(tmp_path, [4, 7, 6])  # with 5 processes, fewer shards than processes
    parts = []
    for rank in range(world_size):
        loader = make_loader(tmp_path, Share(rank, world_size, 2))
        parts.append(flat(batches(loader)))
        assert len(parts[-1]) == 2 * len(loader)
    seen = flat(parts)
    # 17 orbits: 8 steps of 2; 4 steps of 2 x 2; 1 step of 5 x 2.
    assert len(seen) == {1: 16, 2: 16, 5: 10}[world_size]
    assert len({*seen}) == len(seen)
    kept = [
        flat(batches(make_loader(tmp_path, Share(rank, world_size, 2, drop_last=False))))
        for rank in range(world_size)
    ]
    assert {*flat(kept)} == {*uids}
    assert {len(part) for part in kept} == {-(-17 // world_size)}


@pytest.mark.parametrize("workers", [0, 2, 3])
def test_workers_share_an_epoch(tmp_path, make_shards, workers):
    uids = make_shards(tmp_path, [5, 3, 4])
    loader = stream_loader(tmp_path, Share(0, 1, 2), workers)
    epochs = [flat(batches(loader)) for _ in range(2)]
    assert all(sorted(epoch) == sorted(uids) for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert epochs[0] == flat(batches(stream_loader(tmp_path, Share(0, 1, 2), workers)))
    in_order = stream_loader(tmp_path, Share(0, 1, 5, drop_last=False), workers, train=False)
    assert [len(batch) for batch in batches(in_order)] == [5, 5, 2]
    assert batches(in_order) == batches(in_order)  # every time from the start


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("make_loader", [stream_loader, random_access_loader])
def test_resume_gives_what_was_not_seen(tmp_path, make_shards, make_loader, workers):
    make_shards(tmp_path, [5, 3, 5])
    share = Share(0, 1, 2)
    whole = make_loader(tmp_path, share, workers)
    expected = [*batches(whole), *batches(whole)]
    assert len(expected) == 12
    for stop in (0, 1, 3, 5, 6, 7, 11) if workers == 0 else (3, 7):
        first = make_loader(tmp_path, share, workers)
        iterator = itertools.chain(first, first)
        before = [next(iterator)["uid"] for _ in range(stop)]
        second = make_loader(tmp_path, share, workers)
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        after = [batch["uid"] for batch in itertools.chain(second, second)]
        assert (before + after)[:12] == expected


def test_a_batch_that_cannot_be_filled_is_told(tmp_path, make_shards, capsys, monkeypatch):
    monkeypatch.setattr(console, "quiet", False)
    make_shards(tmp_path, [3])
    loader = random_access_loader(tmp_path, Share(0, 1, 8))
    assert [len(batch) for batch in batches(loader)] == [3]
    assert "3 orbits on 1 processes fill no batch of 8" in capsys.readouterr().err
    assert len(stream_loader(tmp_path, Share(0, 1, 3))) == 1
    random_access_loader(tmp_path, Share(0, 1, 8), train=False)
    assert capsys.readouterr().err == ""


def test_resume_with_other_settings(tmp_path, make_shards, capsys, monkeypatch):
    monkeypatch.setattr(console, "quiet", False)
    monkeypatch.setattr(console, "width", 500)
    uids = make_shards(tmp_path, [8])
    loader = stream_loader(tmp_path, Share(0, 1, 2), workers=2)
    seen = flat(next(iter(loader))["uid"] for _ in range(2))
    more_workers = stream_loader(tmp_path, Share(0, 1, 2), workers=3)
    more_workers.load_state_dict(loader.state_dict())
    assert sorted(seen + flat(batches(more_workers))) == sorted(uids)
    other_size = stream_loader(tmp_path, Share(0, 1, 4))
    other_size.load_state_dict(loader.state_dict())
    assert "batch_size was 2 and is 4: epoch 0 is not finished" in capsys.readouterr().err
    assert (other_size.epoch, other_size.batches_done) == (1, 0)


def test_skipping_decodes_nothing(tmp_path, make_shards, monkeypatch):
    make_shards(tmp_path, [6, 6])
    decoded = []
    from hi3d.data import stream as orbit_stream

    decode = orbit_stream.decode_orbit_files
    monkeypatch.setattr(
        orbit_stream, "decode_orbit_files", lambda f, *a: decoded.append(f.uid) or decode(f, *a)
    )
    loader = stream_loader(tmp_path, Share(0, 1, 2))
    loader.load_state_dict(loader.state_dict() | {"batches_done": 4})
    rest = flat(batches(loader))
    assert decoded == rest
    assert len(rest) == 4


def test_stream_gives_what_random_access_gives(orbit_shards):
    stream = OrbitStream(orbit_shards, OrbitReading(8, load_depth=True))
    dataset = OrbitDataset(orbit_shards, load_depth=True)
    items = [unpack_orbits(item) for item in stream]
    assert [item["uid"] for item in items] == dataset.uids
    for item, expected in zip(items, dataset, strict=True):
        assert item.keys() == expected.keys()
        for name in ("rgb", "alpha", "depth", "elevation_deg"):
            assert torch.equal(item[name], expected[name])


def test_random_start_is_the_same_for_both(orbit_shards):
    def epochs(orbits):
        loader = OrbitLoader(orbits, Share(0, 1, 5), train=True)
        found = []
        for _ in range(3):
            (batch,) = loader
            found.append({u: r.numpy() for u, r in zip(batch["uid"], batch["rgba"], strict=True)})
        return found

    streamed = epochs(OrbitStream(orbit_shards, OrbitReading(8, num_views=2), random_start=True))
    indexed = epochs(OrbitDataset(orbit_shards, 8, True, num_views=2, packed=True, strict=False))
    for ours, theirs in zip(streamed, indexed, strict=True):
        assert all((ours[uid] == theirs[uid]).all() for uid in theirs)
    assert any((streamed[0][uid] != streamed[1][uid]).any() for uid in streamed[0])


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    (tmp_path / "served").mkdir()
    requests = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            requests.append(f"{self.command} {self.path}")

    handler = partial(Handler, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as http_server:
        threading.Thread(target=http_server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http_server.server_port}", tmp_path / "served", requests
        http_server.shutdown()


def test_urls_pipes_and_braces(server, make_shards):
    url, folder, requests = server
    uids = make_shards(folder, [3, 2, 4])
    sources = [
        f"{url}/orbits-{{000000..000002}}.tar",
        f"{url}/index.json",
        f"pipe:cat {folder}/orbits-{{000000..000002}}.tar",
        f"{folder}/orbits-{{000000..000002}}.tar",
        f"{folder}/index.json",
        str(folder),
    ]
    orders = []
    for source in sources:
        orders.append(flat(batches(stream_loader(source, Share(0, 1, 3), workers=0))))
        assert sorted(orders[-1]) == sorted(uids)
    assert all(order == orders[0] for order in orders)
    assert requests
    assert all(request.startswith("GET ") for request in requests)
    requests.clear()
    half = flat(batches(stream_loader(sources[0], Share(0, 2, 1), workers=0)))
    other = flat(batches(stream_loader(sources[0], Share(1, 2, 1), workers=2)))
    assert len({*half, *other}) == 8  # of 9 orbits, 2 x 4
    (folder / "index.json").unlink()
    assert [shard.uids for shard in find_shards(sources[0])] == [
        tuple(f"s{number}o{i}" for i in range(count)) for number, count in enumerate((3, 2, 4))
    ]


def test_shards_of_two_folders_may_have_the_same_names(tmp_path, make_shards):
    """Regression: the index of the last folder was taken for all."""
    first, second = tmp_path / "first", tmp_path / "second"
    make_shards(first, [3])
    make_shards(second, [2])
    for source in ([first, second], f"{first}/orbits-000000.tar::{second}/orbits-000000.tar"):
        assert [len(shard.uids) for shard in find_shards(source, strict=True)] == [3, 2]


def test_remote_resume_opens_only_shards_that_are_left(server, make_shards):
    url, folder, requests = server
    make_shards(folder, [4, 4, 4])
    source = f"{url}/index.json"
    whole = batches(stream_loader(source, Share(0, 1, 2)))
    requests.clear()
    loader = stream_loader(source, Share(0, 1, 2))
    loader.load_state_dict(loader.state_dict() | {"batches_done": 5})
    assert batches(loader) == whole[5:]
    tars = [request for request in requests if request.endswith(".tar")]
    assert len(tars) == 1  # the last two of 12 orbits lie in one shard


def test_broken_orbits_are_counted_and_replaced(
    tmp_path, make_shards, shard_writer, capsys, monkeypatch
):
    monkeypatch.setattr(console, "quiet", False)
    monkeypatch.setattr(console, "width", 500)
    make_shards(tmp_path, [6, 5, 3])
    whole = (tmp_path / "orbits-000001.tar").read_bytes()
    # An orbit of the shard takes 3 headers and 3 blocks of 512 bytes (cameras more): cut in two.
    (tmp_path / "orbits-000001.tar").write_bytes(whole[: len(whole) // 2])
    for workers in (0, 2):
        loader = stream_loader(tmp_path, Share(0, 1, 2), workers)
        epoch = flat(batches(loader))
        assert len(epoch) == 14  # as many as without damage, so that all processes keep step
        lost = 14 - len({*epoch})
        assert 1 <= lost <= 4
        message = capsys.readouterr().err
        assert f"epoch 0: {lost} orbits skipped, truncated shard; the first:" in message
        assert message.count("\n") == 2  # the first at once, and one line at the end
        capsys.readouterr()
    with pytest.raises(InputError, match=r"^[^\n]*orbits-000001.tar[^\n]*$"):
        batches(stream_loader(tmp_path, Share(0, 1, 2), 2, strict=True))
    remote = f"pipe:cat {tmp_path}/orbits-{{000000..000002}}.tar"
    assert len({*flat(batches(stream_loader(remote, Share(0, 1, 2))))}) == 14 - lost


def test_every_kind_is_counted(tmp_path, make_shards, shard_writer, capsys, monkeypatch):
    monkeypatch.setattr(console, "quiet", False)
    monkeypatch.setattr(console, "width", 500)
    make_shards(tmp_path, [5], with_index=False)
    import tarfile

    with tarfile.open(tmp_path / "orbits-000000.tar") as tar:
        files = {m.name: tar.extractfile(m).read() for m in tar}
    del files["s0o0.001.png"]
    files["s0o1.000.png"] = files["s0o1.000.png"][:40]
    content = json.loads(files["s0o2.json"])
    files["s0o2.json"] = json.dumps(content | {"width": 9}).encode()
    files["s0o3.json"] = b"[]"
    shard_writer(tmp_path / "orbits-000000.tar", files)
    for make_loader in (stream_loader, random_access_loader):
        assert flat(batches(make_loader(tmp_path))) == ["s0o4"] * 5
        message = capsys.readouterr().err
        for kind in ("missing view", "unreadable image", "wrong size", "bad camera file"):
            assert message.count(f"epoch 0: 1 orbits skipped, {kind}") == 1
    for uid in range(5):
        files[f"s0o{uid}.json"] = b"[]"
    shard_writer(tmp_path / "orbits-000000.tar", files)
    for workers in (0, 1):
        with pytest.raises(InputError, match=r"^not one of 5 orbits can be read[^\n]*$"):
            batches(stream_loader(tmp_path, workers=workers))


def test_wrong_sources(tmp_path, make_shards):
    with pytest.raises(InputError, match="no shard"):
        find_shards(tmp_path)
    with pytest.raises(InputError, match=r"no shard at .*0001.tar"):
        find_shards(str(tmp_path / "o-{0001..0002}.tar"))
    with pytest.raises(InputError, match=r"names no \.tar"):
        find_shards("pipe:cat orbits")
    make_shards(tmp_path, [2, 1])
    (tmp_path / "orbits-000001.tar").unlink()
    with pytest.raises(InputError, match=r"lacks 1 shards of its index: copy orbits-000001\.tar$"):
        find_shards(tmp_path)
    assert [len(shard.uids) for shard in find_shards(tmp_path, allow_missing=True)] == [2]
    with pytest.raises(InputError, match=r"no shard at .*orbits-000001\.tar"):
        find_shards(tmp_path / "index.json")
    make_shards(tmp_path, [2])
    with pytest.raises(InputError, match="2 orbits are too few for 3 processes"):
        stream_loader(tmp_path, Share(0, 3, 1))
    (tmp_path / "index.json").unlink()
    shutil.copy(tmp_path / "orbits-000000.tar", tmp_path / "b.tar")
    (tmp_path / "b.tar").write_bytes(b"no tar at all")
    assert len(find_shards(tmp_path)) == 1
    with pytest.raises(InputError, match=r"cannot read shard .*b\.tar"):
        find_shards(tmp_path, strict=True)
