"""Trainings that are cut over processes train, save and export what one process does."""

import pytest
from safetensors.torch import load_file

from hi3d.errors import InputError
from hi3d.training.scaling.strategies import build_strategy
from tests.training.test_random_state import FEW_VIEWS, load, mean_distance
from tests.training.test_training import (
    CONFIGS,
    debug_experiment,
    debug_overrides,
    load_experiment,
    train,
)
from tests.training.training_process import finish, recorded, start_ranks

COMMON = [*FEW_VIEWS, "data.val=null", "optim.ema_decay=0.9", "optim.lr=1e-3"]


def test_fsdp_equals_one_process(orbits, tiny_models, tmp_path):
    def sharded(*more: str) -> list[int | None]:
        more = (*COMMON, "data.batch_size=1", "trainer.strategy=fsdp", *more)
        settings = debug_overrides("stage1.yaml", orbits, tiny_models, tmp_path / "cut", *more)
        words = ["--config", CONFIGS / "stage1.yaml", *settings]
        logs = [tmp_path / "rank0.log", tmp_path / "rank1.log"]
        return [finish(process) for process in start_ranks(words, logs)]

    assert sharded("trainer.max_steps=1") == [0, 0], (tmp_path / "rank0.log").read_text()
    assert sharded("trainer.max_steps=2", "resume=last") == [0, 0]
    more = [*COMMON, "data.batch_size=2", "trainer.max_steps=2"]
    train(debug_experiment("stage1.yaml", orbits, tiny_models, tmp_path / "one", *more))
    cut, one = load(tmp_path / "cut"), load(tmp_path / "one")
    assert mean_distance(cut["state_dict"], one["state_dict"]) < 1e-5
    assert mean_distance(cut["ema"]["average"], one["ema"]["average"]) < 1e-5
    names = [tmp_path / run / "model/unet" for run in ("cut", "one")]
    first, second = (load_file(next(name.glob("*.safetensors"))) for name in names)
    assert mean_distance(first, second) < 1e-5
    assert [entry["step"] for entry in recorded(tmp_path / "rank1.log")] == [0, 1]


def test_deepspeed_tells_what_it_needs(monkeypatch):
    monkeypatch.setattr("hi3d.training.scaling.strategies.find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"pip install 'hi3d\[deepspeed\]'"):
        build_strategy("deepspeed_zero2")
    assert build_strategy("ddp") == "ddp"
    with pytest.raises(InputError, match="fsdp"):
        load_experiment(
            CONFIGS / "stage1.yaml", ["optim.ema_decay=0.9", "trainer.strategy=deepspeed_zero2"]
        )
