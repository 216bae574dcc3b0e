import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hi3d import native as build
from hi3d.progress import console

TWICE = "void twice(float *x, int n) { for (int i = 0; i < n; i++) x[i] *= 2; }\n"

needs_compiler = pytest.mark.skipif(build.find_compiler() is None, reason="no C compiler")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "twice.c"
    path.write_text(TWICE)
    return path


@needs_compiler
def test_builds_runs_and_reuses(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    library = build.build_and_load(source, folder)
    assert library is not None
    values = torch.tensor([1.0, 2.5])
    build.Kernel(library, source).twice(values, 2)
    assert values.tolist() == [2.0, 5.0]

    built, checksum = sorted(folder.iterdir())  # one library and no partial file
    assert checksum.name == f"{built.name}.sha256"
    modified = built.stat().st_mtime_ns
    assert build.build_and_load(source, folder) is not None
    assert [built, checksum] == sorted(folder.iterdir())
    assert built.stat().st_mtime_ns == modified


@needs_compiler
def test_changed_source_and_flags_get_files_of_their_own(source: Path) -> None:
    compiler, flags = build.find_compiler(), (*build.BASE_FLAGS, *build.OPTIONAL_FLAGS[0])
    assert compiler is not None
    before = build.library_name(source, compiler, flags)
    assert build.library_name(source, compiler, flags[:-1]) != before
    source.write_text(TWICE.replace("2;", "3;"))
    assert build.library_name(source, compiler, flags) != before


LOAD = """
import sys, torch
from pathlib import Path
from hi3d import native
source, folder = Path(sys.argv[1]), Path(sys.argv[2])
library = native.build_and_load(source, folder)
values = torch.tensor([1.0])
native.Kernel(library, source).twice(values, 1)
assert values.item() == 2.0
"""


@needs_compiler
@pytest.mark.parametrize("damage", ["truncated", "zeroed", "empty", "text", "no checksum"])
def test_damaged_library_is_built_again(damage: str, source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    command = [sys.executable, "-c", LOAD, str(source), str(folder)]
    subprocess.run(command, check=True)
    (library,) = folder.glob("*.so")
    whole = library.read_bytes()
    if damage == "no checksum":
        build.checksum_path(library).unlink()
    else:
        damaged = {
            "truncated": whole[:8192],
            "zeroed": bytes(len(whole)),
            "empty": b"",
            "text": b"cut off",
        }
        library.write_bytes(damaged[damage])
    subprocess.run(command, check=True)  # in a process of its own: a bus error would end this one
    assert library.stat().st_size == len(whole)
    assert build.checksum_path(library).read_text() == build.file_digest(library)


@needs_compiler
def test_falls_back_to_portable_flags(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "OPTIONAL_FLAGS", (("--no-such-flag",), ()))
    assert build.build_and_load(source, tmp_path / "cache") is not None


def test_without_compiler_there_is_one_message(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "COMPILERS", ("no-such-compiler",))
    monkeypatch.delenv("CC", raising=False)
    build.find_compiler.cache_clear()
    build._tell_no_compiler.cache_clear()
    try:
        with console.capture() as captured:
            assert build.build_and_load(source, tmp_path) is None
            assert build.build_and_load(source, tmp_path) is None
        assert captured.get().count("no C compiler") == 1
    finally:
        build.find_compiler.cache_clear()


@needs_compiler
def test_broken_source_is_reported(tmp_path: Path) -> None:
    source = tmp_path / "broken.c"
    source.write_text("this is not C\n")
    with console.capture() as captured:
        assert build.build_and_load(source, tmp_path) is None
    assert "broken.c does not compile" in captured.get()


def test_cache_folder_follows_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HI3D_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert build.cache_folder() == tmp_path / "xdg" / "hi3d"
    monkeypatch.setenv("HI3D_CACHE_DIR", str(tmp_path / "own"))
    assert build.cache_folder() == tmp_path / "own"
    (tmp_path / "file").touch()
    monkeypatch.setenv("HI3D_CACHE_DIR", str(tmp_path / "file" / "below"))
    assert build.cache_folder().is_dir()  # a temporary one


def test_empty_variable_is_as_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HI3D_CACHE_DIR", "")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert build.cache_folder() == tmp_path / "home/.cache/hi3d"
    assert build.cache_folder().stat().st_mode & 0o777 == 0o700


def test_folders_of_others_and_none_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    monkeypatch.setenv("HI3D_CACHE_DIR", str(shared))
    private = build.cache_folder()
    assert private != shared
    assert private.stat().st_mode & 0o777 == 0o700
    shared.chmod(0o700)
    assert build.cache_folder() == shared
    monkeypatch.setattr(build.os, "getuid", lambda: shared.stat().st_uid + 1)
    assert build.cache_folder() == private  # the same one each time
    monkeypatch.delenv("HI3D_CACHE_DIR")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(build.os.path, "expanduser", lambda path: path)  # no entry in passwd
    assert build.cache_folder() == private


def test_temporary_folder_is_deleted_at_the_end() -> None:
    code = "from hi3d import native; print(native.temporary_folder())"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert Path(done.stdout.strip()).name.startswith("hi3d-")
    assert not Path(done.stdout.strip()).exists()


@needs_compiler
def test_full_cache_needs_no_compiler(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert build.build_and_load(source, tmp_path / "cache") is not None
    monkeypatch.setattr(build, "find_compiler", lambda: None)
    assert build.build_and_load(source, tmp_path / "cache") is not None
    source.write_text(TWICE.replace("2;", "3;"))
    assert build.build_and_load(source, tmp_path / "cache") is None


@needs_compiler
def test_folder_without_execution(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = build.ctypes.CDLL

    def refuse(path: str) -> object:
        if path.startswith(str(tmp_path)):
            raise OSError("failed to map segment from shared object")
        return load(path)

    monkeypatch.setattr(build.ctypes, "CDLL", refuse)
    assert build.build_and_load(source, tmp_path / "cache") is not None


def test_unknown_kernel_is_an_error() -> None:
    with pytest.raises(ValueError, match="no kernel"):
        build.load_kernel(Path("no_such_kernel.c"))


PROTOTYPES = """// int not_this(float *x) { in a comment
#include <stdint.h>
typedef struct { float x; } Pair;
static inline float hidden(const Pair *pair) { return pair->x; }
/* void nor_this(double y) { */
int64_t count(const float *values, const uint8_t *used, int32_t *last,
              int64_t num, float limit, double *total) { // trailing
  *total = 0;
  for (int64_t i = 0; i < num; i++)
    if (values[i] > limit && (!used || used[i])) { last[0] = (int32_t)i; *total += values[i]; }
  return last[0];
}
void nothing(void) {}
"""


def test_prototypes_are_read_from_the_source(tmp_path: Path) -> None:
    source = tmp_path / "count.c"
    source.write_text(PROTOTYPES)
    prototypes = build.read_prototypes(source)
    assert list(prototypes) == ["count", "nothing"]
    returned, parameters = prototypes["count"]
    assert returned == "int64_t"
    assert [(p.name, p.type, p.is_array) for p in parameters] == [
        ("values", "float", True),
        ("used", "uint8_t", True),
        ("last", "int32_t", True),
        ("num", "int64_t", False),
        ("limit", "float", False),
        ("total", "double", True),
    ]
    assert prototypes["nothing"] == ("void", [])


@pytest.mark.parametrize("code", ["void f(char *x) {}", "void f(float **x) {}", "long f(int n) {}"])
def test_types_without_a_tensor_or_number_are_errors(code: str, tmp_path: Path) -> None:
    source = tmp_path / "odd.c"
    source.write_text(code)
    with pytest.raises(ValueError, match=r"odd\.c: f"):
        build.read_prototypes(source)


@pytest.fixture
def kernel(tmp_path: Path) -> build.Kernel:
    source = tmp_path / "count.c"
    source.write_text(PROTOTYPES)
    library = build.build_and_load(source, tmp_path / "cache")
    assert library is not None
    return build.Kernel(library, source)


@needs_compiler
def test_arguments_reach_the_kernel(kernel: build.Kernel) -> None:
    values, last = torch.tensor([1.0, 5.0, 3.0]), torch.zeros(1, dtype=torch.int32)
    total, used = torch.ones(1, dtype=torch.float64), torch.tensor([1, 0, 1], dtype=torch.uint8)
    assert kernel.count(values, None, last, 3, 0.5, total) == 2
    assert total.item() == 9
    kernel.count(values, used, last, 3, 2, total)
    assert total.item() == 3
    assert kernel.nothing() is None
    with pytest.raises(AttributeError, match="hidden"):
        kernel.hidden(values)


@needs_compiler
@pytest.mark.parametrize(
    ("place", "wrong", "words"),
    [
        (0, torch.zeros(3, dtype=torch.float64), "values must be a torch.float32 tensor"),
        (0, torch.zeros(3, 2)[:, 0], "values must be a contiguous"),
        (0, torch.zeros(3, device="meta"), "on the CPU"),
        (1, torch.zeros(3, dtype=torch.bool), "used must be a torch.uint8 tensor"),
        (2, 7, "last must be a torch.int32 tensor, got 7"),
        (3, 2.5, "num must be a number of type int64_t"),
        (3, None, "num must be a number of type int64_t"),
        (4, torch.ones(1), "limit must be a number of type float"),
    ],
)
def test_arguments_of_another_type_are_errors(
    place: int, wrong: object, words: str, kernel: build.Kernel
) -> None:
    last, total = torch.zeros(1, dtype=torch.int32), torch.zeros(1, dtype=torch.float64)
    arguments = [torch.zeros(3), None, last, 3, 0.5, total]
    arguments[place] = wrong
    with pytest.raises(ValueError, match=words):
        kernel.count(*arguments)
    with pytest.raises(ValueError, match="takes 6 arguments, got 5"):
        kernel.count(*arguments[:5])
