"""WebDataset shards of orbits as they are written: tar files with an index beside them.

`hi3d.orbits.shard_writer` fills them safely, `hi3d.data.shards` reads them.
"""

import json
import tarfile
from pathlib import Path
from typing import Any

from hi3d.errors import InputError
from hi3d.files import parse_json, write_json
from hi3d.orbits.encoded_orbit import EncodedOrbit

BLOCK = tarfile.BLOCKSIZE
END_OF_TAR = bytes(2 * BLOCK)


def tar_bytes(orbit: EncodedOrbit) -> bytes:
    """The orbit's members of a tar file; the json comes last."""
    members = [(f"{orbit.uid}.{name}", data) for name, data in orbit.files(".")]
    blocks = []
    for name, data in [*members, (f"{orbit.uid}.json", orbit.cameras)]:
        header = tarfile.TarInfo(name)
        header.size = len(data)
        blocks += [header.tobuf(), data, bytes(-len(data) % BLOCK)]
    return b"".join(blocks)


def shard_entry(path: Path, uids: list[str]) -> dict[str, Any]:
    """What an index says of a shard."""
    return {
        "file": path.name,
        "num_orbits": len(uids),
        "num_bytes": path.stat().st_size,
        "uids": uids,
    }


def totals(shards: list[dict[str, Any]]) -> dict[str, Any]:
    """Orbits and bytes of all shards of an index."""
    return {key: sum(shard[key] for shard in shards) for key in ("num_orbits", "num_bytes")}


def complete_orbits(path: Path) -> tuple[list[str], int]:
    """The orbits of a shard that are there whole, also of one that a killed run left.

    Returns:
        Their uids in stored order, and the offset in bytes at which the last one ends.

    Raises:
        InputError: the file cannot be read.
    """
    uids: list[str] = []
    end = 0
    try:
        size = path.stat().st_size
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                member_end = member.offset_data + -(-member.size // BLOCK) * BLOCK
                if member_end > size:
                    break
                if member.name.endswith(".json"):
                    uids.append(member.name.removesuffix(".json"))
                    end = member_end
    except tarfile.ReadError:  # the end is missing, or all of it
        pass
    except OSError as error:
        raise InputError(f"cannot read shard {path} ({error}): move it away") from error
    return uids, end


def index_entries(content: bytes) -> list[dict[str, Any]]:
    """What an index says of its shards; entries that do not say all are left out.

    Raises:
        ValueError, KeyError, TypeError: it is no index.
    """
    entries = parse_json(content)["shards"]
    return [entry for entry in entries if isinstance(entry, dict) and _is_whole(entry)]


def _is_whole(entry: dict[str, Any]) -> bool:
    uids = entry.get("uids")
    return (
        isinstance(entry.get("file"), str)
        and isinstance(entry.get("num_bytes"), int)
        and isinstance(uids, list)
        and all(isinstance(uid, str) for uid in uids)
    )


def known_shards(path: Path) -> dict[str, dict[str, Any]]:
    """The entries of an index by file; none where there is no readable one."""
    try:
        return {entry["file"]: entry for entry in index_entries(path.read_bytes())}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def merge_indices(output: Path, num_parts: int) -> bool:
    """Write the `index.json` of a run in several parts, once every part is complete.

    Args:
        output: folder of the shards.
        num_parts: n of `shard=i/n`.

    Returns:
        Whether all parts are complete.
    """
    shards: list[dict[str, Any]] = []
    for part in range(num_parts):
        try:
            content = json.loads((output / f"index-{part:04d}.json").read_text())
        except (OSError, ValueError):
            return False
        if not content["complete"]:
            return False
        shards += content["shards"]
    write_json(output / "index.json", totals(shards) | {"complete": True, "shards": shards})
    return True
