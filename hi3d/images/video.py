"""Frames as an H.264 video."""

from collections.abc import Iterable
from pathlib import Path

import imageio
import imageio_ffmpeg
import numpy as np

from hi3d.files import atomic_path


def write_video(
    path: str | Path,
    frames: Iterable[np.ndarray],  # [H, W, 3]
    num_frames: int,
    frames_per_second: int,
) -> None:
    """Write frames as they come.

    Args:
        path: ends in `.mp4`.
        frames: [H, W, 3] bytes each, of even sides.
        num_frames: how many they are.
        frames_per_second: of the video.

    Raises:
        RuntimeError: ffmpeg wrote fewer, for example on a full disk.
    """
    with atomic_path(path) as partial:
        with imageio.get_writer(
            partial, fps=frames_per_second, codec="libx264", quality=8, macro_block_size=2
        ) as writer:
            for frame in frames:
                writer.append_data(frame)
        check_video(partial, num_frames)


def check_video(path: Path, num_frames: int) -> None:
    """Raise where ffmpeg, which ends without a word when the disk is full, wrote less.

    Args:
        path: of the video.
        num_frames: that it must have.

    Raises:
        RuntimeError: it has another number, or is no video.
    """
    try:
        written, _ = imageio_ffmpeg.count_frames_and_secs(str(path))
    except RuntimeError:
        written = 0
    if written != num_frames:
        raise RuntimeError(f"ffmpeg wrote {written} of {num_frames} frames of {path.name}")
