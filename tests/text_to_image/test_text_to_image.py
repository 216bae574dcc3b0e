"""Words to a picture with a tiny random pipeline, and what may go wrong on the way."""

import json

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from hi3d.config import load_config
from hi3d.errors import InputError
from hi3d.photo.framing import ForegroundConfig
from hi3d.text_to_image import drawing, generate
from hi3d.text_to_image.drawing import DrawingConfig, TextToImage, load_text_to_image, wholeness
from hi3d.text_to_image.generate import PromptConfig, generate_from_words, read_prompts, slugs
from tests.pipelines.tiny_settings import TINY

WHITE = ForegroundConfig(matting="white")


def disc(center=(32, 32), radius=18) -> Image.Image:
    y, x = np.mgrid[:64, :64]
    pixels = np.full((64, 64, 3), 255, np.uint8)
    pixels[(y - center[0]) ** 2 + (x - center[1]) ** 2 < radius**2] = (200, 30, 30)
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def tiny_artist(tmp_path_factory) -> str:
    """A Stable Diffusion folder with random weights."""
    from diffusers import (
        AutoencoderKL,
        DDIMScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    folder = tmp_path_factory.mktemp("artist")
    letters = [chr(code) for code in range(33, 127)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77
    )
    torch.manual_seed(0)
    pipeline = StableDiffusionPipeline(
        AutoencoderKL(block_out_channels=(32,), latent_channels=4),
        CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(words), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                num_attention_heads=2,
            )
        ),
        tokenizer,
        UNet2DConditionModel(
            16, block_out_channels=(32,), layers_per_block=1, cross_attention_dim=16,
            down_block_types=("CrossAttnDownBlock2D",), up_block_types=("CrossAttnUpBlock2D",),
        ),
        DDIMScheduler(), None, None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.save_pretrained(folder / "model")
    return str(folder / "model")


def test_a_folder_draws_and_the_seed_decides(tiny_artist):
    config = DrawingConfig(seed=1, steps=1, size=64)
    pipeline = load_text_to_image(tiny_artist)
    pictures = [
        np.asarray(TextToImage(tiny_artist, config, pipeline)._picture("a cup", seed))
        for seed in (1, 1, 2)
    ]
    assert pictures[0].shape == (64, 64, 3)
    assert (pictures[0] == pictures[1]).all()
    assert (pictures[0] != pictures[2]).any()


class Artist:
    """Draws given pictures in turn."""

    def __init__(self, *pictures):
        self.pictures, self.told = list(pictures), []

    def __call__(self, prompt, negative_prompt=None, num_inference_steps=None, generator=None):
        self.told.append((prompt, negative_prompt, num_inference_steps, generator.initial_seed()))
        picture = self.pictures.pop(0)
        if isinstance(picture, Exception):
            raise picture
        return type("Output", (), {"images": [picture]})

    def enable_sequential_cpu_offload(self):
        self.told.append("offload")


def test_the_whole_and_centered_picture_is_taken():
    cut_off, black, whole = disc((5, 32)), Image.new("RGB", (64, 64)), disc()
    artist = Artist(cut_off, black, whole, disc((40, 40)))
    config = DrawingConfig(template="<{prompt}>", negative_prompt="b", seed=7, steps=3, pictures=4)
    assert TextToImage("m", config, artist).draw("{cup}", WHITE) is whole
    assert artist.told == [("<{cup}>", "b", 3, seed) for seed in (7, 8, 9, 10)]
    assert wholeness(whole, WHITE) > 0.95 > 0.5 > wholeness(cut_off, WHITE)


def test_black_and_empty_pictures_are_one_line():
    for picture, line in ((Image.new("RGB", (64, 64)), "safety checker"),
                          (Image.new("RGB", (64, 64), "white"), "uniform")):  # fmt: skip
        with pytest.raises(InputError, match=rf"no picture of 'a cup'.*{line}.*drawing\.seed"):
            TextToImage("m", DrawingConfig(), Artist(picture)).draw("a cup", WHITE)


def test_short_memory_offloads_once_then_is_one_line():
    short = torch.OutOfMemoryError("CUDA out of memory")
    artist, whole = Artist(short, disc()), DrawingConfig()
    assert TextToImage("m", whole, artist).draw("cup", WHITE).size == (64, 64)
    assert artist.told[1] == "offload"
    with pytest.raises(InputError, match=r"memory: set a smaller drawing\.size"):
        TextToImage("m", whole, Artist(short, short)).draw("cup", WHITE)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError("You are trying to access a gated repo. 401"), "accept its licence"),
        (OSError("We couldn't connect to 'https://huggingface.co'"), "check the network"),
        (ValueError("AutoPipeline can't find a pipeline"), "text-to-image model"),
    ],
)
def test_what_the_hub_says_is_one_line(monkeypatch, error, line):
    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(diffusers.AutoPipelineForText2Image, "from_pretrained", refuse)
    with pytest.raises(InputError, match=line):
        load_text_to_image("some/model")


def test_wrong_models_prompts_and_settings(tmp_path):
    with pytest.raises(InputError, match="no model folder"):
        load_text_to_image(str(tmp_path / "nowhere"))
    for word in ("template=cup", "seed=-1", "pictures=0", "steps=0", "size=100", "size=0"):
        with pytest.raises(InputError, match=r"drawing|seed"):
            load_config(PromptConfig, None, [f"drawing.{word}"])
    with pytest.raises(InputError, match="characters"):
        drawing.check_prompt("  ")
    (tmp_path / "prompts").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="text file"):
        read_prompts(tmp_path / "prompts")
    (tmp_path / "prompts").write_text("# none\n\n")
    with pytest.raises(InputError, match="0 prompts"):
        read_prompts(tmp_path / "prompts")
    (tmp_path / "prompts").write_text("# two\na cup\n\n  a chair \n")
    assert read_prompts(tmp_path / "prompts") == ["a cup", "a chair"]


def test_slugs_are_unique_and_safe():
    named = slugs(["A red cup!", "a red cup", "../../etc/passwd", "Tasse (größer)", "杯", "drawn"])
    assert list(named) == [
        "a-red-cup", "a-red-cup-2", "etc-passwd", "tasse-gr-er", "prompt", "drawn-2",
    ]  # fmt: skip
    assert max(map(len, slugs(["a " * 500]))) <= 60


def test_words_to_a_mesh_and_on(tiny_models, tmp_path, monkeypatch):
    artist = Artist(disc(), Image.new("RGB", (64, 64), "white"))
    monkeypatch.setattr(drawing, "load_text_to_image", lambda model: artist)
    models = [f"stage1={tiny_models / 'stage1'}", f"stage2={tiny_models / 'stage2'}"]
    words = [*TINY, *models, "foreground.matting=white", "text_to_image=m"]
    config = load_config(PromptConfig, None, words)
    with pytest.raises(InputError, match="no picture of 'a void'"):
        generate_from_words(["a red disc", "a void"], str(tmp_path / "out"), config)
    folder = tmp_path / "out/a-red-disc"
    assert (folder / "mesh.glb").is_file()
    assert (tmp_path / "out/drawn/a-red-disc.png").is_file()
    again = load_config(PromptConfig, None, [*words, "resume=true"])
    assert generate_from_words(["a red disc"], str(tmp_path / "out"), again) == [folder]
    assert len(artist.told) == 2
    with pytest.raises(InputError, match="text_to_image="):
        generate.generate_from_words(["a"], str(tmp_path), load_config(PromptConfig, None, models))
