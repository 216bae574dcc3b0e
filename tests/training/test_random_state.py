"""What is drawn, and what it is a function of: resumed, killed and distributed trainings."""

import random
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from hi3d.training.random_state import BatchPosition, draw_generator
from tests.training.test_training import (
    CONFIGS,
    build_module,
    debug_experiment,
    debug_overrides,
    train,
)
from tests.training.training_process import TIMEOUT_S, finish, recorded, start, start_ranks

COMMON = ["data.batch_size=1", "optim.ema_decay=0.99", "optim.schedule=constant"]
FEW_VIEWS = ["data.num_views=4"]  # is enough for the paper's stages, and faster
KEPT = ("state_dict", "optimizer_states", "lr_schedulers", "ema", "OrbitDataModule")


def load(run: Path) -> dict[str, Any]:
    return torch.load(run / "checkpoints/last.ckpt", weights_only=True)


def assert_same(first: Any, second: Any) -> None:
    assert type(first) is type(second)
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second)
    elif isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_same(first[key], second[key])
    elif isinstance(first, list | tuple):
        assert len(first) == len(second)
        for one, two in zip(first, second, strict=True):
            assert_same(one, two)
    else:
        assert first == second


def mean_distance(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    """Of all weights; where a gradient is about 0 Adam's first steps have a sign by chance."""
    assert first.keys() == second.keys()
    return torch.cat([(first[name] - second[name]).abs().flatten() for name in first]).mean().item()


def test_draws_depend_on_each_part_of_their_key():
    keys = [
        (0, "noise", "train", 3, 0),
        (1, "noise", "train", 3, 0),
        (0, "sigma", "train", 3, 0),
        (0, "noise", "validation", 3, 0),
        (0, "noise", "train", 4, 0),
        (0, "noise", "train", 3, 1),
    ]
    draws = [torch.randn(4, generator=draw_generator(*key)).tolist() for key in keys]
    assert len({tuple(draw) for draw in draws}) == len(keys)
    assert torch.randn(4, generator=draw_generator(*keys[0])).tolist() == draws[0]


def test_no_two_orbits_of_a_step_draw_alike():
    firsts = [BatchPosition.of_training(7, m, r, 3, 2).first for m in range(2) for r in range(3)]
    assert firsts == [0, 2, 4, 6, 8, 10]
    # Two processes with two orbits draw what one with four draws.
    apart = [BatchPosition.of_training(7, 0, r, 2, 2).generators(0, "noise", 2) for r in range(2)]
    together = BatchPosition.of_training(7, 0, 0, 1, 4).generators(0, "noise", 4)
    seeds = [generator.initial_seed() for generator in together]
    assert [generator.initial_seed() for pair in apart for generator in pair] == seeds
    assert len(set(seeds)) == 4
    validation = BatchPosition.of_validation(0, 0, 1, 4).generators(0, "noise", 4)
    assert not {generator.initial_seed() for generator in validation} & set(seeds)


@pytest.mark.parametrize(
    ("config", "more"),
    [
        ("stage1.yaml", [*FEW_VIEWS, "trainer.accumulate=2"]),
        ("stage2.yaml", FEW_VIEWS),
        ("nano/stage2.yaml", ["stage1_share=0.5"]),
    ],
)
def test_ten_steps_equal_five_and_five(config, more, orbits, tiny_models, tmp_path):
    def run(name: str, steps: int, *words: str) -> None:
        words = (*COMMON, *more, "trainer.checkpoint_every=4", f"trainer.max_steps={steps}", *words)
        train(debug_experiment(config, orbits, tiny_models, tmp_path / name, *words))

    run("whole", 10, "data.val=null")
    run("parts", 5, "trainer.val_every=3", "trainer.val_batches=1")  # changes no draw
    torch.manual_seed(99)
    run("parts", 10, "data.val=null", "resume=last")
    whole, parts = load(tmp_path / "whole"), load(tmp_path / "parts")
    for part in KEPT:
        assert_same(whole[part], parts[part])


@pytest.mark.parametrize(
    ("config", "least_steps"), [("stage1.yaml", (0, 1, 3, 7)), ("stage2.yaml", (1, 7))]
)
def test_killed_at_random_moments(config, least_steps, orbits, tiny_models, tmp_path):
    def words(name: str) -> list[str]:
        settings = [*COMMON, *FEW_VIEWS, "data.val=null"]
        settings += ["trainer.max_steps=14", "trainer.checkpoint_every=1"]
        settings = debug_overrides(config, orbits, tiny_models, tmp_path / name, *settings)
        return ["--config", CONFIGS / config, *settings]

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert finish(start(words("whole"), tmp_path / "whole.log")) == 0
    moments, steps = random.Random(0), []
    for least in least_steps:
        process = start([*words("killed"), "resume=last"], tmp_path / "killed.log")
        until = time.monotonic() + TIMEOUT_S
        while time.monotonic() < until and process.is_alive():
            done = [int(p.stem[5:]) for p in (killed / "checkpoints").glob("step=*.ckpt")]
            if killed.exists() and max(done, default=0) >= least:
                break
            time.sleep(0.005)
        time.sleep(moments.random() * 0.2)
        process.kill()
        process.join()
        steps.append(
            load(killed)["global_step"] if (killed / "checkpoints/last.ckpt").exists() else 0
        )
    assert finish(start([*words("killed"), "resume=last"], tmp_path / "killed.log")) == 0
    assert len(set(steps)) >= len(least_steps) - 1
    assert steps[-1] < 14, steps
    first, second = load(whole), load(killed)
    for part in KEPT:
        assert_same(first[part], second[part])
    assert not list((killed / "checkpoints").glob(".*"))


@pytest.mark.parametrize("config", ["stage1.yaml", "stage2.yaml"])
def test_two_processes_train_as_one_with_both_batches(config, orbits, tiny_models, tmp_path):
    def words(name: str, *more: str) -> list[str]:
        more = (*FEW_VIEWS, "optim.lr=1e-3", "trainer.max_steps=4", "data.val=null", *more)
        settings = debug_overrides(config, orbits, tiny_models, tmp_path / name, *more)
        return ["--config", CONFIGS / config, *settings]

    logs = [tmp_path / "rank0.log", tmp_path / "rank1.log"]
    two = start_ranks(words("two", "data.batch_size=1", "trainer.strategy=ddp"), logs)
    one = start(words("one", "data.batch_size=2"), tmp_path / "one.log")
    assert [finish(process) for process in (*two, one)] == [0, 0, 0]
    first, second = (recorded(log) for log in logs)
    assert not {entry["noise"] for entry in first} & {entry["noise"] for entry in second}
    for both, zero, other in zip(recorded(tmp_path / "one.log"), first, second, strict=True):
        assert both["uids"] == zero["uids"] + other["uids"]
        assert (zero["loss"] + other["loss"]) / 2 == pytest.approx(both["loss"], rel=1e-4)
    assert len({entry["loss"] for entry in first}) == 4
    weights, expected = (load(tmp_path / run)["state_dict"] for run in ("two", "one"))
    assert mean_distance(weights, expected) < 1e-5  # four steps of 1e-3 move them by far more


def test_validation_draws_alike_every_time(orbits, tiny_models, tmp_path):
    module = build_module(debug_experiment("nano/stage1.yaml", orbits, tiny_models, tmp_path))
    module.position = BatchPosition.of_validation(1, 0, 1, 2)
    latents = torch.zeros(2, 16, 4, 2, 2)
    first = module.noise(latents)
    torch.manual_seed(5)
    assert torch.equal(module.noise(latents), first)
    module.position = BatchPosition.of_validation(2, 0, 1, 2)
    assert not torch.equal(module.noise(latents), first)
