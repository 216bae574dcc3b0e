"""A headless Chromium that opens a page of a file and says what became of it."""

import base64
import fcntl
import io
import json
import os
import select
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hi3d.pages.viewer import viewer_script

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OPTIONS = (
    *("--headless=new", "--no-sandbox", "--remote-debugging-pipe", "--no-first-run"),
    *("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-dev-shm-usage"),
)
LOADED = "document.querySelectorAll('model-viewer.loaded').length"
LONGEST = 60


@dataclass(frozen=True)
class Seen:
    """What a browser showed."""

    complaints: list[str]
    """Errors of scripts and of the console."""
    requests: list[str]
    """Addresses beyond the file itself."""
    text: str
    pixels: np.ndarray
    """[H, W, 3] of the whole page."""
    boxes: list[list[float]]
    """x, y, width and height of each viewer."""
    overflow: int
    """Pixels by which the page is wider than the window."""


def open_page(path: Path, meshes: int, folder: Path, width: int = 900, dark: bool = False) -> Seen:
    """Opens a page and waits until so many meshes are drawn; skips where there is no browser."""
    program = installed_browser()
    if meshes and viewer_script() is None:
        pytest.skip("the viewer is neither in the cache nor to be had from registry.npmjs.org")
    browser = Browser(program, folder)
    try:
        return browser.look(path, meshes, width, dark)
    finally:
        browser.close()


def installed_browser() -> str:
    """The program; skips where there is none."""
    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("no Chromium is installed")
    return program


class Browser:
    """The DevTools protocol over a pair of pipes."""

    def __init__(self, program: str, folder: Path):
        (theirs_in, self.out), (self.into, theirs_out) = os.pipe(), os.pipe()
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 20) for end in (theirs_in, theirs_out)]

        def place() -> None:
            os.dup2(ends[0], 3)
            os.dup2(ends[1], 4)

        self.process = subprocess.Popen(
            [program, *OPTIONS, f"--user-data-dir={folder / 'profile'}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(3, 4),
            preexec_fn=place,
            start_new_session=True,
        )
        for end in (theirs_in, theirs_out, *ends):
            os.close(end)
        self.number, self.buffer, self.session = 0, b"", ""
        self.events: list[dict[str, Any]] = []

    def close(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self.into)
        os.close(self.out)

    def open_tab(self) -> None:
        """A new tab, to which everything that follows is sent."""
        self.session = ""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def picture(self) -> np.ndarray:
        """[H, W, 3] of the whole page."""
        shot = self.send("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        with Image.open(io.BytesIO(base64.b64decode(shot))) as image:
            return np.array(image.convert("RGB"))

    def look(self, path: Path, meshes: int, width: int, dark: bool) -> Seen:
        self.open_tab()
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        self.size(width, 1200)
        self.send("Emulation.setScrollbarsHidden", hidden=True)
        self.send("Page.navigate", url=path.as_uri())
        self.until("document.readyState === 'complete'")
        self.size(width, self.value("document.documentElement.scrollHeight"))
        self.until(f"{LOADED} >= {meshes}")
        self.value("new Promise(done => setTimeout(done, 700))")
        pixels = self.picture()
        boxes = self.value(
            "[...document.querySelectorAll('model-viewer')].map(v => v.getBoundingClientRect())"
            ".map(b => [b.x, b.y, b.width, b.height])"
        )
        text = self.value("document.body.innerText")
        overflow = self.value("document.documentElement.scrollWidth - innerWidth")
        return Seen(self.complaints(), self.requests(), text, pixels, boxes, overflow)

    def size(self, width: int, height: int) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.send("Emulation.setDeviceMetricsOverride", **metrics)

    def complaints(self) -> list[str]:
        found = []
        for event in self.events:
            parameters = event["params"]
            if event["method"] == "Runtime.exceptionThrown":
                found.append(json.dumps(parameters["exceptionDetails"]))
            if event["method"] == "Runtime.consoleAPICalled" and parameters["type"] == "error":
                found.append(json.dumps(parameters["args"]))
            if event["method"] == "Log.entryAdded" and parameters["entry"]["level"] == "error":
                found.append(parameters["entry"]["text"])
        return found

    def requests(self) -> list[str]:
        sent = [e for e in self.events if e["method"] == "Network.requestWillBeSent"]
        addresses = [event["params"]["request"]["url"] for event in sent]
        return [a for a in addresses if not a.startswith(("data:", "blob:", "file:", "about:"))]

    def until(self, condition: str, seconds: float = LONGEST) -> None:
        end = time.monotonic() + seconds
        while not self.value(condition):
            assert time.monotonic() < end, f"never true: {condition}; {self.complaints()}"
            time.sleep(0.1)

    def value(self, expression: str) -> Any:
        answer = self.send(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        self.number += 1
        message: dict[str, Any] = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.receive()
            if answer.get("id") == self.number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self.events.append(answer)

    def receive(self) -> dict[str, Any]:
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.into], [], [], LONGEST)
            read = os.read(self.into, 1 << 20) if ready else b""
            assert read, "the browser does not answer"
            self.buffer += read
        message, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(message)
