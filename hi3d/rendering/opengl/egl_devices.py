"""Which GPU draws: EGL sees all of a node's, and several workers share them."""

import ctypes
import ctypes.util
import os

from hi3d.errors import InputError
from hi3d.workers.pool import WORKER_VARIABLE

EGL_EXTENSIONS = 0x3055
MAX_DEVICES = 64
DEVICE_VARIABLE = "GLCONTEXT_DEVICE_INDEX"
"""Environment variable with the index of the EGL device to use, whatever else is said."""


def device_extensions() -> list[str]:
    """The extension string of every EGL device, in EGL's order; empty where EGL cannot say."""
    library = ctypes.util.find_library("EGL")
    if library is None:
        return []
    try:
        egl = ctypes.CDLL(library)
        egl.eglGetProcAddress.restype = ctypes.c_void_p
        pointer, integer = ctypes.c_void_p, ctypes.c_int
        addresses = [
            egl.eglGetProcAddress(name)
            for name in (b"eglQueryDevicesEXT", b"eglQueryDeviceStringEXT")
        ]
    except (OSError, AttributeError):
        return []
    if not all(addresses):
        return []
    query_devices = ctypes.CFUNCTYPE(integer, integer, pointer, pointer)(addresses[0])
    query_string = ctypes.CFUNCTYPE(ctypes.c_char_p, pointer, integer)(addresses[1])
    devices, count = (pointer * MAX_DEVICES)(), integer()
    if not query_devices(MAX_DEVICES, devices, ctypes.byref(count)):
        return []
    return [(query_string(devices[i], EGL_EXTENSIONS) or b"").decode() for i in range(count.value)]


def choose_device(extensions: list[str], worker: int) -> int:
    """The device of a worker: worker i takes GPU i, round and round; software where there is none.

    Args:
        extensions: of `device_extensions`.
        worker: number of the worker on this node.
    """
    gpus = [i for i, names in enumerate(extensions) if "EGL_MESA_device_software" not in names]
    return gpus[worker % len(gpus)] if gpus else 0


def chosen_device() -> int:
    """The EGL device of this process, by environment variables or by `choose_device`.

    Raises:
        InputError: a variable is no number.
    """
    for name in (DEVICE_VARIABLE, WORKER_VARIABLE):
        if not os.environ.get(name, "0").isdecimal():
            raise InputError(f"{name}={os.environ[name]}: use a number from 0")
    if DEVICE_VARIABLE in os.environ:
        return int(os.environ[DEVICE_VARIABLE])
    return choose_device(device_extensions(), int(os.environ.get(WORKER_VARIABLE, "0")))
