"""What visitors bring is checked, what they choose bounded, and what is theirs stays theirs."""

import asyncio
import struct
import threading
import time
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from hi3d.demo.camera_picture import SIDE, camera_picture, cutout_picture
from hi3d.demo.desk import Desk
from hi3d.demo.guard import Guard, fetches, only_uploads
from hi3d.demo.job import CANCELLED, Cancelled, Job, Turns, one_line
from hi3d.demo.settings import Choices, DemoConfig, LimitsConfig, choices_of, chosen
from hi3d.demo.shown import message, stages
from hi3d.demo.uploads import take_upload
from hi3d.demo.visitors import Visitors
from hi3d.errors import InputError
from hi3d.progress import tell
from hi3d.views import ReferenceImage

CHOICES = Choices(3, 12.5, 4, 8, 512, "low")


def disc() -> ReferenceImage:
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    alpha = ((x - 32) ** 2 + (y - 32) ** 2 < 400).float()[None]
    return ReferenceImage(1 - alpha.repeat(3, 1, 1) * 0.8, alpha)


class FakeStudio:
    """Takes as long as it is told to."""

    def __init__(self, waiting: int = 2):
        self.config = DemoConfig(limits=LimitsConfig(waiting=waiting))
        self.turns = Turns(waiting)
        self.go_on = threading.Event()
        self.artist = None

    def cut_out(self, photo):
        return SimpleNamespace(reference=disc(), sent=photo.read_bytes())

    def elevation_deg(self, photo):
        return 20.0

    def make(self, photo, config, folder):
        folder.mkdir(parents=True)
        for step in range(10**6):
            tell("neus", step, 10**6)
            (folder / "half").write_bytes(photo.sent)
            if self.go_on.wait(0.01):
                return "made"
        return None


@pytest.fixture
def desk(tmp_path):
    desk = Desk(FakeStudio(), Visitors(tmp_path / "root", 60))
    yield desk
    desk.visitors.close()
    assert not (tmp_path / "root").exists()


def sent(tmp_path, shade=200, name="x.png"):
    path = tmp_path / "root" / str(shade) / name
    path.parent.mkdir(parents=True)
    Image.new("RGB", (40, 40), (shade, 0, 0)).save(path)
    return path


def test_choices_are_what_the_owner_allows():
    config = DemoConfig()
    made = chosen(config, CHOICES)
    assert (made.seed, made.elevation_deg, made.memory) == (3, "12.5", "low")
    assert (made.orbit.num_inference_steps, made.refiner.num_inference_steps) == (4, 4)
    assert (made.mesh.interpolated_views, made.mesh.texture.resolution) == (8, 512)
    assert made.mesh.export == ["glb", "obj"]
    assert (made.stage1, made.foreground) == (config.stage1, config.foreground)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", -1), ("seed", 0.5), ("seed", "0"), ("elevation_deg", 90.0),
        ("elevation_deg", float("nan")), ("steps", 51), ("steps", None),
        ("interpolated_views", 33), ("texture", 1000), ("texture", True), ("memory", "/etc"),
    ],
)  # fmt: skip
def test_other_choices_are_one_line(key, value):
    given = {
        "elevation_deg": 0.0, "estimate_elevation": False, "seed": 0, "steps": 25.0,
        "interpolated_views": 0, "texture": 1024, "memory": "fast",
    }  # fmt: skip
    chosen(DemoConfig(), choices_of(**given))
    with pytest.raises(InputError, match=key):
        chosen(DemoConfig(), choices_of(**{**given, key: value}))


def png_of(width: int, height: int) -> bytes:
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", b"")]
    chunks = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"not a photo", "not a readable image"),
        (b"", "not a readable image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 90 90\n", "not a readable image"),
        (png_of(9000, 9000), "more than 40 megapixels"),
        (png_of(60000, 60000), "damaged or too large"),
        (bytes(1_000_001), "more than 1 MB"),
    ],
)
def test_uploads_that_are_no_photo_are_one_line(content, line, tmp_path):
    path = tmp_path / "a;b.png"
    path.write_bytes(content)
    with pytest.raises(InputError, match=line) as caught:
        take_upload(path, tmp_path, LimitsConfig(upload_mb=1))
    assert str(tmp_path) not in str(caught.value)
    assert not (tmp_path / "photo").exists()


def test_a_run_is_followed_to_its_end(desk, tmp_path):
    taken = desk.take_photo("a", sent(tmp_path))
    assert taken.elevation_deg == 20
    assert desk.camera("a", 45.0).read_bytes() != taken.camera.read_bytes()
    assert desk.camera("nobody", 45.0) is None
    news = desk.make("a", CHOICES)
    first = next(news)
    assert first.result is None
    desk.studio.go_on.set()
    *_, last = news
    assert (last.result / "half").read_bytes() == desk.visitors.of("a").photo.sent


def test_visitors_have_places_of_their_own(desk, tmp_path):
    desk.take_photo("a", sent(tmp_path, 1))
    desk.take_photo("b", sent(tmp_path, 2))
    a, b = desk.visitors.of("a"), desk.visitors.of("b")
    assert a.photo.sent != b.photo.sent
    assert a.folder != b.folder
    desk.visitors.leave("a")
    assert not a.folder.exists()
    assert not (tmp_path / "root" / "1").exists()
    assert (tmp_path / "root" / "2" / "x.png").exists()
    assert b.folder.exists()
    with pytest.raises(InputError, match="no photo yet"):
        next(desk.make("a", CHOICES))


def test_cancelling_ends_the_work_and_keeps_nothing(desk, tmp_path):
    desk.take_photo("a", sent(tmp_path))
    news = desk.make("a", CHOICES)
    next(news)
    desk.cancel("b")
    next(news)
    desk.cancel("a")
    with pytest.raises(InputError, match=CANCELLED):
        list(news)
    visitor = desk.visitors.of("a")
    assert not visitor.is_busy
    assert not list(visitor.folder.glob("run_*"))


def test_who_leaves_ends_their_work(desk, tmp_path):
    desk.take_photo("a", sent(tmp_path))
    news = desk.make("a", CHOICES)
    next(news)
    visitor = desk.visitors.of("a")
    desk.visitors.leave("a")
    visitor.job.join(5)
    assert not visitor.is_busy
    assert not visitor.folder.exists()


def test_one_works_and_few_wait_in_order(desk, tmp_path):
    runs = {}
    for number, key in enumerate("abc"):
        desk.take_photo(key, sent(tmp_path, number))
        runs[key] = desk.make(key, CHOICES)
        shown = next(runs[key])
    assert "2 before you" in shown.stages
    desk.take_photo("d", sent(tmp_path, 9))
    with pytest.raises(InputError, match="2 are waiting already"):
        next(desk.make("d", CHOICES))
    desk.cancel("b")
    with pytest.raises(InputError, match=CANCELLED):
        list(runs["b"])
    assert "1 before you" in stages(desk.visitors.of("c").job)
    desk.studio.go_on.set()
    assert [list(runs[key])[-1].result.exists() for key in "ac"] == [True, True]


def test_who_does_nothing_is_swept_away(tmp_path):
    visitors = Visitors(tmp_path / "root", kept_seconds=0.05)
    idle, busy = visitors.of("idle"), visitors.of("busy")
    busy.job = SimpleNamespace(is_alive=lambda: True, cancel=lambda: None, join=lambda _: None)
    stray = sent(tmp_path)
    time.sleep(0.1)
    visitors.sweep()
    assert not idle.folder.exists()
    assert not stray.exists()
    assert busy.folder.exists()
    visitors.close()


def test_errors_say_nothing_of_the_server(tmp_path, caplog):
    folder = tmp_path / "visitor_x"
    line = one_line(InputError(f"{folder}/photo is one uniform colour: give another"), folder)
    assert line == "the photo is one uniform colour: give another"
    assert one_line(Cancelled(), folder) == CANCELLED
    assert "out of memory" in one_line(MemoryError(), folder)
    assert "secret" not in one_line(RuntimeError("secret"), folder)
    assert "secret" in caplog.text


def test_a_failed_job_gives_its_turn_up():
    turns = Turns(1)
    job = Job(lambda: 1 / 0, turns)
    job.start()
    job.join(5)
    assert isinstance(job.error, ZeroDivisionError)
    assert turns.wait(turns.enter(), 0)


def test_the_camera_picture_shows_the_ground():
    image = disc()
    levels = [np.asarray(camera_picture(image, angle)).astype(int) for angle in (-20, 5, 40)]
    assert levels[0].shape == (SIDE, SIDE, 3)
    blue = [(level[..., 2] - level[..., 0] > 60).nonzero()[0] for level in levels]
    heights = [np.ptp(rows[rows > SIDE // 3]) for rows in blue]
    assert heights[2] > heights[1] > 20
    cutout = np.asarray(cutout_picture(image))
    assert len(np.unique(cutout[:20, :20, 0])) == 2


def test_text_of_visitors_is_escaped():
    assert "<img" not in message("<img src=x onerror=alert(1)>", "error")


def test_the_server_fetches_nothing_for_visitors():
    assert fetches("/gradio_api/file=http://localhost/secret")
    assert fetches("/gradio_api/file=HTTPS://example.org/x")
    assert fetches("/gradio_api/proxy=https://example.org/x")
    assert not fetches("/gradio_api/file=/tmp/a/http.png")


def test_an_address_in_place_of_a_file_is_refused(tmp_path):
    taken = []

    async def take(path):
        taken.append(path)

    component = SimpleNamespace(async_move_resource_to_block_cache=take)
    only_uploads(component)
    (tmp_path / "photo").touch()
    asyncio.run(component.async_move_resource_to_block_cache(str(tmp_path / "photo")))
    for address in ("https://example.org/a.png", str(tmp_path / "absent")):
        with pytest.raises(ValueError, match="only uploaded files"):
            asyncio.run(component.async_move_resource_to_block_cache(address))
    assert taken == [str(tmp_path / "photo")]


def test_every_answer_has_the_policy():
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})

    sent_messages = []

    async def send(message):
        sent_messages.append(message)

    for path, status in (("/", 200), ("/gradio_api/proxy=http://a", 403)):
        guarded = Guard(app)({"type": "http", "path": path}, None, send)
        with pytest.raises(StopIteration):
            guarded.send(None)
        start = next(m for m in reversed(sent_messages) if m["type"] == "http.response.start")
        assert start["status"] == status
        assert b"default-src 'self'" in dict(start["headers"])[b"content-security-policy"]
