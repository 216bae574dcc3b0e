"""Camera files of other tools: nerfstudio and instant-ngp, COLMAP, SyncDreamer."""

import io
import math
import pickle
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from hi3d.cameras import Cameras, check_cameras
from hi3d.errors import InputError
from hi3d.files import parse_json, regular_file
from hi3d.progress import console
from hi3d.views import Views, load_rgba, view_files

OPENCV_FROM_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
MAX_DISTORTION = 0.01
"""Larger coefficients move points by pixels: the images must be undistorted first."""
MAX_PICKLE_BYTES = 10_000_000
SYNCDREAMER_SIDE = 256  # pixels of the images that camera-16.pkl is for


@dataclass(frozen=True)
class GivenCameras:
    """Images and their cameras, before the images are read."""

    paths: list[Path]
    cameras: Cameras
    """With the first image's size."""
    sizes: list[tuple[int, int]]
    """Width and height that each camera's intrinsics are for."""
    masks: list[Path | None]
    """Files whose brightness is the images' alpha."""

    def masked(self, views: Views) -> Views:
        """The views with the alpha of their masks."""
        alpha = views.alpha.clone()
        for view, path in enumerate(self.masks):
            if path is not None:
                alpha[view] = torch.nn.functional.interpolate(
                    load_rgba(path)[0][None, :1], alpha.shape[-2:], mode="area"
                )[0]
        return replace(views, alpha=alpha)


def camera_pickles(folder: Path) -> list[Path]:
    """SyncDreamer's camera files in a folder."""
    return [*folder.glob("camera*.pkl"), *folder.glob("meta.pkl")]


def has_camera_file(folder: Path) -> bool:
    """Whether `read_camera_file` has something to read."""
    transforms = (folder / "transforms.json").exists()
    return transforms or colmap_model(folder) is not None or bool(camera_pickles(folder))


def read_camera_file(folder: Path) -> GivenCameras | None:
    """The cameras of a folder, in the first known format that it has.

    Returns:
        None where it has none of them.

    Raises:
        InputError: the file is broken, or the cameras cannot be used.
    """
    pickles = camera_pickles(folder)
    model = colmap_model(folder)
    try:
        if (path := folder / "transforms.json").exists():
            given = read_transforms(path)
        elif model is not None:
            path, given = model, read_colmap(model, folder)
        elif pickles:
            path, given = pickles[0], read_syncdreamer(pickles[0])
        else:
            return None
        for view, size in enumerate(given.sizes):
            camera = replace(given.cameras[view], width=size[0], height=size[1])
            check_cameras(camera, f"{path}: {given.paths[view].name}")
        return given
    except InputError:
        raise
    except (
        *(OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, MemoryError),
        *(RuntimeError, RecursionError, EOFError, struct.error, pickle.UnpicklingError),
    ) as error:
        line = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{path} is not a readable camera file ({line})") from error


def given_cameras(
    paths: list[Path],
    viewmats: list[np.ndarray],
    Ks: list[np.ndarray],
    sizes: list[tuple[int, int]],
    masks: list[Path | None] | None = None,
) -> GivenCameras:
    """What every reader returns."""
    if not paths:
        raise ValueError("it lists no images")
    width, height = sizes[0]
    stacked = [torch.from_numpy(np.stack(m).astype(np.float32)) for m in (viewmats, Ks)]
    cameras = Cameras(stacked[0], stacked[1], width, height)
    return GivenCameras(paths, cameras, sizes, masks or [None] * len(paths))


def read_transforms(path: Path) -> GivenCameras:
    """The `transforms.json` of NeRF, instant-ngp and nerfstudio: OpenGL cameras, camera to world.

    Intrinsics of a frame come before those of the file.
    """
    content = parse_json(regular_file(path).read_text())
    if not isinstance(content, dict):
        raise TypeError(f"it holds a {type(content).__name__}, not an object")
    paths, viewmats, Ks, sizes = [], [], [], []
    masks: list[Path | None] = []
    for frame in sorted(content["frames"], key=lambda frame: str(frame["file_path"])):
        values = {**content, **frame}
        paths.append(_image_path(path.parent, str(frame["file_path"])))
        width, height = _stated_size(values, paths[-1])
        matrix = np.array(frame["transform_matrix"], float)
        if matrix.shape == (3, 4):
            matrix = np.vstack([matrix, [0, 0, 0, 1]])
        viewmats.append(_inverse_of_rigid(matrix @ OPENCV_FROM_OPENGL))
        Ks.append(_intrinsics_of_frame(values, width, height))
        sizes.append((width, height))
        masks.append(path.parent / frame["mask_path"] if "mask_path" in frame else None)
    return given_cameras(paths, viewmats, Ks, sizes, masks)


def _inverse_of_rigid(camtoworld: np.ndarray) -> np.ndarray:
    """A matrix that is not rigid keeps its fault, so that it is found later."""
    viewmat = np.eye(4)
    viewmat[:3, :3] = camtoworld[:3, :3].T
    viewmat[:3, 3] = -camtoworld[:3, :3].T @ camtoworld[:3, 3]
    viewmat[3] = camtoworld[3]
    return viewmat


def _image_path(folder: Path, name: str) -> Path:
    """NeRF's synthetic scenes leave the suffix away."""
    path = folder / name
    return path if path.exists() or path.suffix else path.with_name(path.name + ".png")


def _stated_size(values: dict[str, Any], path: Path) -> tuple[int, int]:
    if "w" in values and "h" in values:
        return int(values["w"]), int(values["h"])
    rgb, _ = load_rgba(path)
    return rgb.shape[2], rgb.shape[1]


def _intrinsics_of_frame(values: dict[str, Any], width: int, height: int) -> np.ndarray:
    """K [3, 3] from focal lengths or fields of view."""
    model = str(values.get("camera_model", "PINHOLE"))
    if "FISHEYE" in model or "EQUIRECT" in model or values.get("is_fisheye"):
        raise InputError(f"camera model {model}: only pinhole cameras are read: undistort first")
    _check_distortion([float(values.get(key, 0)) for key in ("k1", "k2", "k3", "k4", "p1", "p2")])
    if "fl_x" in values:
        fx = float(values["fl_x"])
    elif "camera_angle_x" in values:
        fx = width / 2 / math.tan(float(values["camera_angle_x"]) / 2)
    else:
        raise KeyError("fl_x or camera_angle_x")
    fy = fx
    if "fl_y" in values:
        fy = float(values["fl_y"])
    elif "camera_angle_y" in values and "fl_x" not in values:
        fy = height / 2 / math.tan(float(values["camera_angle_y"]) / 2)
    cx, cy = float(values.get("cx", width / 2)), float(values.get("cy", height / 2))
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])


def _check_distortion(coefficients: list[float]) -> None:
    if any(abs(value) > MAX_DISTORTION for value in coefficients):
        raise InputError("the lens distorts: undistort the images first (colmap image_undistorter)")


COLMAP_MODELS = {
    # Number, name, number of parameters (COLMAP's models.h); f and the center come first.
    0: ("SIMPLE_PINHOLE", 3),
    1: ("PINHOLE", 4),
    2: ("SIMPLE_RADIAL", 4),
    3: ("RADIAL", 5),
    4: ("OPENCV", 8),
}


def colmap_model(folder: Path) -> Path | None:
    """The folder that holds COLMAP's `cameras` and `images` files, or None."""
    for place in (folder, folder / "sparse" / "0", folder / "sparse", folder / "colmap/sparse/0"):
        for suffix in (".bin", ".txt"):
            if all((place / f"{name}{suffix}").exists() for name in ("cameras", "images")):
                return place
    return None


def read_colmap(model: Path, folder: Path) -> GivenCameras:
    """A COLMAP model, text or binary: OpenCV cameras, world to camera.

    Its world has no upward direction of its own; the mesh lies in it as the cameras do.
    """
    binary = (model / "images.bin").exists() and (model / "cameras.bin").exists()
    if binary:
        lenses = _binary_lenses(regular_file(model / "cameras.bin").read_bytes())
        images = _binary_images(regular_file(model / "images.bin").read_bytes())
    else:
        lenses = _text_lenses(regular_file(model / "cameras.txt").read_text())
        images = _text_images(regular_file(model / "images.txt").read_text())
    paths, viewmats, Ks, sizes = [], [], [], []
    for name, pose, lens in sorted(images, key=lambda image: image[0]):
        found = [place / name for place in (folder, folder / "images", model)]
        paths.append(next((path for path in found if path.exists()), found[1]))
        viewmat = np.eye(4)
        w, x, y, z, *translation = pose
        viewmat[:3, :3] = Rotation.from_quat([x, y, z, w]).as_matrix()
        viewmat[:3, 3] = translation
        viewmats.append(viewmat)
        K, size = lenses[lens]
        Ks.append(K)
        sizes.append(size)
    console.print(f"{model}: COLMAP's world has no upward direction: the mesh lies as its cameras")
    return given_cameras(paths, viewmats, Ks, sizes)


Lens = tuple[np.ndarray, tuple[int, int]]
"""K and the images' width and height."""
Image = tuple[str, list[float], int]
"""Name, quaternion w x y z with translation, and number of the lens."""


def _lens(model: str, width: int, height: int, parameters: list[float]) -> Lens:
    lengths = dict(COLMAP_MODELS.values())
    if lengths.get(model) != len(parameters):
        raise InputError(
            f"COLMAP camera model {model}: {', '.join(lengths)} are read: undistort the images "
            "first (colmap image_undistorter)"
        )
    num_focal = 2 if model in ("PINHOLE", "OPENCV") else 1
    fx, fy = parameters[0], parameters[num_focal - 1]
    cx, cy, *distortion = parameters[num_focal:]
    _check_distortion(distortion)
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]), (width, height)


def _text_lenses(text: str) -> dict[int, Lens]:
    lenses = {}
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            number, model, width, height, *parameters = line.split()
            lenses[int(number)] = _lens(
                model, int(width), int(height), [float(value) for value in parameters]
            )
    return lenses


def _text_images(text: str) -> list[Image]:
    """Every second line lists an image's points and may be empty."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    images: list[Image] = []
    for line in lines[::2]:
        if line.strip():
            _, *pose, lens, name = line.split(maxsplit=9)
            images.append((name, [float(value) for value in pose], int(lens)))
    return images


def _binary_lenses(data: bytes) -> dict[int, Lens]:
    (count,), offset, lenses = struct.unpack_from("<Q", data), 8, {}
    for _ in range(count):
        number, model, width, height = struct.unpack_from("<iiQQ", data, offset)
        name, length = COLMAP_MODELS.get(model, (f"number {model}", 0))
        parameters = struct.unpack_from(f"<{length}d", data, offset + 24)
        lenses[number] = _lens(name, width, height, list(parameters))
        offset += 24 + 8 * length
    return lenses


def _binary_images(data: bytes) -> list[Image]:
    (count,), offset = struct.unpack_from("<Q", data), 8
    images: list[Image] = []
    for _ in range(count):
        _, *pose, lens = struct.unpack_from("<i7di", data, offset)
        end = data.index(b"\0", offset + 64)
        images.append((data[offset + 64 : end].decode(), pose, lens))
        (num_points,) = struct.unpack_from("<Q", data, end + 1)
        offset = end + 9 + 24 * num_points
    return images


class ArraysOnly(pickle.Unpickler):
    """Builds NumPy arrays and plain values; any other name in the file is refused, not called."""

    def find_class(self, module: str, name: str) -> Any:
        """The few functions that stored arrays name."""
        module = module.replace("numpy._core", "numpy.core")
        allowed = {
            ("numpy.core.multiarray", "_reconstruct"): _empty_array,
            ("numpy.core.multiarray", "scalar"): _scalar,
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
            ("_codecs", "encode"): _latin1,
        }
        if (module, name) not in allowed:
            raise InputError(f"it names {module}.{name}: only arrays are read from pickles")
        return allowed[module, name]


def _empty_array(*_: Any) -> np.ndarray:
    return np.ndarray.__new__(np.ndarray, (0,), "b")  # its state follows


def _scalar(dtype: np.dtype, data: bytes) -> Any:
    return np.frombuffer(data, dtype, 1)[0]


def _latin1(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError("bytes in an unknown encoding")
    return text.encode("latin1")


def read_syncdreamer(path: Path) -> GivenCameras:
    """SyncDreamer's camera-16.pkl or meta.pkl: K, azimuths, elevations, distances, poses.

    Poses are [V, 3, 4], world to camera; the intrinsics are for images of 256 x 256 pixels.
    """
    data = regular_file(path).read_bytes()
    if len(data) > MAX_PICKLE_BYTES:
        raise InputError(
            f"{path} has {len(data)} bytes: SyncDreamer's camera files have a few 1000"
        )
    try:
        K, _, _, _, poses = ArraysOnly(io.BytesIO(data), encoding="latin1").load()
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    poses = np.asarray(poses, float)
    paths = [path.parent / name for name in view_files(path.parent)]
    if len(paths) != len(poses):
        raise InputError(f"{path} has {len(poses)} cameras and its folder {len(paths)} views")
    last = np.array([[0.0, 0, 0, 1]])
    viewmats = [np.vstack([pose, last]) for pose in poses]
    Ks = np.broadcast_to(np.asarray(K, float), (len(poses), 3, 3))
    return given_cameras(paths, viewmats, list(Ks), [(SYNCDREAMER_SIDE,) * 2] * len(poses))
