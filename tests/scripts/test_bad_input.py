"""Every kind of bad input: one clear line, exit code 2, nothing overwritten."""

import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]


def huge_png(path: Path) -> None:
    """A PNG that says 20,000 x 20,000 pixels and holds almost nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    data = zlib.compress(b"")
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def make_photo(kind: str, path: Path) -> None:
    if kind == "text":
        path.write_text("this is no image\n")
    elif kind == "tiny":
        Image.new("RGB", (10, 10), "red").save(path)
    elif kind == "transparent":
        Image.new("RGBA", (64, 64), (255, 0, 0, 0)).save(path)
    elif kind == "background":
        Image.new("RGB", (64, 64), (90, 120, 80)).save(path)
    elif kind == "huge":
        huge_png(path)
    elif kind == "good":
        pixels = np.zeros((64, 64, 4), np.uint8)
        pixels[16:48, 16:48] = (200, 30, 30, 255)
        Image.fromarray(pixels).save(path)
    else:
        assert kind == "missing"


@pytest.mark.parametrize("kind", ["text", "tiny", "transparent", "background", "huge", "missing"])
def test_bad_photo(kind, tmp_path, run_script):
    photo = tmp_path / "photo.png"
    make_photo(kind, photo)
    output = tmp_path / "out"
    code, _, message = run_script("generate.py", photo, "--output", output, "--quiet")
    assert code == 2
    assert message.startswith("error: ")
    assert len(message.strip().splitlines()) == 1
    assert "photo.png" in message
    assert not (output / "photo").exists()


@pytest.mark.parametrize("words", ["text_to_image=some/model", "drawing.seed=1"])
def test_what_draws_words_does_not_go_with_a_photo(words, tmp_path, run_script):
    code, _, line = run_script("generate.py", tmp_path / "cup.png", "--output", tmp_path, words)
    key = words.partition("=")[0].partition(".")[0]
    assert (code, line) == (
        2,
        f"error: {key} draws words, and photos are given: leave it out, or give --prompt TEXT in "
        "place of the photos\n",
    )


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("unwritable output", "choose another output folder"),
        ("no weights", "no model folder"),
        ("truncated weights", "missing or damaged"),
        ("misspelt key", "did you mean 'seed'"),
        ("wrong type", "many"),
        ("no config", "no config file"),
        ("results there", "resume=true"),
        ("wrong stage", "other stage"),
    ],
)
def test_bad_run(case, expected, tmp_path, tiny_models, run_script):
    photo = tmp_path / "photo.png"
    make_photo("good", photo)
    models = tmp_path / "models"
    shutil.copytree(tiny_models, models)
    output = tmp_path / "out"
    words: list[object] = [f"stage1={models / 'stage1'}", f"stage2={models / 'stage2'}"]
    if case == "unwritable output":
        (tmp_path / "file").write_text("")
        output = tmp_path / "file" / "out"
    elif case == "no weights":
        words.append(f"stage1={tmp_path / 'nowhere'}")
    elif case == "truncated weights":
        weights = models / "stage1" / "unet" / "diffusion_pytorch_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:4000])
    elif case == "misspelt key":
        words.append("sed=1")
    elif case == "wrong type":
        words.append("seed=many")
    elif case == "no config":
        words += ["--config", tmp_path / "none.yaml"]
    elif case == "results there":
        (output / "photo").mkdir(parents=True)
        (output / "photo" / "mesh.glb").write_text("precious")
    elif case == "wrong stage":
        words.append(f"stage1={models / 'stage2'}")
    code, _, message = run_script("generate.py", photo, "--output", output, *words, "--quiet")
    assert code == 2
    assert expected in message
    assert len(message.splitlines()) == 1, message
    if case == "results there":
        assert (output / "photo" / "mesh.glb").read_text() == "precious"


def test_bad_training(tmp_path, run_script):
    config = ROOT / "configs/nano/vae.yaml"
    for words in (
        ["--config", config, f"data.train={tmp_path}", f"trainer.output={tmp_path / 'o'}"],
        ["--config", config, "trainer.max_step=3"],
        [],
    ):
        code, _, message = run_script("train.py", *words, "--quiet")
        assert code == 2
        assert len(message.strip().splitlines()) == 1, message
