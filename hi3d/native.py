"""C kernels for the CPU, built by the system compiler at first use and cached by their content.

A kernel is a file `NAME.c` beside the module that calls it, with plain C functions: pointers to
contiguous arrays, sizes and a number of threads. Their prototypes in that file say what a call
takes; the caller allocates every array and keeps a readable torch twin for computers without a
compiler.
"""

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

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


RETURN_TYPES = {
    "void": None,
    "int": ctypes.c_int,
    "int64_t": ctypes.c_int64,
    "float": ctypes.c_float,
    "double": ctypes.c_double,
}
NUMBERS: dict[str, tuple[Any, type]] = {
    "int": (ctypes.c_int, int),
    "int64_t": (ctypes.c_int64, int),
    "float": (ctypes.c_float, float),
    "double": (ctypes.c_double, float),
}
ARRAYS = {
    "float": torch.float32,
    "double": torch.float64,
    "int32_t": torch.int32,
    "int64_t": torch.int64,
    "uint8_t": torch.uint8,
}
FUNCTION = re.compile(r"^(?!static\b|typedef\b)([a-z]\w*)\s+(\w+)\(([^()]*)\)\s*\{", re.MULTILINE)
PARAMETER = re.compile(r"(?:const\s+)?(\w+)\s*(\*?)\s*(\w+)")


@dataclass(frozen=True)
class Parameter:
    """One parameter of a kernel's function."""

    name: str
    type: str
    """Of the number, or of the array's elements."""
    is_array: bool

    def convert(self, value: Tensor | float | None) -> int | float | None:
        """What ctypes passes for an argument: the address of a tensor, NULL for None, or a number.

        Raises:
            ValueError: the argument is not of the parameter's type, or a tensor is not contiguous
                or not on the CPU.
        """
        if not self.is_array:
            number = NUMBERS[self.type][1]
            if not isinstance(value, int | float) or (number is int and not isinstance(value, int)):
                raise ValueError(f"{self.name} must be a number of type {self.type}, got {value!r}")
            return value
        if value is None:
            return None
        if not isinstance(value, Tensor) or value.dtype != ARRAYS[self.type]:
            got = value.dtype if isinstance(value, Tensor) else repr(value)
            raise ValueError(f"{self.name} must be a {ARRAYS[self.type]} tensor, got {got}")
        if not value.is_contiguous() or value.device.type != "cpu":
            raise ValueError(f"{self.name} must be a contiguous tensor on the CPU")
        return value.data_ptr()


class Kernel:
    """A compiled C file; its functions are called by name with tensors and numbers.

    A tensor goes to a pointer of its dtype, None to any pointer as NULL. The caller vouches for the
    sizes of the arrays.
    """

    def __init__(self, library: ctypes.CDLL, source: Path):
        """Args:
        library: built from `source`.
        source: the C file.

        Raises:
            ValueError: a function has a type that no tensor or number fits, or is not in the
                library.
        """
        self._functions = {
            name: _function(library, name, returned, parameters)
            for name, (returned, parameters) in read_prototypes(source).items()
        }

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """The function `name`.

        Raises:
            AttributeError: the C file has none of that name.
        """
        if name.startswith("_") or name not in self._functions:
            raise AttributeError(f"the kernel has no function {name}")
        return self._functions[name]


def _function(
    library: ctypes.CDLL, name: str, returned: str, parameters: list[Parameter]
) -> Callable[..., Any]:
    if not hasattr(library, name):
        raise ValueError(f"{name} is not in the built library: is it static?")
    function = getattr(library, name)
    function.restype = RETURN_TYPES[returned]
    function.argtypes = [
        ctypes.c_void_p if parameter.is_array else NUMBERS[parameter.type][0]
        for parameter in parameters
    ]

    def call(*arguments: Tensor | float | None) -> Any:
        if len(arguments) != len(parameters):
            raise ValueError(f"{name} takes {len(parameters)} arguments, got {len(arguments)}")
        pairs = zip(parameters, arguments, strict=True)
        return function(*(parameter.convert(argument) for parameter, argument in pairs))

    return call


def read_prototypes(source: Path) -> dict[str, tuple[str, list[Parameter]]]:
    """The functions that a C file exports: type of the result, and the parameters.

    Args:
        source: a C file whose functions start at the beginning of a line.

    Raises:
        ValueError: a function has a type that no tensor or number fits.
    """
    code = re.sub(r"//[^\n]*|/\*.*?\*/", "", source.read_text(), flags=re.DOTALL)
    prototypes = {}
    for returned, name, inner in FUNCTION.findall(code):
        if returned not in RETURN_TYPES:
            raise ValueError(f"{source.name}: {name} returns {returned}: use a plain type")
        parts = [] if inner.strip() in ("", "void") else inner.split(",")
        prototypes[name] = returned, [_parameter(part, f"{source.name}: {name}") for part in parts]
    return prototypes


def _parameter(text: str, where: str) -> Parameter:
    found = PARAMETER.fullmatch(" ".join(text.split()))
    if found is None or found[1] not in (ARRAYS if found[2] else NUMBERS):
        raise ValueError(f"{where} has a parameter that no tensor or number fits: {text.strip()}")
    return Parameter(name=found[3], type=found[1], is_array=bool(found[2]))


@functools.cache
def load_kernel(source: Path) -> Kernel | None:
    """The compiled kernel, built first if it is not in the cache.

    Args:
        source: the C file.

    Returns:
        The kernel, or None (with one message on the console) where there is no working compiler.

    Raises:
        ValueError: there is no such source file, or its prototypes cannot be read.
    """
    if not source.exists():
        raise ValueError(f"no kernel at {source}")
    # Idle OpenMP threads otherwise spin, which slows all else on shared cores. A runtime that torch
    # has already started does not look again: set it in the environment to be sure.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    library = build_and_load(source, cache_folder())
    return None if library is None else Kernel(library, source)


def num_threads() -> int:
    """The number of threads a kernel should use: torch's own setting."""
    return torch.get_num_threads()


def cache_folder() -> Path:
    """Where built kernels are kept: `HI3D_CACHE_DIR`, else `hi3d` in the user's cache folder.

    Machine code is loaded from it, so it must be this user's and closed to the writing of others;
    otherwise, and where it cannot be written, a temporary folder stands for it.
    """
    try:
        folder = _wanted_folder()
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.stat()
        if status.st_uid != os.getuid() or status.st_mode & 0o022:
            console.print(
                f"{folder} can be written by others: kernels are built in a temporary folder",
                markup=False,
            )
            return temporary_folder()
        return make_folder(folder)
    except (OSError, InputError):
        return temporary_folder()


def _wanted_folder() -> Path:
    """Of the environment; an empty variable is as none.

    Raises:
        FileNotFoundError: the user has no home.
    """
    if os.environ.get("HI3D_CACHE_DIR"):
        return Path(os.environ["HI3D_CACHE_DIR"]).absolute()
    if os.environ.get("XDG_CACHE_HOME"):
        return Path(os.environ["XDG_CACHE_HOME"]).absolute() / "hi3d"
    home = Path(os.path.expanduser("~"))
    if not home.is_absolute():
        raise FileNotFoundError("no home folder")
    return home / ".cache" / "hi3d"


def temporary_folder() -> Path:
    """This process's private folder for kernels, deleted when it ends."""
    return _temporary_folder(os.getpid())


@functools.cache
def _temporary_folder(pid: int) -> Path:
    """Made once for each process; a worker that was forked gets its own."""
    folder = Path(tempfile.mkdtemp(prefix="hi3d-"))
    Finalize(None, shutil.rmtree, (folder, True), exitpriority=0)  # runs in workers as well
    return folder


def build_and_load(source: Path, folder: Path) -> ctypes.CDLL | None:
    """Compile `source` into `folder` unless it is there already, and load it.

    The flags are tried from the fastest to the most portable. The file name holds a hash of all
    that the machine code depends on, so a changed source or another CPU gets its own file. A
    library is loaded only if the checksum beside it fits: a damaged one would end the process.

    Returns:
        The library, or None (with a message on the console) if no compiler builds it and the
        folder holds none that another compiler built.
    """
    compiler = find_compiler()
    error = None
    for optional in OPTIONAL_FLAGS if compiler else ():
        assert compiler is not None
        flags = (*BASE_FLAGS, *optional)
        library = folder / library_name(source, compiler, flags)
        loaded = load_checked(library)
        if loaded is not None:
            return loaded
        try:
            return _build(source, [*compiler, *flags], library)
        except subprocess.CalledProcessError as failure:
            error = failure.stderr.strip().splitlines()[0] if failure.stderr else str(failure)
        except (OSError, subprocess.TimeoutExpired) as failure:
            error = str(failure)
    for library in sorted(folder.glob(f"{source.stem}-{source_hash(source)}-*.so")):
        loaded = load_checked(library)
        if loaded is not None:
            return loaded
    if compiler is None:
        _tell_no_compiler()
    else:
        console.print(
            f"{source.name} does not compile ({error}): using the slower torch code", markup=False
        )
    return None


def load_checked(library: Path) -> ctypes.CDLL | None:
    """Load a library whose checksum fits, or delete it; None where there is none that loads."""
    checksum = checksum_path(library)
    try:
        if checksum.read_text() == file_digest(library):
            return ctypes.CDLL(str(library))
    except (OSError, ValueError):  # missing, unreadable, or made against a runtime that is gone
        pass
    with contextlib.suppress(OSError):
        checksum.unlink(missing_ok=True)
        library.unlink(missing_ok=True)
    return None


def _build(source: Path, command: list[str], library: Path) -> ctypes.CDLL:
    """Compile, note the checksum, load; from the temporary folder where `library` may not run.

    Raises:
        OSError, subprocess.SubprocessError: the compiler or the loader fails.
    """
    with atomic_path(library) as partial:
        command = [*command, str(source), "-o", str(partial), "-lm"]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=COMPILE_SECONDS)
    with atomic_path(checksum_path(library)) as partial:
        partial.write_text(file_digest(library))
    try:
        return ctypes.CDLL(str(library))
    except OSError:  # a file system without execution
        copied = temporary_folder() / library.name
        shutil.copyfile(library, copied)
        return ctypes.CDLL(str(copied))


def checksum_path(library: Path) -> Path:
    """The file beside a library that holds its SHA-256."""
    return library.with_name(library.name + ".sha256")


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


@functools.cache
def find_compiler() -> tuple[str, ...] | None:
    """The command of the C compiler: `CC` if set, else the first of cc, gcc and clang, or None."""
    candidates = [shlex.split(os.environ["CC"])] if os.environ.get("CC") else []
    candidates += [[name] for name in COMPILERS]
    for command in candidates:
        if command and shutil.which(command[0]):
            return tuple(command)
    return None


@functools.cache
def _tell_no_compiler() -> None:
    console.print("no C compiler (cc, gcc or clang): using the slower torch code on the CPU")


def library_name(source: Path, compiler: tuple[str, ...], flags: tuple[str, ...]) -> str:
    """File name of one build: what is built, and on which CPU; then with what."""
    tools = "\0".join([" ".join(flags), compiler_version(compiler)])
    return f"{source.stem}-{source_hash(source)}-{_short_hash(tools)}.so"


def source_hash(source: Path) -> str:
    """Of source and CPU model, as 16 hex digits."""
    return _short_hash(source.read_text() + "\0" + cpu_model())


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


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
