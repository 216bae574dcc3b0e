"""Words to textured meshes: a picture of each prompt, then the chain."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hi3d.config import check_path
from hi3d.errors import InputError
from hi3d.files import atomic_path, make_folder, regular_file
from hi3d.pipelines.image_to_3d import GenerateConfig, check_models
from hi3d.pipelines.many.generate import generate
from hi3d.pipelines.run_folder import check_output
from hi3d.text_to_image.drawing import DrawingConfig, TextToImage, check_prompt

PICTURES = "drawn"
"""Sub-folder of the output with the pictures that are the runs' photos."""
MAX_SLUG = 60
MAX_PROMPTS = 10_000


@dataclass
class PromptConfig(GenerateConfig):
    """Settings of `scripts/generate.py --prompt`."""

    text_to_image: str | None = None
    """Model that draws the prompt: a diffusers text-to-image folder or id of the hub."""
    drawing: DrawingConfig = field(default_factory=DrawingConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.text_to_image is not None:
            check_path("text_to_image", self.text_to_image)


def generate_from_words(prompts: Sequence[str], output: str, config: PromptConfig) -> list[Path]:
    """Make a textured mesh of every prompt, each in its own folder of `output`.

    Args:
        prompts: words; those of `a red cup` go to `output/a-red-cup/`, the picture that was drawn
            to `output/drawn/a-red-cup.png`.
        output: folder.
        config: settings; with `resume` pictures that are there are taken as they are.

    Returns:
        The folders.

    Raises:
        InputError: something is wrong with the settings, the output, the model or a prompt; with
            several prompts the good ones are finished first.
    """
    if config.dry_run:
        return generate([], output, config)
    check_models(config)
    check_output(Path(output))
    if config.text_to_image is None:
        raise InputError("no model draws the prompt: set text_to_image=FOLDER_OR_HUB_ID")
    for prompt in prompts:
        check_prompt(prompt)
    artist = TextToImage(config.text_to_image, config.drawing)
    folders, errors = [], []
    for name, prompt in slugs(prompts).items():
        picture = Path(output) / PICTURES / f"{name}.png"
        try:
            if not (config.resume and picture.is_file()):
                drawn = artist.draw(prompt, config.foreground)
                make_folder(picture.parent)
                with atomic_path(picture) as partial:
                    drawn.save(partial)
            folders += generate([str(picture)], output, config)
        except InputError as error:
            errors.append(str(error))
    if errors:
        raise InputError("; ".join(dict.fromkeys(errors)))
    return folders


def slugs(prompts: Sequence[str]) -> dict[str, str]:
    """Names of folders, in small ASCII letters, unique and safe, each with its prompt."""
    named: dict[str, str] = {}
    for prompt in prompts:
        words = re.sub(r"[^a-z0-9]+", "-", prompt.lower())[:MAX_SLUG].strip("-") or "prompt"
        number, name = 1, words
        while name in named or name == PICTURES:
            number += 1
            name = f"{words}-{number}"
        named[name] = prompt
    return named


def read_prompts(path: str | Path) -> list[str]:
    """The prompts of a text file, one a line; empty lines and those that begin with # are none.

    Raises:
        InputError: the file is missing, no text, or holds no prompt or too many.
    """
    check_path("--prompts", path)
    try:
        lines = regular_file(path).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no readable text file: give one prompt a line") from error
    prompts = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not 1 <= len(prompts) <= MAX_PROMPTS:
        raise InputError(
            f"{path} holds {len(prompts)} prompts: give 1 to {MAX_PROMPTS}, one a line"
        )
    return prompts
