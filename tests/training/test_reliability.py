"""Trainings that are resumed, killed, damaged, interrupted or meet numbers that are none."""

import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from hi3d.errors import InputError
from hi3d.training.callbacks import StepProgress
from hi3d.training.checkpoints import KeepCheckpoints, fault, find_checkpoint
from hi3d.training.interruption import NonFiniteError
from hi3d.training.module import TrainingModule
from hi3d.training.random_state import draw_generator

sys.path.insert(0, str(Path(__file__).parent))
from test_training import build_module, debug_experiment, train


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


def test_draws_depend_on_each_part_of_their_key():
    keys = [
        (0, "noise", 3, 0, 0),
        (1, "noise", 3, 0, 0),
        (0, "sigma", 3, 0, 0),
        (0, "noise", 4, 0, 0),
        (0, "noise", 3, 1, 0),
        (0, "noise", 3, 0, 1),
    ]
    draws = [torch.randn(4, generator=draw_generator(*key)).tolist() for key in keys]
    assert len({tuple(draw) for draw in draws}) == len(keys)
    assert torch.randn(4, generator=draw_generator(*keys[0])).tolist() == draws[0]


@pytest.mark.parametrize("config", ["nano/stage1.yaml", "nano/stage2.yaml", "stage1.yaml"])
def test_twenty_steps_equal_ten_and_ten(config, orbits, tiny_models, tmp_path):
    common = ["data.batch_size=1", "optim.ema_decay=0.99", "optim.schedule=constant"]
    common += ["trainer.checkpoint_every=7", "trainer.accumulate=1"]

    def run(name: str, steps: int, *more: str) -> None:
        more = (*common, f"trainer.max_steps={steps}", *more)
        train(debug_experiment(config, orbits, tiny_models, tmp_path / name, *more))

    run("whole", 20, "trainer.val_every=20")
    run("parts", 10, "trainer.val_every=3")  # validation must not change what is drawn
    torch.manual_seed(99)
    run("parts", 20, "trainer.val_every=3", "resume=last")
    whole, parts = load(tmp_path / "whole"), load(tmp_path / "parts")
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "ema", "OrbitDataModule"):
        assert_same(whole[part], parts[part])


def test_checkpoint_says_where_it_comes_from(orbits, tiny_models, tmp_path):
    more = ("optim.ema_decay=0.9", "seed=5")
    train(debug_experiment("nano/stage1.yaml", orbits, tiny_models, tmp_path / "run", *more))
    checkpoint = load(tmp_path / "run")
    assert checkpoint["hi3d"]["config"]["optim"]["ema_decay"] == 0.9
    assert (checkpoint["hi3d"]["seed"], checkpoint["hi3d"]["step"]) == (5, 2)
    assert "git_revision" in checkpoint["hi3d"]
    assert "shadow_params" in checkpoint["ema"]
    names = sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir())
    assert names == ["last.ckpt", "step=00000001.ckpt"]  # the one before is kept


@pytest.mark.parametrize("kind", ["truncated", "empty", "foreign", "code", "folder", "missing"])
def test_bad_last_checkpoint(kind, orbits, tiny_models, tmp_path, capsys):
    class Payload:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'executed'}",)

    def experiment(*more):
        return debug_experiment("nano/vae.yaml", orbits, tiny_models, tmp_path / "run", *more)

    train(experiment())
    folder = tmp_path / "run/checkpoints"
    last, previous = folder / "last.ckpt", folder / "step=00000001.ckpt"
    data = last.read_bytes()
    last.unlink()
    if kind in ("truncated", "empty"):
        last.write_bytes(data[: len(data) // 2] if kind == "truncated" else b"")
    elif kind == "folder":
        last.mkdir()
    elif kind == "foreign":
        other = torch.load(previous, weights_only=True)
        other["state_dict"] = {"network.other": torch.zeros(3)}
        torch.save(other, last)
    elif kind == "code":
        torch.save({"state_dict": Payload()}, last)
    network = build_module(experiment()).network
    found = find_checkpoint("last", folder, network)
    assert found == str(previous)
    assert not (tmp_path / "executed").exists()
    if kind not in ("missing",):
        assert previous.name in "".join(capsys.readouterr().err.split())
        with pytest.raises(InputError, match=r"last\.ckpt"):
            find_checkpoint(str(last), folder, network)
    previous.unlink()
    if kind == "missing":
        assert find_checkpoint("last", folder, network) is None  # killed before the first
    else:
        with pytest.raises(InputError, match=r"last\.ckpt"):
            find_checkpoint("last", folder, network)


def test_pickle_is_no_checkpoint(tmp_path):
    (tmp_path / "x.ckpt").write_bytes(pickle.dumps({"state_dict": {}}))
    assert fault(tmp_path / "x.ckpt", torch.nn.Linear(1, 1)) is not None


def test_killed_before_the_first_checkpoint(orbits, tiny_models, tmp_path):
    for name, more in (("a", []), ("b", ["resume=last"])):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
        train(debug_experiment("nano/vae.yaml", orbits, tiny_models, tmp_path / name, *more))
        assert load(tmp_path / name)["global_step"] == 2


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("moment", ["on_train_batch_end", "on_validation_start"])
def test_signals_leave_a_checkpoint(
    number, code, moment, orbits, tiny_models, tmp_path, monkeypatch
):
    def experiment(*more):
        more = ("optim.ema_decay=0.5", "trainer.max_steps=4", "data.batch_size=1", *more)
        more = ("trainer.checkpoint_every=3", "optim.schedule=constant", *more)
        return debug_experiment("nano/stage1.yaml", orbits, tiny_models, tmp_path / "run", *more)

    weights = {}

    def strike(callback, trainer, module, *_):
        if trainer.global_step == 2 and not weights:
            weights.update({k: v.clone() for k, v in module.network.state_dict().items()})
            if module.average_is_in:
                stored = module.ema.temp_stored_params
                names = [name for name, _ in module.network.named_parameters()]
                weights.update(zip(names, stored, strict=True))
            os.kill(os.getpid(), number)

    with monkeypatch.context() as patch:
        patch.setattr(StepProgress, moment, strike)
        with pytest.raises((KeyboardInterrupt, SystemExit)) as caught:
            train(experiment())
    assert code == (130 if caught.type is KeyboardInterrupt else caught.value.code)
    checkpoint = load(tmp_path / "run")
    assert checkpoint["global_step"] == 2
    for name, value in weights.items():  # the trained ones, not their average
        assert torch.equal(checkpoint["state_dict"][f"network.{name}"], value.cpu())
    train(experiment("resume=last"))
    train(experiment("trainer.output=" + str(tmp_path / "whole")))
    assert_same(load(tmp_path / "run")["state_dict"], load(tmp_path / "whole")["state_dict"])


def test_loss_that_is_no_number(orbits, tiny_models, tmp_path):
    def experiment(*more):
        more = ("diffusion.sigma_log_mean=.nan", "trainer.max_steps=9", *more)
        return debug_experiment("nano/stage1.yaml", orbits, tiny_models, tmp_path / "run", *more)

    with pytest.raises(NonFiniteError, match="3 steps in a row"):
        train(experiment("optim.max_skipped=3", "trainer.val_every=9"))
    assert not (tmp_path / "run/model").exists()


def test_one_bad_step_is_skipped(orbits, tiny_models, tmp_path, monkeypatch):
    step, seen = TrainingModule.on_before_optimizer_step, []

    def spoil(module, optimizer):
        if module.trainer.global_step == 1:
            next(module.network.parameters()).grad.fill_(torch.inf)
        seen.append([p.detach().clone() for p in module.network.parameters()])
        step(module, optimizer)

    monkeypatch.setattr(TrainingModule, "on_before_optimizer_step", spoil)
    train(
        debug_experiment(
            "nano/stage1.yaml", orbits, tiny_models, tmp_path / "run", "trainer.max_steps=3"
        )
    )
    assert load(tmp_path / "run")["hi3d"]["num_skipped"] == 1
    assert not all(torch.equal(a, b) for a, b in zip(seen[0], seen[1], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(seen[1], seen[2], strict=True))


def test_average_is_of_the_weights_after_the_step(orbits, tiny_models, tmp_path):
    more = ("optim.ema_decay=0.000001", "trainer.max_steps=2")
    train(debug_experiment("nano/stage1.yaml", orbits, tiny_models, tmp_path / "run", *more))
    checkpoint = load(tmp_path / "run")
    experiment = debug_experiment("nano/stage1.yaml", orbits, tiny_models, tmp_path, *more)
    names = [name for name, _ in build_module(experiment).network.named_parameters()]
    for name, average in zip(names, checkpoint["ema"]["shadow_params"], strict=True):
        weights = checkpoint["state_dict"][f"network.{name}"]
        torch.testing.assert_close(average, weights, rtol=0, atol=1e-7)
    assert (
        build_module(debug_experiment("nano/vae.yaml", orbits, tiny_models, tmp_path)).ema is None
    )


def test_checkpoint_on_a_full_disk_is_not_half_there(orbits, tiny_models, tmp_path, monkeypatch):
    def fail(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hi3d.training.checkpoints.torch.save", fail)
    with pytest.raises(InputError, match="no space left"):
        train(debug_experiment("nano/vae.yaml", orbits, tiny_models, tmp_path / "run"))
    assert not list((tmp_path / "run/checkpoints").iterdir())
    assert KeepCheckpoints(tmp_path, 1).saved_step == 0


TWO_PROCESSES = """
import os, sys
import torch
rank = int(os.environ["LOCAL_RANK"]) if "LOCAL_RANK" in os.environ else 0
from hi3d.nano.tasks import ALL_TASKS
from hi3d.training.diffusion_module import DiffusionModule
from hi3d.training.tasks import load_experiment
from hi3d.training.trainer import train
noise = DiffusionModule.noise
def record(self, latents):
    drawn = noise(self, latents)
    with open(f"{sys.argv[1]}/noise{self.trainer.global_rank}", "a") as file:
        if self.training:
            file.write(f"{self.trainer.global_step} {drawn.flatten()[0].item()}\\n")
    return drawn
DiffusionModule.noise = record
train(load_experiment(sys.argv[2], sys.argv[3:], ALL_TASKS), ALL_TASKS)
"""


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
def test_two_processes_draw_different_noise(orbits, tiny_models, tmp_path):
    from test_training import CONFIGS, DEBUG, SMALL_UNET

    script = tmp_path / "two.py"
    script.write_text(TWO_PROCESSES)
    models = [f"{p}={tiny_models / 'stage1'}" for p in ("vae", "image_encoder")]
    overrides = [*DEBUG, *SMALL_UNET, *models, f"data.train={orbits}", "data.val=null"]
    overrides += ["elevation_estimator=null", "orbit_predictor=null", "data.batch_size=1"]
    overrides += [f"trainer.output={tmp_path / 'run'}", "trainer.devices=2", "trainer.strategy=ddp"]
    done = subprocess.run(
        [sys.executable, script, tmp_path, CONFIGS / "nano/stage1.yaml", *overrides],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(CONFIGS.parent)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = [(tmp_path / f"noise{rank}").read_text().splitlines() for rank in (0, 1)]
    assert len(first) == len(second) == 2
    assert not set(first) & set(second)
