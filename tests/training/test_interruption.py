"""Trainings that get signals, are put in SLURM's queue again, or meet numbers that are none."""

import os
import signal
from pathlib import Path

import pytest
import torch

from hi3d.training.callbacks import StepProgress
from hi3d.training.interruption import SLURM_JOB, NonFiniteError, StopOnSignal
from hi3d.training.module import TrainingModule
from tests.training.test_random_state import FEW_VIEWS, assert_same, load
from tests.training.test_training import (
    CONFIGS,
    build_module,
    debug_experiment,
    debug_overrides,
    train,
)
from tests.training.training_process import finish, recorded, start, start_ranks

ANY = [
    *FEW_VIEWS,
    "optim.ema_decay=0.5",
    "trainer.max_steps=4",
    "data.batch_size=1",
    "trainer.val_batches=1",
]
ANY += ["trainer.checkpoint_every=3", "optim.schedule=constant"]


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A SLURM job whose `scontrol` notes its arguments."""
    calls, stub = tmp_path / "calls", tmp_path / "bin/scontrol"
    stub.parent.mkdir()
    stub.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n')
    stub.chmod(0o755)
    monkeypatch.setenv("PATH", f"{stub.parent}:{os.environ['PATH']}")
    monkeypatch.setenv(SLURM_JOB, "4711")
    monkeypatch.setenv("SLURM_JOB_NAME", "hi3d")
    monkeypatch.setenv("SLURM_NTASKS", "1")
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "1")
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_LOCALID", "0")
    monkeypatch.setenv("SLURM_NODEID", "0")
    return calls


def strike_at_step_two(number: int, weights: dict, patch: pytest.MonkeyPatch, moment: str) -> None:
    """Send this process a signal once, in a hook, and keep the trained weights of then."""

    def strike(callback, trainer, module, *_):
        if trainer.global_step == 2 and not weights:
            weights.update({k: v.clone() for k, v in module.network.state_dict().items()})
            if module.average.is_in:
                weights.update({k: v.clone() for k, v in module.average.average.items()})
            os.kill(os.getpid(), number)

    patch.setattr(StepProgress, moment, strike)


@pytest.fixture(scope="module")
def whole(orbits, tiny_models, tmp_path_factory):
    """Weights of a training that nothing disturbs."""
    run = tmp_path_factory.mktemp("whole")
    more = [*ANY, "trainer.val_every=2"]
    train(debug_experiment("stage1.yaml", orbits, tiny_models, run, *more))
    return load(run)["state_dict"]


@pytest.mark.parametrize(
    ("number", "code", "moment"),
    [
        (signal.SIGINT, 130, "on_train_batch_end"),
        (signal.SIGTERM, 143, "on_train_batch_end"),
        (signal.SIGINT, 130, "on_validation_start"),
        (signal.SIGTERM, 143, "on_validation_start"),
    ],
)
def test_signals_leave_a_checkpoint(
    number, code, moment, whole, orbits, tiny_models, tmp_path, monkeypatch, capsys
):
    def experiment(*more):
        more = (*ANY, "trainer.val_every=2", *more)
        return debug_experiment("stage1.yaml", orbits, tiny_models, tmp_path / "run", *more)

    weights: dict[str, torch.Tensor] = {}
    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        strike_at_step_two(number, weights, patch, moment)
        with pytest.raises((KeyboardInterrupt, SystemExit)) as caught:
            train(experiment())
    assert code == (130 if caught.type is KeyboardInterrupt else caught.value.code)
    assert f"{signal.Signals(number).name} at step 2" in capsys.readouterr().err
    assert signal.getsignal(number) == before
    checkpoint = load(tmp_path / "run")
    assert checkpoint["global_step"] == 2
    for name, value in weights.items():  # the trained ones, not their average
        assert torch.equal(checkpoint["state_dict"][f"network.{name}"], value.cpu())
    train(experiment("resume=last"))
    assert_same(load(tmp_path / "run")["state_dict"], whole)


def test_slurm_puts_the_training_in_the_queue_again(
    slurm, whole, orbits, tiny_models, tmp_path, monkeypatch
):
    more = [*ANY, "trainer.val_every=2"]
    experiment = debug_experiment("stage1.yaml", orbits, tiny_models, tmp_path / "run", *more)
    with monkeypatch.context() as patch:
        strike_at_step_two(signal.SIGUSR1, {}, patch, "on_train_batch_end")
        with pytest.raises(SystemExit) as caught:
            train(experiment)
    assert caught.value.code == 128 + signal.SIGUSR1
    assert slurm.read_text().split() == ["requeue", "4711"]
    assert load(tmp_path / "run")["global_step"] == 2
    assert not list(Path().glob("hpc_ckpt*"))  # Lightning's own hook keeps out of it
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    train(experiment)  # the same command goes on
    assert_same(load(tmp_path / "run")["state_dict"], whole)


def test_the_same_signal_twice_acts_at_once(monkeypatch):
    acted = []
    monkeypatch.setattr(signal, "signal", lambda number, handler: acted.append(handler))
    monkeypatch.setattr(signal, "raise_signal", acted.append)
    stop = StopOnSignal()
    stop._receive(signal.SIGTERM, None)
    stop._receive(signal.SIGINT, None)
    assert (stop.received, acted) == (signal.SIGTERM, [])
    stop._receive(signal.SIGTERM, None)
    assert acted == [signal.SIG_DFL, signal.SIGTERM]


def test_one_process_with_a_signal_stops_all(orbits, tiny_models, tmp_path):
    more = [*ANY, "trainer.max_steps=4000", "data.val=null", "trainer.strategy=ddp"]
    settings = debug_overrides("stage1.yaml", orbits, tiny_models, tmp_path / "run", *more)
    words = ["--config", CONFIGS / "stage1.yaml", *settings]
    logs = [tmp_path / "rank0.log", tmp_path / "rank1.log"]
    ranks = start_ranks(words, logs)
    while not (tmp_path / "run/checkpoints/last.ckpt").exists() and ranks[0].is_alive():
        ranks[0].join(0.05)
    assert ranks[1].pid is not None
    os.kill(ranks[1].pid, signal.SIGTERM)
    assert [finish(process) for process in ranks] == [143, 143]
    steps = [len(recorded(log)) for log in logs]
    assert steps[0] == steps[1] == load(tmp_path / "run")["global_step"] < 4000


def test_loss_that_is_no_number(orbits, tiny_models, tmp_path):
    more = [
        *FEW_VIEWS,
        "diffusion.sigma_log_mean=.nan",
        "trainer.max_steps=9",
        "optim.max_skipped=3",
    ]
    run = tmp_path / "run"
    settings = debug_overrides("stage1.yaml", orbits, tiny_models, run, *more)
    (run / "model").mkdir(parents=True)
    (run / "model/kept").touch()
    words = ["--config", CONFIGS / "stage1.yaml", *settings, "trainer.val_every=9"]
    assert finish(start(words, tmp_path / "log")) == 1
    last_line = (tmp_path / "log").read_text().strip().splitlines()[-1]
    assert last_line.startswith("error: loss or gradient was NaN or infinite in 3 steps in a row")
    assert [path.name for path in (run / "model").iterdir()] == ["kept"]


def test_one_bad_step_is_skipped(orbits, tiny_models, tmp_path, monkeypatch):
    step, seen = TrainingModule.on_before_optimizer_step, []

    def spoil(module, optimizer):
        if module.trainer.global_step == 1:
            next(module.network.parameters()).grad.fill_(torch.inf)
        seen.append([p.detach().clone() for p in module.network.parameters()])
        step(module, optimizer)

    monkeypatch.setattr(TrainingModule, "on_before_optimizer_step", spoil)
    more = [*FEW_VIEWS, "trainer.max_steps=3", "data.val=null"]
    train(debug_experiment("stage1.yaml", orbits, tiny_models, tmp_path / "run", *more))
    assert load(tmp_path / "run")["hi3d"]["num_skipped"] == 1
    assert not all(torch.equal(a, b) for a, b in zip(seen[0], seen[1], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(seen[1], seen[2], strict=True))


def test_too_many_bad_steps_leave_the_checkpoint(orbits, tiny_models, tmp_path, monkeypatch):
    step = TrainingModule.on_before_optimizer_step

    def spoil(module, optimizer):
        if module.trainer.global_step >= 2:
            next(p for p in module.network.parameters() if p.grad is not None).grad.fill_(torch.nan)
        step(module, optimizer)

    monkeypatch.setattr(TrainingModule, "on_before_optimizer_step", spoil)
    more = ["trainer.max_steps=9", "data.val=null", "optim.max_skipped=2"]
    with pytest.raises(NonFiniteError, match="2 steps in a row"):
        train(debug_experiment("nano/vae.yaml", orbits, tiny_models, tmp_path / "run", *more))
    state = load(tmp_path / "run")["state_dict"]
    assert all(value.isfinite().all() for value in state.values())


def test_average_is_of_the_weights_after_the_step(orbits, tiny_models, tmp_path):
    more = (*FEW_VIEWS, "optim.ema_decay=0.000001", "trainer.max_steps=2", "data.val=null")
    train(debug_experiment("stage1.yaml", orbits, tiny_models, tmp_path / "run", *more))
    checkpoint = load(tmp_path / "run")
    for name, average in checkpoint["ema"]["average"].items():
        weights = checkpoint["state_dict"][f"network.{name}"]
        torch.testing.assert_close(average, weights, rtol=0, atol=1e-7)


def test_without_a_decay_there_is_no_average(orbits, tiny_models, tmp_path):
    more = "optim.ema_decay=0"
    experiment = debug_experiment("nano/vae.yaml", orbits, tiny_models, tmp_path, more)
    assert build_module(experiment).average is None
