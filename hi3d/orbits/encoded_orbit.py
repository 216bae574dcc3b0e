"""A rendered orbit as the bytes of its files, whatever holds them."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from hi3d.orbits.encoding import encode_png, encode_webp, without_white
from hi3d.rendering.rasterizer import RenderedViews
from hi3d.views import cameras_to_json, encode_depth


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
        straight_alpha: store the color of the object alone, for readers that composite over
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
        depth = (encode_depth(values, depth_bits) for values in rendered.depth)
    if save_normals and rendered.normals is not None:
        levels = ((rendered.normals.clamp(-1, 1) * 0.5 + 0.5) * 255).round_().to(torch.uint8)
        normals = levels.permute(0, 2, 3, 1).cpu().numpy()
    content = cameras_to_json(rendered.cameras)
    content |= {"elevation_deg": elevation_deg, "source": source}
    for i, frame in enumerate(content["frames"]):
        frame["file"] = f"{i:03d}.{image_format}"
    encode_image = encode_webp if image_format == "webp" else encode_png
    images = rendered.rgba8.cpu().numpy()
    if straight_alpha:
        images = np.stack([without_white(image) for image in images])
    return EncodedOrbit(
        uid,
        [encode_image(image) for image in images],
        [encode_png(values) for values in depth],
        [encode_png(values) for values in normals],
        json.dumps(content).encode(),
        image_format,
    )
