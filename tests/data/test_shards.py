"""Shards that others packed, and servers that do not give them."""

import http.server
import json
import socket
import tarfile
import threading
from functools import partial

import pytest

from hi3d.data.epoch_order import Share
from hi3d.data.loader import OrbitLoader
from hi3d.data.shards import find_shards, stream_orbits
from hi3d.data.stream import OrbitStream
from hi3d.errors import InputError
from hi3d.orbits.broken_orbits import BrokenOrbitError
from hi3d.orbits.decoding import OrbitReading
from hi3d.progress import console


def uids_of(source, workers=0, **options):
    stream = OrbitStream(source, OrbitReading(2), **options)
    return [u for b in OrbitLoader(stream, Share(), False, workers) for u in b["uid"]]


def members(path):
    with tarfile.open(path) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar}


@pytest.mark.parametrize("prefix", ["./", "train.v1/", "./a/b.c/"])
def test_names_with_folders(tmp_path, make_shards, shard_writer, prefix):
    uids = make_shards(tmp_path, [3], with_index=False)
    shard = tmp_path / "orbits-000000.tar"
    files = {prefix + name: data for name, data in members(shard).items()}
    files |= {f"{prefix}._{uids[0]}.json": b"of a Mac", "README": b"of a person"}
    shard_writer(shard, files)
    folder = prefix.removeprefix("./")
    expected = [folder + uid for uid in uids]
    for source in (tmp_path, f"pipe:cat {shard}"):
        assert uids_of(source) == expected


@pytest.mark.parametrize(
    "elevation", [float("nan"), float("inf"), 91, "nan", None, [1]], ids=lambda value: str(value)
)
def test_a_camera_that_is_no_number_is_a_bad_camera_file(
    tmp_path, make_shards, shard_writer, elevation
):
    make_shards(tmp_path, [2], with_index=False)
    shard = tmp_path / "orbits-000000.tar"
    files = members(shard)
    cameras = json.loads(files["s0o0.json"]) | {"elevation_deg": elevation}
    files["s0o0.json"] = json.dumps(cameras).encode()
    shard_writer(shard, files)
    for source in (tmp_path, f"pipe:cat {shard}"):
        assert uids_of(source) == ["s0o1", "s0o1"]
        loader = OrbitLoader(OrbitStream(source, OrbitReading(2)), Share(), False, strict=True)
        with pytest.raises(InputError, match=r"^[^\n]*s0o0\.json is not a camera file[^\n]*$"):
            list(loader)


@pytest.mark.parametrize("text", ["NaN", "1e999", "-Infinity"])
def test_numbers_of_a_camera_file_are_finite(tmp_path, make_shards, shard_writer, text):
    make_shards(tmp_path, [2], with_index=False)
    shard = tmp_path / "orbits-000000.tar"
    files = members(shard)
    files["s0o0.json"] = files["s0o0.json"].replace(b'"K": [[', f'"K": [[{text}, '.encode())
    assert text.encode() in files["s0o0.json"]
    shard_writer(shard, files)
    assert uids_of(tmp_path) == ["s0o1", "s0o1"]


@pytest.mark.parametrize(
    "change",
    [
        {"num_bytes": None},
        {"uids": None},
        {"uids": [None]},
        {"file": None},
        None,
        "deep",
        {"shards": None},
    ],
    ids=str,
)
def test_an_index_that_says_nothing_is_as_none(tmp_path, make_shards, change):
    uids = make_shards(tmp_path, [2])
    content = json.loads((tmp_path / "index.json").read_text())
    if change is None:
        content["shards"][0] = None
    elif change == "deep":
        content = None
    else:
        (content if "shards" in change else content["shards"][0]).update(change)
    text = "[" * 100_000 if content is None else json.dumps(content)
    (tmp_path / "index.json").write_text(text)
    assert uids_of(tmp_path) == uids


@pytest.mark.parametrize("order", ["by file", "cameras first", "cameras last"])
def test_unsorted_members_are_the_cause_that_is_named(tmp_path, make_shards, shard_writer, order):
    uids = make_shards(tmp_path, [3])
    shard = tmp_path / "orbits-000000.tar"

    def key(name):
        uid, _, file = name.partition(".")
        is_json = file == "json"
        return {
            "by file": (file, uid),
            "cameras first": (not is_json, uid, file),
            "cameras last": (is_json, uid, file),
        }[order]

    files = members(shard)
    shard_writer(shard, {name: files[name] for name in sorted(files, key=key)})
    assert uids_of(tmp_path) == uids  # on a disk any order will do
    with pytest.raises(InputError, match=r"do not lie side by side: .* \(tar --sort=name\)"):
        uids_of(f"pipe:cat {shard}")


def test_an_orbit_without_a_view_does_not_hide_the_others(tmp_path, make_shards, shard_writer):
    make_shards(tmp_path, [3])
    shard = tmp_path / "orbits-000000.tar"
    files = members(shard)
    del files["s0o1.001.png"]
    shard_writer(shard, files)
    (found,) = find_shards(f"pipe:cat {shard}")
    streamed = list(stream_orbits(found, found.uids))
    assert [orbit.uid for orbit in streamed] == ["s0o0", "s0o2", "s0o1"]
    with pytest.raises(BrokenOrbitError, match=r"s0o1\.001\.png is missing"):
        streamed[-1].read("001.png")


@pytest.mark.parametrize(
    "name",
    ["a.tar; touch {marker}; .tar", "$(touch {marker}).tar", "`touch {marker}`.tar", "-a.tar"],
)
def test_no_name_of_an_index_reaches_a_shell(tmp_path, make_shards, name):
    make_shards(tmp_path / "orbits", [1])
    index = tmp_path / "orbits" / "index.json"
    content = json.loads(index.read_text())
    content["shards"][0]["file"] = name.format(marker=tmp_path / "marker")
    index.write_text(json.dumps(content))
    for source in (f"pipe:cat {index}", index):
        with pytest.raises(InputError, match="a shard is a plain file name"):
            find_shards(source)
    assert not (tmp_path / "marker").exists()


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(console, "quiet", False)
    monkeypatch.setattr(console, "width", 500)
    folder = tmp_path / "served"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as http_server:
        threading.Thread(target=http_server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http_server.server_port}", folder
        http_server.shutdown()


def test_the_address_of_a_folder_is_that_of_its_index(server, make_shards):
    url, folder = server
    uids = make_shards(folder / "orbits", [2, 1])
    for source in (f"{url}/orbits", f"{url}/orbits/", f"{url}/orbits/index.json"):
        assert uids_of(source) == uids
    for source in (
        f"{url}/orbits?key=a.tar/b",
        f"{url}/orbits/?k=1",
        f"{url}/orbits/index.json?k=1",
    ):
        assert uids_of(source) == uids
        assert all(shard.url.endswith(source[source.index("?") :]) for shard in find_shards(source))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_shard_that_a_server_lacks_ends_a_training_unless_allowed(
    server, make_shards, workers, capsys
):
    url, folder = server
    make_shards(folder, [2, 2])
    (folder / "orbits-000001.tar").unlink()
    missing = (
        rf"^no shard at {url}/orbits-000001\.tar \(the server answers 404 [^\n]*"
        r"allow_missing_shards=true[^\n]*$"
    )
    with pytest.raises(InputError, match=missing):
        uids_of(url, workers)
    assert uids_of(url, workers, allow_missing_shards=True) == ["s0o0", "s0o1", "s0o1", "s0o1"]
    assert "2 orbits skipped, missing shard" in capsys.readouterr().err


def test_a_missing_shard_is_told_before_the_training_where_there_is_no_index(server, make_shards):
    url, folder = server
    make_shards(folder, [2], with_index=False)
    source = f"{url}/orbits-{{000000..000001}}.tar"
    with pytest.raises(InputError, match=r"no shard at .*000001\.tar \(the server answers 404"):
        find_shards(source)
    assert [len(shard.uids) for shard in find_shards(source, allow_missing=True)] == [2]


def test_what_cannot_be_reached_is_told_as_that(server, make_shards):
    url, folder = server
    for source in (url, f"{url}/index.json"):
        with pytest.raises(InputError, match=r"cannot read the index .* answers 404"):
            find_shards(source)
    (folder / "index.json").write_text('{"shards": []}')
    with pytest.raises(InputError, match="lists no shard"):
        find_shards(url)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        down = f"http://127.0.0.1:{closed.getsockname()[1]}"
        for source in (down, f"{down}/index.json"):
            with pytest.raises(InputError, match=r"cannot read the index .* cannot be reached"):
                find_shards(source)
        with pytest.raises(InputError, match=r"no shard at .*a\.tar \(the server cannot be"):
            find_shards(f"{down}/a.tar")


def test_a_command_that_gives_nothing_is_told(tmp_path, make_shards):
    make_shards(tmp_path, [2])
    (found,) = find_shards(f"pipe:cat {tmp_path}/orbits-000000.tar")
    (tmp_path / "orbits-000000.tar").unlink()
    with pytest.raises(BrokenOrbitError, match="check that its command gives the whole shard"):
        list(stream_orbits(found, found.uids))
