"""Images with cameras, as they pass from stage to stage and as they lie on disk."""

import itertools
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from hi3d.cameras import Cameras, check_cameras, concatenate_cameras, orbit_cameras
from hi3d.errors import InputError
from hi3d.files import atomic_path, make_folder, parse_json, regular_file, write_json

DEPTH_NEAR, DEPTH_RANGE = 0.6, 1.8  # 16-bit depth PNG: depth = v / 65535 * 1.8 + 0.6 (SyncDreamer)

NO_VIEWS = re.compile(r"[-_](depth|normals?|masks?|alpha|mesh)$")
"""Ends of the names of PNGs that lie beside views."""
ASPECT_TOLERANCE = 0.01


@dataclass(frozen=True)
class ReferenceImage:
    """The photo after matting and framing."""

    rgb: Tensor  # [3, H, W]
    """Color in [0, 1], composited over white."""
    alpha: Tensor  # [1, H, W]
    """Opacity in [0, 1]."""

    def __post_init__(self) -> None:
        if self.rgb.ndim != 3 or self.rgb.shape[0] != 3:
            raise ValueError(f"rgb must be [3, H, W], got {tuple(self.rgb.shape)}")
        if self.alpha.shape != (1, *self.rgb.shape[1:]):
            raise ValueError(f"alpha must be [1, H, W] like rgb, got {tuple(self.alpha.shape)}")

    def to(self, device: torch.device | str) -> "ReferenceImage":
        """The same image on `device`."""
        return ReferenceImage(self.rgb.to(device), self.alpha.to(device))

    def resized(self, side: int) -> "ReferenceImage":
        """The image at `side` x `side` pixels: averaged where it shrinks, bicubic where not."""
        rgba = torch.cat([self.rgb, self.alpha])[None]
        if side <= min(rgba.shape[-2:]):
            rgba = interpolate(rgba, size=(side, side), mode="area")
        else:
            rgba = interpolate(rgba, size=(side, side), mode="bicubic", antialias=True).clamp(0, 1)
        return ReferenceImage(rgba[0, :3], rgba[0, 3:])

    def save(self, path: str | Path) -> None:
        """Write one RGBA PNG (RGB means over white), atomically."""
        save_rgba(path, self.rgb, self.alpha)

    @staticmethod
    def load(path: str | Path) -> "ReferenceImage":
        """Read what `save` wrote."""
        return ReferenceImage(*load_rgba(path))


@dataclass(frozen=True)
class Views:
    """V images of one object with their cameras."""

    rgb: Tensor  # [V, 3, H, W]
    """Color in [0, 1], composited over white."""
    alpha: Tensor  # [V, 1, H, W]
    """Opacity in [0, 1]."""
    cameras: Cameras
    """V cameras of the same image size."""

    def __post_init__(self) -> None:
        num_views, height, width = len(self.cameras), self.cameras.height, self.cameras.width
        if self.rgb.shape != (num_views, 3, height, width):
            raise ValueError(
                f"rgb must be [{num_views}, 3, {height}, {width}] like the cameras, "
                f"got {tuple(self.rgb.shape)}"
            )
        if self.alpha.shape != (num_views, 1, height, width):
            raise ValueError(f"alpha must be [V, 1, H, W] like rgb, got {tuple(self.alpha.shape)}")

    def __len__(self) -> int:
        return len(self.cameras)

    def __getitem__(self, index: int | slice | list[int] | Tensor) -> "Views":
        """Select views; an int gives a single-view `Views`."""
        if isinstance(index, int):
            index = [index]
        return Views(self.rgb[index], self.alpha[index], self.cameras[index])

    def shrunk(self, height: int) -> "Views":
        """The views averaged down to a height in pixels, or as they are if not larger."""
        if self.cameras.height <= height:
            return self
        width = max(1, round(self.cameras.width * height / self.cameras.height))
        return Views(
            interpolate(self.rgb, size=(height, width), mode="area"),
            interpolate(self.alpha, size=(height, width), mode="area"),
            self.cameras.resized(width, height),
        )

    def to(self, device: torch.device | str) -> "Views":
        """The same views on `device`."""
        return replace(
            self,
            rgb=self.rgb.to(device),
            alpha=self.alpha.to(device),
            cameras=self.cameras.to(device),
        )

    def save(self, folder: str | Path) -> None:
        """Write `000.png`, ... and last `cameras.json`, which marks the folder as complete."""
        folder = make_folder(folder)
        for i in range(len(self)):
            save_rgba(folder / f"{i:03d}.png", self.rgb[i], self.alpha[i])
        write_json(folder / "cameras.json", cameras_to_json(self.cameras))

    @staticmethod
    def load(folder: str | Path, elevation_deg: float | None = None) -> "Views":
        """Read a folder of views.

        Args:
            folder: holds PNGs and `cameras.json`.
            elevation_deg: without `cameras.json` the PNGs in name order are the standard orbit at
                this elevation.

        Raises:
            InputError: a file is missing or broken, or the elevation is needed and not given.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise InputError(
                f"no folder of views at {folder}: give a folder of PNGs + cameras.json"
            )
        if (folder / "cameras.json").exists():
            files, cameras = cameras_from_json(folder / "cameras.json")
        else:
            files = view_files(folder)
            if elevation_deg is None:
                raise InputError(
                    f"{folder} has no cameras.json: give elevation_deg=NUMBER for a standard orbit"
                )
            rgb, _ = load_rgba(folder / files[0])
            cameras = orbit_cameras(elevation_deg, rgb.shape[1], len(files))
        return read_views([folder / name for name in files], cameras)


def view_files(folder: Path) -> list[str]:
    """Names of the views of a folder without `cameras.json`, in order.

    Raises:
        InputError: there is none, or a number is missing between the first and the last.
    """
    files = sorted(p.name for p in folder.glob("*.png") if not NO_VIEWS.search(p.stem.lower()))
    if not files:
        raise InputError(f"{folder} holds no PNG: give a folder of views")
    endings = [re.search(r"(\d+)$", Path(name).stem) for name in files]
    numbers = sorted(int(ending[1]) for ending in endings if ending)
    if len(set(numbers)) < len(files):
        return files
    for number, following in itertools.pairwise(numbers):
        if following != number + 1:
            raise InputError(
                f"{folder} goes from view {number} to {following}: give all views of the orbit, "
                "or a cameras.json"
            )
    return [name for _, name in sorted(zip((int(e[1]) for e in endings if e), files, strict=True))]


def read_views(
    paths: list[Path], cameras: Cameras, sizes: list[tuple[int, int]] | None = None
) -> Views:
    """Read images of one or of mixed sizes; all are brought to the largest one's.

    Args:
        paths: of V images, opaque or with alpha.
        cameras: of V images of `sizes`.
        sizes: widths and heights that the intrinsics are for; None = those of `cameras`.

    Raises:
        InputError: an image is broken, or of another shape than its camera's.
    """
    images = [torch.cat(load_rgba(path)) for path in paths]
    sizes = sizes or [(cameras.width, cameras.height)] * len(images)
    _, height, width = max((image.shape for image in images), key=lambda shape: shape[1])
    Ks = []
    for path, image, K, size in zip(paths, images, cameras.Ks, sizes, strict=True):
        found = (image.shape[2], image.shape[1])
        for other in (size, (width, height)):
            if abs(found[0] * other[1] / (found[1] * other[0]) - 1) > ASPECT_TOLERANCE:
                raise InputError(
                    f"{path} is {found[0]}x{found[1]} pixels and its camera or the largest view "
                    f"{other[0]}x{other[1]}: give one shape, correct cameras.json or the image"
                )
        Ks.append(K * torch.tensor([width / size[0], height / size[1], 1.0])[:, None])
    resized = [
        image
        if image.shape[1:] == (height, width)
        else interpolate(image[None], (height, width), mode="bilinear", antialias=True)[0]
        for image in images
    ]
    pixels = torch.stack(resized)
    scaled = Cameras(cameras.viewmats, torch.stack(Ks), width, height)
    return Views(pixels[:, :3].contiguous(), pixels[:, 3:].contiguous(), scaled)


def concatenate_views(first: Views, second: Views) -> Views:
    """The views of `first` followed by those of `second`: K = F + F* of Section 4.4."""
    return Views(
        torch.cat([first.rgb, second.rgb]),
        torch.cat([first.alpha, second.alpha]),
        concatenate_cameras(first.cameras, second.cameras),
    )


def cameras_to_json(cameras: Cameras) -> dict:
    """The contents of `cameras.json`: convention, image size and one entry per frame."""
    frames = [
        {
            "file": f"{i:03d}.png",
            "viewmat": cameras.viewmats[i].tolist(),
            "K": cameras.Ks[i].tolist(),
            "azimuth_deg": cameras.azimuth_deg[i].item(),
            "elevation_deg": cameras.elevation_deg[i].item(),
        }
        for i in range(len(cameras))
    ]
    return {
        "convention": "opencv",
        "width": cameras.width,
        "height": cameras.height,
        "frames": frames,
    }


def cameras_from_json(path: str | Path) -> tuple[list[str], Cameras]:
    """File names and cameras of a `cameras.json`.

    Raises:
        InputError: the file is not what `cameras_to_json` describes.
    """
    try:
        content = parse_json(regular_file(path).read_text())
        if not isinstance(content, dict):
            raise TypeError(f"it holds a {type(content).__name__}, not an object")
        if content.get("convention", "opencv") != "opencv":
            raise InputError(
                f"{path}: convention is {content['convention']!r}: only 'opencv' is read"
            )
        frames = content["frames"]
        if not frames:
            raise ValueError("it lists no frames")
        viewmats = torch.tensor([frame["viewmat"] for frame in frames], dtype=torch.float32)
        Ks = torch.tensor([frame["K"] for frame in frames], dtype=torch.float32)
        cameras = Cameras(viewmats, Ks, int(content["width"]), int(content["height"]))
        files = [str(frame["file"]) for frame in frames]
        check_cameras(cameras, str(path))
        return files, cameras
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, RecursionError) as error:
        raise InputError(
            f"{path} is not a camera file ({error}): see docs/conventions.md for the format"
        ) from error


def save_rgba(path: str | Path, rgb: Tensor, alpha: Tensor) -> None:
    """Write an 8-bit RGBA PNG atomically.

    Args:
        path: ends in `.png`.
        rgb: [3, H, W] in [0, 1], over white.
        alpha: [1, H, W] in [0, 1].
    """
    rgba = torch.cat([rgb, alpha]).detach().float().clamp(0, 1).cpu()
    pixels = (rgba * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    with atomic_path(path) as partial:
        Image.fromarray(pixels).save(partial)


def load_rgba(path: str | Path) -> tuple[Tensor, Tensor]:
    """Read an RGBA PNG whose RGB is over white; an image without alpha is opaque.

    Returns:
        rgb [3, H, W] and alpha [1, H, W], both in [0, 1].

    Raises:
        InputError: the file is missing or no image.
    """
    try:
        with Image.open(regular_file(path)) as image:
            pixels = np.asarray(image.convert("RGBA"), dtype=np.float32) / 255
    except InputError:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"cannot read image {path} ({error}): replace the file") from error
    rgba = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
    return rgba[:3], rgba[3:]


def encode_depth(depth: Tensor, bits: int = 16) -> np.ndarray:
    """Depth as integers v, `depth = v / (2^bits - 1) * 1.8 + 0.6`; v = 0 where there is no surface.

    Args:
        depth: [...] along the camera's z axis, in units of the object's longest side; 0 where there
            is no surface.
        bits: 8 or 16.

    Returns:
        [...] uint8 or uint16.
    """
    maximum = 2**bits - 1
    levels = depth.detach().cpu().float().sub(DEPTH_NEAR).mul_(maximum / DEPTH_RANGE)
    return levels.round_().clamp_(0, maximum).numpy().astype(f"u{bits // 8}")


def decode_depth(levels: Tensor) -> Tensor:
    """Inverse of `encode_depth`, with 0 where there is no surface, on the levels' device.

    Args:
        levels: [...] 16-bit; those of 8-bit files times 257. 0 and 65535 (the largest depth, which
            other renderers give the background) are no surface.

    Returns:
        [...] float32.
    """
    stored = levels.float()
    surface = (stored > 0) & (stored < 65535)
    return (stored / 65535 * DEPTH_RANGE + DEPTH_NEAR) * surface


def depth_levels(image: Image.Image) -> np.ndarray:
    """An opened depth image of 8 or 16 bits as 16-bit levels. [H, W] uint16

    Raises:
        ValueError: it has more than one channel.
    """
    values = np.asarray(image)
    if values.ndim != 2:
        raise ValueError("depth has one channel")
    if values.dtype == np.uint8:
        return values * np.uint16(257)
    return values.astype(np.uint16)


def save_depth(path: str | Path, depth: Tensor) -> None:
    """Write a 16-bit depth PNG (see `encode_depth`), atomically.

    Args:
        path: ends in `.png`.
        depth: [H, W]; 0 where there is no surface.
    """
    with atomic_path(path) as partial:
        Image.fromarray(encode_depth(depth)).save(partial)


def load_depth(path: str | Path) -> Tensor:
    """Read a depth PNG of 8 or 16 bits. Returns [H, W]; 0 means no surface.

    Raises:
        InputError: the file is missing or no depth image.
    """
    try:
        with Image.open(regular_file(path)) as image:
            return decode_depth(torch.from_numpy(depth_levels(image)))
    except InputError:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"cannot read depth {path} ({error}): replace the file") from error
