import ctypes
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
    library.twice(build.pointer(values), ctypes.c_int(2))
    assert values.tolist() == [2.0, 5.0]

    (built,) = folder.iterdir()  # one library and no partial file
    modified = built.stat().st_mtime_ns
    assert build.build_and_load(source, folder) is not None
    assert [built] == list(folder.iterdir())
    assert built.stat().st_mtime_ns == modified


@needs_compiler
def test_changed_source_and_damaged_library_are_built_again(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    compiler, flags = build.find_compiler(), (*build.BASE_FLAGS, *build.OPTIONAL_FLAGS[0])
    before = build.build_hash(source, compiler, flags)
    source.write_text(TWICE.replace("2;", "3;"))
    assert build.build_hash(source, compiler, flags) != before
    assert build.build_hash(source, compiler, flags[:-1]) != build.build_hash(
        source, compiler, flags
    )
    folder.mkdir()
    for optional in build.OPTIONAL_FLAGS:
        name = build.build_hash(source, compiler, (*build.BASE_FLAGS, *optional))
        (folder / f"twice-{name}.so").write_bytes(b"cut off")
    library = build.build_and_load(source, folder)
    values = torch.tensor([1.0])
    assert library is not None
    library.twice(build.pointer(values), ctypes.c_int(1))
    assert values.item() == 3.0


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


def test_unknown_kernel_and_wrong_tensors_are_errors() -> None:
    with pytest.raises(ValueError, match="no kernel"):
        build.load_native(Path("no_such_kernel.c"))
    with pytest.raises(ValueError, match="contiguous"):
        build.pointer(torch.zeros(2, 3).T)
    assert build.pointer(None).value is None
