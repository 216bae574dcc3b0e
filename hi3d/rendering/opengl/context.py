"""The OpenGL context of a thread, and the shader programs compiled in it."""

import ctypes
import multiprocessing
import os
import threading
from contextlib import suppress
from typing import Any

from hi3d.rendering.opengl.egl_devices import chosen_device

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


class _Context(threading.local):
    """One GL context per thread, remade after a fork, where the parent's is not usable."""

    process_id = -1
    gl: Any = None
    programs: dict[tuple, Any]
    error: str | None = None


current = _Context()


def opengl_error() -> str | None:
    """Why OpenGL cannot be used here, in one line; None where it can."""
    if current.process_id != os.getpid():
        current.process_id, current.error, current.programs = os.getpid(), None, {}
        try:
            import moderngl

            if multiprocessing.parent_process() is not None:
                # One of several workers: a thread of its own per core would only add overhead.
                os.environ.setdefault("LP_NUM_THREADS", "0")
                keep_freed_memory()
            settings: dict[str, Any] = {"standalone": True, "backend": "egl", "require": 400}
            settings["device_index"] = chosen_device()
            current.gl = moderngl.create_context(**settings)
        except Exception as error:
            current.error = next(iter(str(error).splitlines()), type(error).__name__)
    return current.error


def keep_freed_memory() -> None:
    """Let this process keep memory that it frees, for the next image. Without effect beyond glibc.

    Images and framebuffers of a few megabytes go back to the system whenever they are freed, and
    their pages are cleared when they are needed again: a sixth of the time of a 1024 x 1024 view.
    """
    with suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**30)


def compiled_program(kind: tuple, vertex_shader: str, fragment_shader: str) -> Any:
    """A shader program of this thread's context, compiled at its first use and kept."""
    if kind not in current.programs:
        current.programs[kind] = current.gl.program(vertex_shader, fragment_shader)
    return current.programs[kind]
