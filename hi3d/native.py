"""C kernels for the CPU, built by the system compiler at first use and cached by their content.

A kernel is a file `NAME.c` beside the module that calls it, with plain C functions: pointers to
contiguous arrays, sizes and a number of threads. Its caller declares `argtypes`, allocates every
array, and keeps a readable torch twin for computers without a compiler.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from hi3d.errors import InputError
from hi3d.files import atomic_path, make_folder
from hi3d.progress import console

COMPILERS = ("cc", "gcc", "clang")
# Not -ffast-math: before GCC 13 it makes the whole process flush denormals once the library loads.
BASE_FLAGS = (
    *("-std=gnu11", "-O3", "-shared", "-fPIC"),
    *("-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros"),
    *("-fassociative-math", "-freciprocal-math"),
)
# From best to most portable: Apple's clang has no -fopenmp, some cross-compilers no -march=native.
OPTIONAL_FLAGS = (
    ("-march=native", "-fopenmp"),
    ("-fopenmp",),
    ("-march=native",),
    (),
)
COMPILE_SECONDS = 120  # a kernel takes about one


@functools.cache
def load_native(source: Path) -> ctypes.CDLL | None:
    """The compiled kernel, built first if it is not in the cache.

    Args:
        source: the C file.

    Returns:
        The library, or None (with one message on the console) where there is no working compiler.

    Raises:
        ValueError: there is no such source file.
    """
    if not source.exists():
        raise ValueError(f"no kernel at {source}")
    # Idle OpenMP threads otherwise spin, which slows all else on shared cores. A runtime that torch
    # has already started does not look again: set it in the environment to be sure.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    return build_and_load(source, cache_folder())


def num_threads() -> int:
    """The number of threads a kernel should use: torch's own setting."""
    return torch.get_num_threads()


def pointer(tensor: Tensor | None) -> ctypes.c_void_p:
    """The address of a contiguous CPU tensor, for an argument of a kernel; NULL for None.

    The caller keeps the tensor alive during the call and checks its dtype and shape.

    Raises:
        ValueError: the tensor is not contiguous or not on the CPU.
    """
    if tensor is None:
        return ctypes.c_void_p(None)
    if not tensor.is_contiguous() or tensor.device.type != "cpu":
        raise ValueError("a kernel takes contiguous tensors on the CPU")
    return ctypes.c_void_p(tensor.data_ptr())


def cache_folder() -> Path:
    """Where built kernels are kept: `HI3D_CACHE_DIR`, else `hi3d` in the user's cache folder.

    A folder that cannot be written is replaced by a temporary one, so that the build still works.
    """
    if "HI3D_CACHE_DIR" in os.environ:
        folder = Path(os.environ["HI3D_CACHE_DIR"])
    else:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hi3d"
    try:
        return make_folder(folder)
    except InputError:
        return Path(tempfile.mkdtemp(prefix="hi3d-"))


def build_and_load(source: Path, folder: Path) -> ctypes.CDLL | None:
    """Compile `source` into `folder` unless it is there already, and load it.

    The flags are tried from the fastest to the most portable. The file name holds a hash of all
    that the machine code depends on, so a changed source or another CPU gets its own file.

    Returns:
        The library, or None (with a message on the console) if no compiler builds it.
    """
    compiler = find_compiler()
    if compiler is None:
        return None
    error = ""
    for optional in OPTIONAL_FLAGS:
        flags = (*BASE_FLAGS, *optional)
        library = folder / f"{source.stem}-{build_hash(source, compiler, flags)}.so"
        if library.exists():
            try:
                return ctypes.CDLL(str(library))
            except OSError:  # damaged, or made against a runtime that is gone: build it again
                library.unlink(missing_ok=True)
        try:
            with atomic_path(library) as partial:
                command = [*compiler, *flags, str(source), "-o", str(partial), "-lm"]
                subprocess.run(
                    command, check=True, capture_output=True, text=True, timeout=COMPILE_SECONDS
                )
            return ctypes.CDLL(str(library))
        except subprocess.CalledProcessError as failure:
            error = failure.stderr.strip().splitlines()[0] if failure.stderr else str(failure)
        except (OSError, subprocess.TimeoutExpired) as failure:
            error = str(failure)
    console.print(f"{source.name} does not compile ({error}): using the slower torch code")
    return None


@functools.cache
def find_compiler() -> tuple[str, ...] | None:
    """The command of the C compiler: `CC` if set, else the first of cc, gcc, clang; None if none.

    Prints one message where there is none.
    """
    candidates = [shlex.split(os.environ["CC"])] if os.environ.get("CC") else []
    candidates += [[name] for name in COMPILERS]
    for command in candidates:
        if command and shutil.which(command[0]):
            return tuple(command)
    console.print("no C compiler (cc, gcc or clang): using the slower torch code on the CPU")
    return None


def build_hash(source: Path, compiler: tuple[str, ...], flags: tuple[str, ...]) -> str:
    """A name for one build: source, flags, compiler version and CPU model, as 16 hex digits."""
    parts = (source.read_text(), " ".join(flags), compiler_version(compiler), cpu_model())
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


@functools.cache
def compiler_version(compiler: tuple[str, ...]) -> str:
    """What `compiler --version` prints, or the command itself if it prints nothing."""
    try:
        done = subprocess.run([*compiler, "--version"], capture_output=True, text=True, timeout=20)
        return done.stdout or " ".join(compiler)
    except (OSError, subprocess.TimeoutExpired):
        return " ".join(compiler)


@functools.cache
def cpu_model() -> str:
    """The CPU and its instruction sets: code built with -march=native runs only on its like."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        keys = ("model name", "flags", "Features", "CPU part")
        found = {line for line in lines if line.startswith(keys)}
        return platform.machine() + "\n".join(sorted(found))
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
