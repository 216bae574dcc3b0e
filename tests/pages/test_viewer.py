"""The viewer is fetched once, checked at each use, and never waited for long."""

import io
import tarfile
import time

import pytest

from hi3d.pages import viewer


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HI3D_CACHE_DIR", str(tmp_path / "cache"))
    viewer.viewer_script.cache_clear()
    yield tmp_path / "cache"
    viewer.viewer_script.cache_clear()


@pytest.fixture
def package(monkeypatch, tmp_path):
    """A package with a small script, served from a file, and its checksums."""
    script, buffer = b"export const a = 1;", io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        member = tarfile.TarInfo(viewer.MEMBER)
        member.size = len(script)
        archive.addfile(member, io.BytesIO(script))
    path = tmp_path / "package.tgz"
    path.write_bytes(buffer.getvalue())
    monkeypatch.setattr(viewer, "URL", path.as_uri())
    monkeypatch.setattr(viewer, "SHA256", viewer.hashlib.sha256(script).hexdigest())
    sha512 = viewer.hashlib.sha512(buffer.getvalue()).hexdigest()
    monkeypatch.setattr(viewer, "PACKAGE_SHA512", sha512)
    return path


def test_it_is_fetched_once_and_then_read(package, cache):
    assert viewer.viewer_script() == "export const a = 1;"
    package.unlink()
    viewer.viewer_script.cache_clear()
    assert viewer.viewer_script() == "export const a = 1;"
    assert not list(cache.glob(".*.part*"))


def test_a_spoilt_file_is_fetched_again_or_not_used(package):
    viewer.viewer_script()
    viewer.kept_viewer().write_text("alert(1)")
    viewer.viewer_script.cache_clear()
    assert viewer.viewer_script() == "export const a = 1;"
    viewer.kept_viewer().write_text("alert(1)")
    package.unlink()
    viewer.viewer_script.cache_clear()
    assert viewer.viewer_script() is None


def test_another_package_is_refused(package, monkeypatch):
    monkeypatch.setattr(viewer, "PACKAGE_SHA512", "0" * 128)
    assert viewer.viewer_script() is None
    assert not viewer.kept_viewer().exists()


def test_a_network_that_never_answers_is_waited_for_a_moment(monkeypatch):
    def never(*_: object, **__: object) -> None:
        time.sleep(3)
        raise OSError

    monkeypatch.setattr(viewer, "ANSWER_SECONDS", 0.1)
    monkeypatch.setattr(viewer.urllib.request, "urlopen", never)
    start = time.monotonic()
    assert viewer.viewer_script() is None
    assert viewer.viewer_script() is None
    assert time.monotonic() - start < 1.5
