"""Rendered orbits as files: how views are encoded, and folders of them on disk."""

import io
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

import numpy as np
import torch
from PIL import Image

from hi3d.errors import InputError
from hi3d.files import make_folder
from hi3d.orbits.png import encode_png
from hi3d.rendering.rasterizer import RenderedViews
from hi3d.views import DEPTH_NEAR, DEPTH_RANGE, cameras_to_json

WEBP_OPTIONS = {"lossless": True, "method": 1, "quality": 20, "exact": True}
"""Half the size of a PNG and 40 times the time; more effort takes 2.4 times as long for 16 %."""


@dataclass(frozen=True)
class EncodedOrbit:
    """One orbit as the bytes of its files."""

    uid: str
    """Name of the orbit; holds no dot, since WebDataset groups by what precedes the first one."""
    images: list[bytes]
    """V 8-bit RGBA images, RGB over white."""
    depth: list[bytes]
    """V depth PNGs, or none."""
    normals: list[bytes]
    """V normal PNGs, or none."""
    cameras: bytes
    """The content of `cameras.json` with `elevation_deg` and `source` added."""
    image_format: str = "png"
    """Suffix of the images."""

    @property
    def num_bytes(self) -> int:
        """Size of all files together."""
        return sum(map(len, (*self.images, *self.depth, *self.normals, self.cameras)))

    def files(self, separator: str) -> Iterator[tuple[str, bytes]]:
        """Names and bytes of the images and maps, e.g. `000.png` and `000<separator>depth.png`."""
        for i, data in enumerate(self.images):
            yield f"{i:03d}.{self.image_format}", data
        for kind, maps in (("depth", self.depth), ("normal", self.normals)):
            for i, data in enumerate(maps):
                yield f"{i:03d}{separator}{kind}.png", data


def encode_orbit(
    uid: str,
    rendered: RenderedViews,
    elevation_deg: float,
    source: str,
    image_format: str = "png",
    depth_bits: int = 16,
    save_normals: bool = False,
    straight_alpha: bool = False,
) -> EncodedOrbit:
    """Turn a rendered orbit into files.

    Args:
        uid: name of the orbit, without a dot.
        rendered: V views.
        elevation_deg: of the orbit.
        source: name of the object.
        image_format: `png` or `webp`, both lossless.
        depth_bits: 0 for no depth; else depth is `v / (2^bits - 1) * 1.8 + 0.6`, and v = 0 where
            there is no surface.
        save_normals: whether to write normals, as `(n + 1) / 2 * 255`; 128 where there is nothing.
        straight_alpha: store the colour of the object alone, for readers that composite over
            white, as the official code's does; otherwise it is over white already.

    Raises:
        ValueError: the uid holds a dot or a slash, or normals are wanted that were not rendered.
    """
    if not uid or "." in uid or "/" in uid:
        raise ValueError(f"uid {uid!r} must be a file name without a dot")
    if save_normals and rendered.normals is None:
        raise ValueError("normals were not rendered: pass normals=True to render_views")
    depth: Iterable[np.ndarray] = ()
    normals: Iterable[np.ndarray] = ()
    if depth_bits:
        depth = (_depth_levels(values.cpu(), depth_bits) for values in rendered.depth)
    if save_normals and rendered.normals is not None:
        levels = ((rendered.normals.clamp(-1, 1) * 0.5 + 0.5) * 255).round_().to(torch.uint8)
        normals = levels.permute(0, 2, 3, 1).cpu().numpy()
    content = cameras_to_json(rendered.cameras)
    content |= {"elevation_deg": elevation_deg, "source": source}
    for i, frame in enumerate(content["frames"]):
        frame["file"] = f"{i:03d}.{image_format}"
    encode_image = _encode_webp if image_format == "webp" else encode_png
    images = rendered.rgba8.cpu().numpy()
    if straight_alpha:
        images = np.stack([_without_white(image) for image in images])
    return EncodedOrbit(
        uid,
        [encode_image(image) for image in images],
        [encode_png(values) for values in depth],
        [encode_png(values) for values in normals],
        json.dumps(content).encode(),
        image_format,
    )


def _depth_levels(depth: torch.Tensor, bits: int) -> np.ndarray:
    """Depth [H, W] as integers; view by view, so that it stays in the cache."""
    maximum = 2**bits - 1
    levels = depth.sub(DEPTH_NEAR).mul_(maximum / DEPTH_RANGE).round_().clamp_(0, maximum)
    return levels.numpy().astype(f"u{bits // 8}")


def _without_white(image: np.ndarray) -> np.ndarray:
    """[H, W, 4] uint8 over white to straight alpha; the colour of empty pixels is white."""
    alpha = image[..., 3:].astype(np.float32) / 255
    rgb = (image[..., :3] - 255 * (1 - alpha)) / np.maximum(alpha, 1 / 255)
    rgb = np.where(alpha > 0, rgb, 255).round().clip(0, 255).astype(np.uint8)
    return np.concatenate([rgb, image[..., 3:]], axis=-1)


def _encode_webp(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", **WEBP_OPTIONS)
    return buffer.getvalue()


class OrbitWriter(Protocol):
    """Where orbits go. A context: leaving it completes what is open."""

    finished: set[str]
    """uids of the orbits that are complete on disk, in this part of the run."""

    def __enter__(self) -> "OrbitWriter": ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def add(self, uid: str, orbits: Sequence[EncodedOrbit]) -> None:
        """Write orbits of the object `uid`.

        Raises:
            OSError: they could not be written; what was complete before still is.
        """


class FolderWriter:
    """A folder per orbit, as `hi3d.views.Views.save` writes it, plus depth and normals.

    A folder is written under `.part` and then renamed, so every other folder is complete.
    """

    def __init__(self, output: Path, part_tag: str = ""):
        """Args:
        output: folder of the folders.
        part_tag: differs between runs that write to `output` at the same time.
        """
        self.output = output
        self.partial = output / f".part{part_tag}"
        self.finished = self._existing()

    def _existing(self) -> set[str]:
        return {path.parent.name for path in self.output.glob("*/cameras.json")}

    def __enter__(self) -> "FolderWriter":
        shutil.rmtree(self.partial, ignore_errors=True)
        make_folder(self.partial)
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.partial, ignore_errors=True)

    def add(self, uid: str, orbits: Sequence[EncodedOrbit]) -> None:
        """Write a folder per orbit."""
        for orbit in orbits:
            files = dict(orbit.files("-")) | {"cameras.json": orbit.cameras}
            self._write_folder(orbit.uid, files)
            self.finished.add(orbit.uid)

    def _write_folder(self, name: str, files: dict[str, bytes]) -> None:
        partial = self.partial / name
        try:
            partial.mkdir(parents=True, exist_ok=True)
            for file, data in files.items():
                (partial / file).write_bytes(data)
        except OSError:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        folder = self.output / name
        if folder.exists():
            raise InputError(f"{folder} is there and is no orbit of this run: move it away")
        os.replace(partial, folder)


class OfficialWriter(FolderWriter):
    """The official code's layout: `<uid>/NNN.png`, index = orbit * num_views + view.

    Its reader takes every PNG of the folder in name order, so nothing else is in it.
    """

    def __init__(self, output: Path, num_orbits: int, part_tag: str = ""):
        """Args:
        output: folder of the folders.
        num_orbits: of every object.
        part_tag: as in `FolderWriter`.
        """
        self.num_orbits = num_orbits
        super().__init__(output, part_tag)

    def _existing(self) -> set[str]:
        objects = [path.parent.name for path in self.output.glob("*/000.png")]
        if self.num_orbits == 1:
            return set(objects)
        return {f"{uid}-orbit{k:02d}" for uid in objects for k in range(self.num_orbits)}

    def add(self, uid: str, orbits: Sequence[EncodedOrbit]) -> None:
        """Write one folder that holds all orbits of the object."""
        images = [image for orbit in orbits for image in orbit.images]
        self._write_folder(uid, {f"{i:03d}.png": image for i, image in enumerate(images)})
        self.finished.update(orbit.uid for orbit in orbits)
