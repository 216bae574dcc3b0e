"""Shards under bad luck: a full disk at every write, a kill at every byte, several parts."""

import errno
import hashlib
import json
import os
import tarfile

import pytest

from hi3d.errors import InputError
from hi3d.orbits.encoded_orbit import EncodedOrbit
from hi3d.orbits.folders import FolderWriter, OfficialWriter
from hi3d.orbits.shard_writer import ShardWriter
from hi3d.orbits.shards import complete_orbits, merge_indices


def orbit(uid, num_bytes=700):
    """An orbit whose bytes follow from its uid."""
    images = [hashlib.sha256(f"{uid}{i}".encode()).digest() * (num_bytes // 32) for i in range(2)]
    return EncodedOrbit(uid, images, [b"depth"] * 2, [], json.dumps({"uid": uid}).encode())


def contents(folder):
    """Bytes of every member of every shard, each read to its end."""
    members = {}
    for path in sorted(folder.glob("*.tar")):
        assert path.stat().st_size % 512 == 0
        with tarfile.open(path) as tar:
            for member in tar:
                assert member.name not in members
                members[member.name] = tar.extractfile(member).read()
    return members


def write(folder, uids, **settings):
    with ShardWriter(
        folder, **({"objects_per_shard": 3, "max_shard_bytes": 10**9} | settings)
    ) as w:
        for uid in uids:
            if uid not in w.finished:
                w.add(uid, [orbit(uid)])
    return w


UIDS = [f"o{i}" for i in range(8)]


def test_shards_and_index(tmp_path):
    write(tmp_path, UIDS)
    members = contents(tmp_path)
    assert set(members) == {
        f"{uid}.{name}"
        for uid in UIDS
        for name in ("000.png", "001.png", "000.depth.png", "001.depth.png", "json")
    }
    assert members["o5.001.png"] == orbit("o5").images[1]
    index = json.loads((tmp_path / "index.json").read_text())
    assert [shard["num_orbits"] for shard in index["shards"]] == [3, 3, 2]
    assert index["num_bytes"] == sum(path.stat().st_size for path in tmp_path.glob("*.tar"))
    assert index["complete"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "index.json",
        *(f"orbits-{i:06d}.tar" for i in range(3)),
    ]


def test_shards_stay_below_their_size(tmp_path):
    write(tmp_path, UIDS, objects_per_shard=100, max_shard_bytes=13_400)
    sizes = [path.stat().st_size for path in tmp_path.glob("*.tar")]
    assert max(sizes) <= 13_400
    assert len(sizes) == 4  # 5 headers and 2 + 2 + 1 + 1 + 1 blocks an orbit: 6 KB


@pytest.mark.parametrize("stop", range(0, 20_000, 1153))
def test_an_open_shard_cut_anywhere_goes_on(tmp_path, stop):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    write(whole, UIDS[:3])
    data = (whole / "orbits-000000.tar").read_bytes()
    (cut / ".orbits-000000.tar.part").write_bytes(data[:stop])
    writer = write(cut, UIDS)
    assert writer.finished == set(UIDS)
    write(whole, UIDS)
    assert contents(cut) == contents(whole)
    assert not list(cut.glob(".*"))


class FullDisk:
    """Lets a number of calls through, then fails; a write that fails may write a part before."""

    def __init__(self, monkeypatch, allowed):
        self.allowed, self.calls = allowed, 0
        for name in ("pwrite", "open", "fsync", "replace"):
            monkeypatch.setattr(os, name, self.limited(name, getattr(os, name)))

    def limited(self, name, real):
        def call(*arguments, **keywords):
            self.calls += 1
            if self.calls > self.allowed:
                if name == "pwrite" and len(arguments[1]) > 1024:
                    real(arguments[0], arguments[1][:900], arguments[2])
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*arguments, **keywords)

        return call


def write_until_full(output, done, undo):
    """Add to `done` what is written. After the first failure, `undo` gives space again."""
    with ShardWriter(output, 3, 10**9) as writer:
        for uid in UIDS:
            try:
                writer.add(uid, [orbit(uid)])
            except OSError:
                if undo:
                    undo()
                raise
            done.add(uid)


@pytest.mark.parametrize("space_comes_back", [True, False])
def test_a_full_disk_at_every_call(tmp_path, space_comes_back):
    whole = tmp_path / "whole"
    whole.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        disk = FullDisk(patch, 10**9)
        write(whole, UIDS)
    for allowed in range(disk.calls):
        output = tmp_path / f"{allowed}"
        output.mkdir()
        done = set()
        with pytest.MonkeyPatch.context() as patch:
            FullDisk(patch, allowed)
            with pytest.raises((OSError, InputError), match="No space left"):
                write_until_full(output, done, patch.undo if space_comes_back else None)
        kept = contents(output)  # every shard that has its name can be read
        for path in output.glob(".*.part"):
            if path.stem.startswith(".orbits"):
                kept |= dict.fromkeys(f"{uid}.json" for uid in complete_orbits(path)[0])
        assert {f"{uid}.json" for uid in done} <= set(kept)
        again = write(output, UIDS)
        assert again.finished == set(UIDS)
        assert contents(output) == contents(whole)


def test_parts_write_side_by_side(tmp_path):
    first = ShardWriter(tmp_path, 2, 10**9, "-0000")
    second = ShardWriter(tmp_path, 2, 10**9, "-0001")
    with first, second:
        for uid in UIDS[:3]:
            first.add(uid, [orbit(uid)])
        for uid in UIDS[3:]:
            second.add(uid, [orbit(uid)])
        assert not merge_indices(tmp_path, 2)
        assert ShardWriter(tmp_path, 2, 10**9, "-0000").finished == {"o0", "o1"}
    assert merge_indices(tmp_path, 2)
    index = json.loads((tmp_path / "index.json").read_text())
    assert index["num_orbits"] == 8
    names = [shard["file"] for shard in index["shards"]]
    assert names[0] == "orbits-0000-000000.tar"
    assert sorted(names) == sorted(path.name for path in tmp_path.glob("*.tar"))


def test_a_damaged_shard_is_named(tmp_path):
    write(tmp_path, UIDS)
    path = tmp_path / "orbits-000001.tar"
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(InputError, match=r"orbits-000001\.tar is broken: move it away"):
        ShardWriter(tmp_path, 3, 10**9)
    path.unlink()
    assert write(tmp_path, UIDS).finished == set(UIDS)
    assert len(contents(tmp_path)) == 8 * 5


def test_folders_are_there_whole_or_not_at_all(tmp_path, monkeypatch):
    with FolderWriter(tmp_path) as writer:
        writer.add("a", [orbit("a")])
        from pathlib import Path

        real, calls = Path.write_bytes, []

        def full(self, data):
            calls.append(self)
            if len(calls) == 3:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(self, data)

        monkeypatch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="No space left"):
            writer.add("b", [orbit("b")])
        monkeypatch.undo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [
        *("000-depth.png", "000.png", "001-depth.png", "001.png", "cameras.json"),
    ]
    assert FolderWriter(tmp_path).finished == {"a"}
    (tmp_path / "c").mkdir()
    with FolderWriter(tmp_path) as writer, pytest.raises(InputError, match="move it away"):
        writer.add("c", [orbit("c")])


def test_official_layout(tmp_path):
    orbits = [orbit(f"a-orbit{k:02d}") for k in range(3)]
    with OfficialWriter(tmp_path, 3) as writer:
        writer.add("a", orbits)
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [
        f"{i:03d}.png" for i in range(6)
    ]
    assert (tmp_path / "a" / "003.png").read_bytes() == orbits[1].images[1]
    assert OfficialWriter(tmp_path, 3).finished == {o.uid for o in orbits}
