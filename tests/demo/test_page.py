"""The page in a browser: one server and two visitors; and its calls for other programs."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hi3d.pages.viewer import viewer_script
from tests.pages.browser import Browser, installed_browser
from tests.pipelines.tiny_settings import TINY

ROOT = Path(__file__).parents[2]
PHOTO = ROOT / "data/examples/mailbox_photo.jpg"
IMAGES = ROOT / "docs/images"
SHOTS = bool(os.environ.get("HI3D_SCREENSHOTS"))
"""Run with the shipped model and write the pictures of the page to docs/images."""
START_SECONDS, RUN_SECONDS = 240, 900
LOADED = "document.querySelector('model-viewer')?.loaded"


@dataclass(frozen=True)
class Server:
    address: str
    process: subprocess.Popen
    temporary: Path

    def visitors(self) -> int:
        return len(list(self.temporary.glob("hi3d_demo_*/visitor_*")))


@pytest.fixture(scope="module")
def server(tmp_path_factory, request):
    pytest.importorskip("gradio", reason="gradio is not installed")
    settings = []
    if not SHOTS:
        models = request.getfixturevalue("tiny_models")
        settings = [*TINY, f"stage1={models}/stage1", f"stage2={models}/stage2"]
    temporary = tmp_path_factory.mktemp("temporary")
    log = temporary / "log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "scripts/demo.py", "--port", "0", *settings],
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": str(ROOT)},
            stdout=file,
            stderr=file,
        )
    try:
        end = time.monotonic() + START_SECONDS
        while not (found := re.search(r"http://127\.0\.0\.1:\d+", log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.2)
        yield Server(found[0], process, temporary)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    assert not list(temporary.glob("hi3d_demo_*"))


@pytest.fixture(scope="module")
def browser(server, tmp_path_factory):
    browser = Browser(installed_browser(), tmp_path_factory.mktemp("browser"))
    yield browser
    browser.close()


def enter(browser: Browser, server: Server) -> str:
    """Opens the page in a new tab; its session."""
    browser.open_tab()
    browser.size(1180, 900)
    browser.send("Emulation.setScrollbarsHidden", hidden=True)
    color(browser, "light")
    browser.send("Page.navigate", url=server.address)
    browser.until("!!document.querySelector('#photo input[type=file]')")
    return browser.session


def color(browser: Browser, scheme: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.send("Emulation.setEmulatedMedia", features=features)


def upload(browser: Browser, path: Path) -> None:
    document = browser.send("DOM.getDocument")["root"]["nodeId"]
    found = browser.send("DOM.querySelector", nodeId=document, selector="#photo input[type=file]")
    browser.send("DOM.setFileInputFiles", files=[str(path)], nodeId=found["nodeId"])


def text(browser: Browser, selector: str) -> str:
    return browser.value(f"document.querySelector({selector!r})?.innerText ?? ''")


def keep(browser: Browser, name: str, width: int, height: int | None = None) -> None:
    """Writes a small picture of the page, where it is asked for."""
    if not SHOTS:
        return
    browser.size(width, height or browser.value("document.body.scrollHeight"))
    browser.value("new Promise(done => setTimeout(done, 1500))")
    picture = Image.fromarray(browser.picture())
    picture.convert("P", palette=Image.Palette.ADAPTIVE, colors=128).save(
        IMAGES / name, optimize=True
    )
    assert (IMAGES / name).stat().st_size < 150_000


def outside(browser: Browser, server: Server) -> list[str]:
    return [address for address in browser.requests() if not address.startswith(server.address)]


def test_a_photo_becomes_a_mesh_that_another_visitor_does_not_see(server, browser, tmp_path):
    if viewer_script() is None:
        pytest.skip("the viewer is neither in the cache nor to be had from registry.npmjs.org")
    # A text file is one line.
    first = enter(browser, server)
    words = tmp_path / "words.txt"
    words.write_text("not a photo")
    upload(browser, words)
    browser.until("!!document.querySelector('#line .error')")
    line = text(browser, "#line")
    assert line.strip() == "the photo is not a readable image: give a PNG, JPEG or WebP file"
    assert not browser.value("!!document.querySelector('#camera img')")
    # A photo goes in.
    browser.send("Page.reload")
    browser.until("document.querySelector('#line')?.innerText.includes('one object')")
    upload(browser, PHOTO)
    browser.until("document.querySelector('#camera img')?.naturalWidth > 100")
    browser.until("document.querySelector('#cutout img')?.naturalWidth > 100")
    keep(browser, "page-cutout.png", 1180, 760)
    browser.value("document.querySelector('#make').click()")
    browser.until("!!document.querySelector('#status .present')")
    # Another visitor waits meanwhile, and gives up.
    second = enter(browser, server)
    upload(browser, PHOTO)
    browser.until("!!document.querySelector('#camera img')")
    browser.value("document.querySelector('#make').click()")
    browser.until("document.querySelector('#status').innerText.length > 5")
    browser.value("document.querySelector('#cancel').click()")
    browser.until("document.querySelector('#status').innerText.includes('Cancelled')")
    # The mesh comes out, and is drawn.
    browser.session = first
    browser.send("Page.bringToFront")
    browser.until(LOADED, RUN_SECONDS)
    browser.until("document.querySelectorAll('#previews figure').length === 6")
    browser.value("new Promise(done => setTimeout(done, 1000))")
    x, y, width, height = browser.value(
        "(b => [b.x, b.y, b.width, b.height].map(Math.round))"
        "(document.querySelector('model-viewer').getBoundingClientRect())"
    )
    drawn = browser.picture()[y : y + height, x : x + width].astype(int)
    away = np.abs(drawn - drawn[5, 5]).max(-1) > 40
    assert 0.01 < away.mean() < 0.7
    links = browser.value("[...document.querySelectorAll('#mesh nav a')].map(a => a.href)")
    names = ["mesh.glb", "mesh_obj.zip", "splats.ply", "turntable.mp4", "report.json", "index.html"]
    assert [link.rpartition("/")[2] for link in links] == names
    report = json.loads(fetched(links[4]))
    assert report["inputs"]["photo"] == "photo"
    assert str(server.temporary) not in json.dumps(report)
    keep(browser, "page.png", 1180)
    keep(browser, "page-phone.png", 390, 844)
    color(browser, "dark")
    keep(browser, "page-dark.png", 1180, 760)
    browser.size(390, 844)
    assert browser.value("document.documentElement.scrollWidth - innerWidth") <= 0
    # The other one sees nothing of it, nor does who guesses.
    browser.session = second
    assert "will stand here" in text(browser, "#mesh")
    for guess in (str(Path(links[0]).parents[2]), "/etc/passwd", "README.md"):
        with pytest.raises(urllib.error.HTTPError):
            fetched(f"{server.address}/gradio_api/file={guess.partition('file=')[2] or guess}")
    assert outside(browser, server) == []
    assert browser.complaints() == []
    # Who leaves leaves nothing.
    browser.send("Page.navigate", url="about:blank")
    browser.session = first
    browser.send("Page.navigate", url="about:blank")
    end = time.monotonic() + 20
    while server.visitors():
        assert time.monotonic() < end
        time.sleep(0.2)
    with pytest.raises(urllib.error.HTTPError):
        fetched(links[0])


def fetched(address: str) -> bytes:
    with urllib.request.urlopen(address, timeout=20) as answer:
        return answer.read()


def test_programs_call_it(server, tmp_path):
    client_library = pytest.importorskip("gradio_client")
    client = client_library.Client(server.address, verbose=False, download_files=tmp_path)
    words = tmp_path / "words.txt"
    words.write_text("not a photo")
    options = {"api_name": "/generate", "steps": 1, "interpolated_views": 0, "texture": 512}
    for wrong, line in (
        ({"photo": client_library.handle_file(words)}, "not a readable image"),
        ({"photo": client_library.handle_file(PHOTO), "steps": 99}, "99"),
        ({"photo": client_library.handle_file(PHOTO), "memory": "/etc"}, "/etc"),
    ):
        with pytest.raises(Exception, match=line):
            client.predict(**{**options, **wrong})
    paths = client.predict(**options, photo=client_library.handle_file(PHOTO))
    assert [Path(path).name for path in paths][:2] == ["mesh.glb", "mesh_obj.zip"]
    assert Path(paths[0]).read_bytes()[:4] == b"glTF"
    client.predict(api_name="/cancel")
    client.close()
