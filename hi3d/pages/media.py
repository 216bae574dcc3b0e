"""Pictures, videos and meshes as part of a page."""

import base64
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from hi3d.pages.markup import Markup, element

MAX_MESH_BYTES = 48 << 20
"""Of all meshes of a page together: browsers hold each several times."""
MAX_PICTURE_HEIGHT = 256
MAX_STRIP_WIDTH = 8192
QUALITY = 88


@dataclass
class MeshBudget:
    """What a page holds of meshes, and what it has no room for."""

    max_bytes: int = MAX_MESH_BYTES
    used: int = 0
    left_out: list[str] = field(default_factory=list)
    """Names of the meshes for which there was no room."""

    def takes(self, name: str, num_bytes: int) -> bool:
        """Whether a mesh still fits; noted either way."""
        if self.used + num_bytes > self.max_bytes:
            self.left_out.append(name)
            return False
        self.used += num_bytes
        return True

    def note(self) -> Markup:
        """A line about what was left out; empty where nothing was."""
        if not self.left_out:
            return Markup("")
        names = ", ".join(self.left_out[:8]) + (" and more" if len(self.left_out) > 8 else "")
        return element(
            "p",
            f"{len(self.left_out)} meshes are left out, as a page holds "
            f"{self.max_bytes / (1 << 20):.3g} MB of them: {names}.",
            class_="note",
        )


def picture(path: str | Path, label: str, height: int = MAX_PICTURE_HEIGHT) -> Markup:
    """A figure with a picture, over white and at most so high; a line where it cannot be read.

    Args:
        path: of an image.
        label: shown below.
        height: in pixels.
    """
    try:
        with Image.open(path) as image:
            shown = _over_white(image)
    except (OSError, ValueError, Image.DecompressionBombError):
        return element("p", f"{label}: {Path(path).name} cannot be read", class_="note")
    return _figure([shown], label, height)


def strip(paths: Sequence[Path], label: str, height: int = 128) -> Markup:
    """A figure with pictures side by side, each of that height."""
    images = []
    for path in paths:
        with Image.open(path) as image:
            images.append(_over_white(image))
    return _figure(images, label, height)


def video(path: Path, label: str) -> Markup:
    """A figure with a video that plays by itself, again and again."""
    source = data_uri(path.read_bytes(), "video/mp4")
    player = element(
        "video", src=source, autoplay=True, loop=True, muted=True, playsinline=True, controls=True
    )
    return element("figure", player, element("figcaption", label))


def mesh(path: Path, label: str, budget: MeshBudget, together: str | None = None) -> Markup:
    """A figure with a mesh to turn by hand, as `hi3d.pages.document` shows it.

    Args:
        path: of a GLB file.
        label: shown below.
        budget: of the page; without room in it the figure is empty.
        together: meshes of one name turn together.
    """
    try:
        content = path.read_bytes()
    except OSError:
        return element("p", f"{label}: {path.name} cannot be read", class_="note")
    if not budget.takes(label, len(content)):
        return Markup("")
    held = element("script", Markup(_base64(content)), type="model/gltf-binary+base64")
    viewer = element(
        "model-viewer",
        camera_controls=True,
        interaction_prompt="none",
        touch_action="pan-y",
        camera_orbit="0deg 70deg auto",
        shadow_intensity="0",
        alt=label,
        data_together=together,
    )
    return element("figure", viewer, held, element("figcaption", label), class_="mesh")


def data_uri(content: bytes, kind: str) -> str:
    """Content as an address."""
    return f"data:{kind};base64,{_base64(content)}"


def sha256_of(path: Path) -> str:
    """Of a file's content, or that it is missing."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return "missing"


def _figure(images: Sequence[Image.Image], label: str, height: int) -> Markup:
    whole = _side_by_side([_at_most(image, height) for image in images])
    buffer = io.BytesIO()
    whole.save(buffer, "WEBP", quality=QUALITY)
    shown = element(
        "img",
        src=data_uri(buffer.getvalue(), "image/webp"),
        alt=label,
        width=whole.width,
        height=whole.height,
        loading="lazy",
    )
    return element("figure", element("div", shown, class_="scroll"), element("figcaption", label))


def _over_white(image: Image.Image) -> Image.Image:
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def _at_most(image: Image.Image, height: int) -> Image.Image:
    share = min(1.0, height / image.height, MAX_STRIP_WIDTH / image.width)
    size = max(1, round(image.width * share)), max(1, round(image.height * share))
    return image if share == 1.0 else image.resize(size, Image.Resampling.LANCZOS)


def _side_by_side(images: Sequence[Image.Image]) -> Image.Image:
    width = min(sum(image.width for image in images), MAX_STRIP_WIDTH)
    whole = Image.new("RGB", (max(1, width), max((i.height for i in images), default=1)), "white")
    left = 0
    for image in images:
        whole.paste(image, (left, 0))
        left += image.width
    return whole


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
