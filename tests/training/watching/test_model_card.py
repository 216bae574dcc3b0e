"""What a training's settings put into the card of its export."""

import pytest

from hi3d.nano.tasks import ALL_TASKS
from hi3d.training.tasks import load_experiment
from hi3d.training.watching.model_card import last_name, training_card
from tests.training.test_training import CONFIGS


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/home/someone/orbits/", "orbits"),
        ("https://host/path/index.json?key=secret", "index.json"),
        ("stabilityai/svd", "svd"),
    ],
)
def test_only_last_names_are_told(path, name):
    assert last_name(path) == name


def test_stage1_from_svd():
    words = ["data.train=/home/someone/orbits", "data.val=null", "trainer.output=/tmp/x"]
    experiment = load_experiment(CONFIGS / "stage1.yaml", words, ALL_TASKS)
    card = training_card(experiment, steps=12, world_size=8)
    batch = 8 * experiment.data.batch_size * experiment.trainer.accumulate
    assert card.kind == "stage1"
    assert card.facts["Steps"] == f"12 of {experiment.trainer.max_steps}, {batch} orbits each"
    assert "Orbits `orbits`, without validation" in card.training_data
    assert "/home" not in str(card)
    assert last_name(experiment.init_from) in card.license


def test_a_part_of_the_small_model():
    words = ["data.train=a/train", "data.val=a/val", "trainer.output=/tmp/x"]
    card = training_card(load_experiment(CONFIGS / "nano/vae.yaml", words, ALL_TASKS), 3)
    assert (card.kind, card.title) == ("part", "hi3d vae")
    assert "No weights of others" in card.license
    assert "validated on `val`" in card.training_data
