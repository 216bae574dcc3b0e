"""The README.md of a model folder: what it is, what it was made from, license and limits."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from hi3d.files import atomic_path

LOADING = {
    "stage1": """import hi3d

config = hi3d.load_config(hi3d.GenerateConfig, "configs/generate.yaml", ["stage1={path}"])
result = hi3d.image_to_3d("PHOTO", config)""",
    "stage2": """import hi3d

config = hi3d.load_config(hi3d.GenerateConfig, "configs/generate.yaml", ["stage2={path}"])
result = hi3d.image_to_3d("PHOTO", config)""",
    "svd": """from diffusers import StableVideoDiffusionPipeline

pipeline = StableVideoDiffusionPipeline.from_pretrained("{path}")""",
    "part": """from hi3d.diffusion.weights import load_network

network = load_network("{path}", "{part}")""",
}
"""How a folder of each kind is loaded."""


@dataclass(frozen=True)
class ModelCard:
    """What a user has to know of a model folder before using it."""

    title: str
    what: str
    """One paragraph: what goes in and what comes out."""
    kind: str
    """`stage1`, `stage2`, `svd`, or `part` for a folder of networks that are no pipeline."""
    training_data: str
    facts: dict[str, str] = field(default_factory=dict)
    """Steps, resolution and the like, by name."""
    license: str = ""
    """Of the weights, one paragraph."""
    license_id: str = "other"
    """As the hub knows it."""
    limits: tuple[str, ...] = ()


def card_text(card: ModelCard, index: dict[str, object]) -> str:
    """The card as Markdown, with the header that the hub reads.

    Args:
        card: what is told.
        index: contents of the folder's `model_index.json`, which names its networks.
    """
    parts = [name for name, value in index.items() if isinstance(value, list) and value[0]]
    library = "diffusers" if card.kind == "svd" else "hi3d"
    header = [f"license: {card.license_id}", f"library_name: {library}"]
    header += ["pipeline_tag: image-to-3d"] if card.kind.startswith("stage") else []
    loading = LOADING[card.kind].format(path="FOLDER", part=parts[0] if parts else "NAME")
    facts = {**card.facts, "Networks": ", ".join(f"`{name}`" for name in parts)}
    sections = {
        "Training data": card.training_data,
        "Training": "\n".join(f"- {name}: {value}" for name, value in facts.items()),
        "License": card.license,
        "Limits": "\n".join(f"- {line}" for line in card.limits),
        "How to load": f"```python\n{loading}\n```",
    }
    body = "\n\n".join(f"## {name}\n\n{text}" for name, text in sections.items())
    front = "\n".join(["---", *header, "---"])
    return f"{front}\n\n# {card.title}\n\n{card.what}\n\n{body}\n"


def write_model_card(folder: str | Path, card: ModelCard) -> None:
    """Write `README.md` into a model folder that is otherwise complete.

    Args:
        folder: holds `model_index.json`.
        card: what is told.
    """
    index = json.loads((Path(folder) / "model_index.json").read_text())
    with atomic_path(Path(folder) / "README.md") as partial:
        partial.write_text(card_text(card, index))


STAGE1 = "One photo of an object goes in, 16 views of an orbit around it come out."
STAGE2 = (
    "16 views of an orbit around an object go in with the photo, the same views come out at twice "
    "the resolution."
)
SVD_LICENSE = (
    "The weights began as Stable Video Diffusion's, and Stability AI's license goes with them: "
    "read it before any use, first of all a commercial one. What the authors of the checkpoint "
    "ask for comes on top."
)
UNSEEN = "What the photo does not show is guessed, and another seed guesses otherwise."
ONE_OBJECT = "One object, centered, before a background that can be cut away; no scenes."
"""Of both stages, whoever trained them."""


def converted_card(source: str, name: str) -> ModelCard:
    """The card of a released checkpoint that was written as a model folder.

    Args:
        source: `official-stage1`, `official-stage2` or `svd`.
        name: of the file or folder that was converted.
    """
    facts = {"Converted from": f"`{name}`, as released; no weight was changed or trained further"}
    if source == "svd":
        return ModelCard(
            "Stable Video Diffusion, converted",
            "A picture goes in, a short video that begins with it comes out; trainings start here.",
            "svd",
            "Stability AI's video collection, as its model card describes it.",
            facts,
            SVD_LICENSE,
            limits=("As Stability AI's model card says; it knows no orbits.",),
        )
    stage = source.removeprefix("official-")
    return ModelCard(
        f"Hi3D, released {stage}, converted",
        STAGE1 if stage == "stage1" else STAGE2,
        stage,
        "Renders of Objaverse objects, by the authors of Hi3D (ACM MM 2024, "
        "https://doi.org/10.1145/3664647.3681634); the objects have licenses of their own.",
        facts,
        SVD_LICENSE,
        limits=(
            ONE_OBJECT,
            UNSEEN,
            "The conditions are those of the released code, not the paper's.",
        ),
    )
