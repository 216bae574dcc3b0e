"""Every model folder tells what it is, what it was made from, its license and its limits."""

import json
from pathlib import Path

import pytest

from hi3d.diffusion.folders.model_card import LOADING, ModelCard, converted_card, write_model_card

SECTIONS = ["Training data", "Training", "License", "Limits", "How to load"]
SHIPPED = sorted((Path(__file__).parents[2] / "data/models").glob("*/*/model_index.json"))


def sections(text: str) -> dict[str, str]:
    """The text under every heading of a card."""
    parts = text.split("\n## ")[1:]
    return {part.partition("\n")[0]: part.partition("\n")[2].strip() for part in parts}


def write(folder: Path, card: ModelCard, **networks: list) -> str:
    index = {"_class_name": "X", "resolution": 16, **networks}
    (folder / "model_index.json").write_text(json.dumps(index))
    write_model_card(folder, card)
    return (folder / "README.md").read_text()


@pytest.mark.parametrize("source", ["official-stage1", "official-stage2", "svd"])
def test_converted_folders_name_their_origin_and_its_license(tmp_path, source):
    text = write(
        tmp_path, converted_card(source, "first_stage.pt"), unet=["a", "B"], vae=["a", "C"]
    )
    found = sections(text)
    assert list(found) == SECTIONS
    assert all(found.values())
    assert "`first_stage.pt`" in found["Training"]
    assert "`unet`, `vae`" in found["Training"]
    assert "Stability AI" in found["License"]
    assert text.startswith("---\nlicense: other\n")


def test_networks_that_are_absent_are_not_named(tmp_path):
    card = ModelCard("T", "W", "part", "D")
    text = write(tmp_path, card, depth_estimator=["a", "B"], elevation_estimator=[None, None])
    assert "elevation_estimator" not in text
    assert 'load_network("FOLDER", "depth_estimator")' in text


@pytest.mark.parametrize("kind", LOADING)
def test_the_lines_that_load_are_python(kind):
    compile(LOADING[kind].format(path="FOLDER", part="vae"), kind, "exec")


@pytest.mark.parametrize("index", SHIPPED, ids=lambda path: path.parent.name)
def test_shipped_folders_have_a_card_that_names_their_networks(index):
    text = (index.parent / "README.md").read_text()
    found = sections(text)
    assert list(found) == SECTIONS
    assert all(found.values())
    for name, value in json.loads(index.read_text()).items():
        assert not isinstance(value, list) or f"`{name}`" in found["Training"]
    assert text.startswith("---\nlicense: apache-2.0\n")
    assert SHIPPED
