"""Pictures of a prompt by any text-to-image pipeline of diffusers, and the best cut-out of them."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from hi3d.config import check_number, check_path, check_seed, shortened
from hi3d.errors import InputError
from hi3d.photo.framing import ForegroundConfig, extract_foreground, load_photo
from hi3d.photo.matting import key_white_background, predict_matte
from hi3d.progress import track

TEMPLATE = (
    "{prompt}, a single whole object, centered, three-quarter view, plain white background, "
    "even light"
)
MAX_PROMPT = 1000
BLACK = 2 / 255
"""Below this largest value a picture is black, as safety checkers leave it."""


@dataclass
class DrawingConfig:
    """How the picture of a prompt is drawn."""

    template: str = TEMPLATE
    """What the model is told; {prompt} stands for the words."""
    negative_prompt: str = "cropped, several objects, text, shadow, pattern in the background"
    """What the picture must not show; left out for models that take none."""
    seed: int = 0
    """Of the first picture, 0 to 2^63 - 1; the next ones follow."""
    steps: int | None = None
    """Noise levels, 1 to 1000; null takes the model's own."""
    size: int | None = None
    """Side of the picture in pixels, a multiple of 8 32 to 4096; null takes the model's own."""
    pictures: int = 1
    """Drawn, 1 to 64; the one is taken whose object is whole and best centered."""

    def __post_init__(self) -> None:
        if "{prompt}" not in self.template:
            raise InputError("drawing.template has no {prompt}: write where the words go")
        check_seed(self.seed)
        check_number("drawing.pictures", self.pictures, 1, 64)
        if self.steps is not None:
            check_number("drawing.steps", self.steps, 1, 1000)
        if self.size is not None:
            check_number("drawing.size", self.size, 32, 4096)
            if self.size % 8:
                raise InputError(f"drawing.size is {self.size}: give a multiple of 8")


@dataclass
class TextToImage:
    """A text-to-image pipeline, loaded at the first prompt."""

    model: str
    """Local folder, or repository of the hub."""
    config: DrawingConfig = field(default_factory=DrawingConfig)
    _pipeline: Any = None

    def draw(self, prompt: str, foreground: ForegroundConfig) -> Image.Image:
        """The picture of a prompt whose object is whole and best centered.

        Args:
            prompt: the words.
            foreground: how the object will be cut out.

        Raises:
            InputError: the model cannot be had, memory is short, or no picture shows an object.
        """
        check_prompt(prompt)
        if self._pipeline is None:
            self._pipeline = load_text_to_image(self.model)
        best, best_score, fault = None, -1.0, ""
        for number in track(range(self.config.pictures), "text to image"):
            picture = self._picture(prompt, self.config.seed + number)
            try:
                score = wholeness(picture, foreground)
            except InputError as error:
                fault = str(error)
                continue
            if score > best_score:
                best, best_score = picture, score
        if best is None:
            raise InputError(
                f"no picture of '{shortened(prompt)}' shows an object ({fault}): set another "
                "drawing.seed, more drawing.pictures, or other words"
            )
        return best

    def _picture(self, prompt: str, seed: int) -> Image.Image:
        """One picture; where the GPU is too small, once more with the model in main memory."""
        try:
            return self._run(prompt, seed)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            self._pipeline.enable_sequential_cpu_offload()
        try:
            return self._run(prompt, seed)
        except torch.OutOfMemoryError as error:
            raise InputError(
                f"{self.model} does not fit into the GPU's memory: set a smaller drawing.size, or "
                "another text_to_image model"
            ) from error

    def _run(self, prompt: str, seed: int) -> Image.Image:
        # Through decorators: diffusers wraps every call.
        config, accepted = self.config, signature(self._pipeline.__call__).parameters
        options: dict[str, Any] = {
            "num_inference_steps": config.steps,
            "height": config.size,
            "width": config.size,
            "negative_prompt": config.negative_prompt or None,
            "generator": torch.Generator().manual_seed(seed % 2**63),
        }
        options = {k: v for k, v in options.items() if v is not None and k in accepted}
        words = config.template.replace("{prompt}", prompt)
        picture: Image.Image = self._pipeline(prompt=words, **options).images[0]
        return picture


def load_text_to_image(model: str) -> Any:
    """A text-to-image pipeline, on the GPU in half precision where there is one.

    Args:
        model: local folder, or repository of the hub.

    Raises:
        InputError: it is missing, gated, of another kind, or the network is down.
    """
    check_path("text_to_image", model)
    path = Path(model)
    if not path.is_dir() and (path.is_absolute() or model.count("/") != 1 or path.parent.is_dir()):
        raise InputError(f"no model folder at {model}: check text_to_image=FOLDER_OR_HUB_ID")
    from diffusers import AutoPipelineForText2Image  # slow: it imports a hundred pipelines

    cuda = torch.cuda.is_available()
    with _one_line(model):
        pipeline = AutoPipelineForText2Image.from_pretrained(
            model, torch_dtype=torch.float16 if cuda else torch.float32
        )
    pipeline.set_progress_bar_config(disable=True)
    try:
        return pipeline.to("cuda" if cuda else "cpu")
    except torch.OutOfMemoryError:
        pipeline.enable_model_cpu_offload()
        return pipeline


@contextmanager
def _one_line(model: str) -> Iterator[None]:
    """What the hub and diffusers raise, as an `InputError` with its remedy."""
    try:
        yield
    except (OSError, ValueError, RuntimeError, LookupError, TypeError, ImportError) as error:
        cause = " ".join(str(error).split())
        if "gated" in cause.lower() or "401" in cause or "403" in cause:
            fix = "it is gated or private: accept its licence on its page, then `hf auth login`"
        elif isinstance(error, ConnectionError) or re.search("(?i)connect|offline|resolve", cause):
            fix = "the hub cannot be reached: check the network, or give a local folder"
        else:
            fix = "give a text-to-image model in diffusers layout"
        raise InputError(f"cannot load {shortened(model)}: {fix} ({cause[:160]})") from error


def check_prompt(prompt: str) -> None:
    """Raise where a prompt has no words or is endless.

    Raises:
        InputError: it is empty or longer than 1000 characters.
    """
    if not prompt.strip() or len(prompt) > MAX_PROMPT:
        raise InputError(
            f"the prompt '{shortened(prompt)}' has {len(prompt.strip())} characters: "
            f"give 1 to {MAX_PROMPT}"
        )


def wholeness(picture: Image.Image, foreground: ForegroundConfig) -> float:
    """How whole and centered the object of a picture is: 1 in the middle, less 1 if cut off.

    Raises:
        InputError: the picture is black, or shows no object.
    """
    rgb, alpha = load_photo(picture)
    if float(rgb.max()) <= BLACK:
        raise InputError("the picture is black, as the model's safety checker leaves what it flags")
    extract_foreground(picture, foreground)
    if foreground.matting == "white":
        alpha = key_white_background(rgb)
    elif foreground.matting == "u2netp" or (foreground.matting == "auto" and alpha.min() > 0.99):
        alpha = predict_matte(rgb, foreground.weights_path, second_look=False)
    inside = alpha[0] > 0.5
    border = torch.cat([inside[0], inside[-1], inside[:, 0], inside[:, -1]])
    place = inside.nonzero().double().mean(0) / torch.tensor(inside.shape) - 0.5
    return 1 - float(place.norm()) - float(border.any())
