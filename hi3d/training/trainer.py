"""From a training config to a model folder."""

import logging
import os
import signal
import sys
import warnings
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf
from pytorch_lightning.callbacks import Callback, LearningRateMonitor
from pytorch_lightning.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from hi3d.config import config_to_dict
from hi3d.diffusion.precision import warn_of_slow_bfloat16
from hi3d.errors import InputError
from hi3d.files import atomic_path, make_folder
from hi3d.orbits.run_state import full_disk_is_an_input_error
from hi3d.progress import console
from hi3d.report import RunReport
from hi3d.training.callbacks import ExportModel, StepProgress
from hi3d.training.checkpoints import (
    AtomicCheckpointIO,
    KeepCheckpoints,
    find_checkpoint,
    find_checkpoints,
    git_revision,
)
from hi3d.training.datamodule import OrbitDataModule
from hi3d.training.experiment import DiffusionExperiment, Experiment, TrainerConfig
from hi3d.training.interruption import Interrupted, StopOnSignal, requeue, was_requeued
from hi3d.training.module import TrainingModule
from hi3d.training.scaling.strategies import DEEPSPEED, build_strategy
from hi3d.training.tasks import TASKS, Task
from hi3d.training.watching.dry_run import (
    NUM_STEPS,
    MeasureSteps,
    forecast,
    peak_tflops,
    print_forecast,
)
from hi3d.training.watching.metrics import LogScalars, build_logger
from hi3d.training.watching.samples import SampleOrbits

UNWANTED_ADVICE = (
    "in eval mode at the start of training",
    "LeafSpec",
    "This DataLoader will create",
    "is smaller than the logging interval",
)
"""Of torch and Lightning, which name no setting of ours."""


def train(experiment: Experiment, tasks: Mapping[str, Task] = TASKS) -> Path:
    """Train, with checkpoints, logs and exports in `trainer.output`.

    Args:
        experiment: from `hi3d.training.tasks.load_experiment`.
        tasks: what can be trained; the experiment names one of them.

    Returns:
        The model folder `trainer.output/model`.

    Raises:
        InputError: data, model folders, the output folder or the checkpoint to resume are wrong.
    """
    config = experiment.trainer
    if experiment.dry_run:
        return dry_run(experiment, tasks)
    output = make_folder(config.output)
    checkpoints = output / "checkpoints"
    resume = experiment.resume or ("last" if was_requeued() else None)
    if resume is None and find_checkpoints(checkpoints):
        raise InputError(
            f"{output} holds checkpoints of an earlier training: add resume=last to go on, "
            "or choose another trainer.output"
        )
    module, data = build(experiment, tasks)
    sharded = config.strategy.startswith(DEEPSPEED)
    checkpoint = find_checkpoint(resume, checkpoints, module.network, sharded)
    logger = build_logger(experiment, output)
    trainer = build_trainer(experiment, build_callbacks(experiment, output), logger=logger)
    if trainer.is_global_zero:
        write_resolved_config(experiment, output)
    report = RunReport({"resume": resume}, config_to_dict(experiment), experiment.seed)
    with report.step("train") as facts:
        _fit(trainer, module, data, checkpoint, output)
        facts["global_step"] = trainer.global_step
        facts["num_skipped"] = module.num_skipped
        facts["metrics"] = {name: float(v) for name, v in trainer.callback_metrics.items()}
    if trainer.is_global_zero:
        report.save(output / "report.json")
        console.print(f"model folder: {output / 'model'}")
    return output / "model"


def build(
    experiment: Experiment, tasks: Mapping[str, Task]
) -> tuple[TrainingModule, OrbitDataModule]:
    """What is trained and on what, under the experiment's seed.

    Raises:
        InputError: data or model folders are wrong.
    """
    task = tasks[experiment.task]
    if experiment.trainer.num_threads is not None:
        torch.set_num_threads(experiment.trainer.num_threads)
    pl.seed_everything(experiment.seed, workers=True, verbose=False)
    data = OrbitDataModule(experiment.data, load_depth=task.load_depth, seed=experiment.seed)
    data.setup("fit")
    return task.module(experiment), data


def dry_run(experiment: Experiment, tasks: Mapping[str, Task]) -> Path:
    """Take two steps and print what a whole training will take; write nothing.

    Returns:
        The folder that the training would write its model to.

    Raises:
        InputError: as `train`, or the hardware is unknown.
    """
    peak_tflops(experiment.trainer.hardware)
    module, data = build(experiment, tasks)
    steps = MeasureSteps(experiment.trainer.accumulate)
    short = replace(experiment, trainer=replace(experiment.trainer, max_steps=NUM_STEPS))
    limits: dict[str, Any] = {"limit_val_batches": 0, "val_check_interval": None}
    limits |= {"check_val_every_n_epoch": 1, "enable_checkpointing": False}
    trainer = build_trainer(short, [steps], logger=False, **limits)
    trainer.fit(module, datamodule=data)
    if trainer.is_global_zero:
        print_forecast(forecast(module, steps, experiment), experiment)
    return Path(experiment.trainer.output) / "model"


def write_resolved_config(experiment: Experiment, output: Path) -> None:
    """Write `config.yaml`, which can be given to --config again, under the revision of the code."""
    revision = git_revision() or "unknown"
    text = OmegaConf.to_yaml(OmegaConf.create(config_to_dict(experiment)))
    with atomic_path(output / "config.yaml") as partial:
        partial.write_text(f"# Revision of the code: {revision}\n{text}")


def _fit(
    trainer: pl.Trainer,
    module: TrainingModule,
    data: OrbitDataModule,
    checkpoint: str | None,
    output: Path,
) -> None:
    """Train; after a signal leave by KeyboardInterrupt (130) or SystemExit (143 for SIGTERM).

    Raises:
        InputError: the disk is full.
    """
    try:
        with full_disk_is_an_input_error(output):
            trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except Interrupted as stop:
        if trainer.is_global_zero:
            line = f"{stop} at step {trainer.global_step}: resume=last goes on from there"
            console.print(line, markup=False)
        if stop.number == signal.SIGINT:
            raise KeyboardInterrupt from stop
        if stop.number == signal.SIGUSR1 and trainer.is_global_zero:
            requeue()
        sys.exit(128 + stop.number)
    except SystemExit as end:
        if trainer.interrupted:  # an interrupt before the first step
            raise KeyboardInterrupt from end
        raise
    finally:
        data.teardown("fit")


def build_callbacks(experiment: Experiment, output: Path) -> list[Callback]:
    """What goes on beside the steps of a training."""
    config = experiment.trainer
    callbacks: list[Callback] = [
        StepProgress(),
        ExportModel(output / "model"),
        LearningRateMonitor(),
        LogScalars(experiment),
        StopOnSignal(config.accumulate),
        KeepCheckpoints(output / "checkpoints", config.checkpoint_every),
    ]
    if isinstance(experiment, DiffusionExperiment) and experiment.data.val is not None:
        callbacks.insert(0, SampleOrbits(experiment.samples, output / "samples"))
    return callbacks


def build_trainer(
    experiment: Experiment, callbacks: list[Callback], logger: Any, **overrides: Any
) -> pl.Trainer:
    """A Lightning trainer.

    Args:
        experiment: says how.
        callbacks: of the trainer.
        logger: Lightning's; False logs nothing.
        overrides: of the trainer's arguments.

    Raises:
        InputError: Lightning does not know a setting, or this machine cannot do it.
    """
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)  # no advice on loggers and GPUs
    for advice in UNWANTED_ADVICE:
        warnings.filterwarnings("ignore", message=f".*{advice}")
    config, validate = experiment.trainer, experiment.data.val is not None
    settings: dict[str, Any] = {
        "devices": _devices(config.devices),
        "num_nodes": config.num_nodes,
        "strategy": build_strategy(config.strategy),
        "precision": config.precision,
    }
    arguments: dict[str, Any] = dict(
        max_steps=config.max_steps,
        max_time=timedelta(minutes=config.max_minutes) if config.max_minutes else None,
        accelerator="auto",
        accumulate_grad_batches=config.accumulate,
        val_check_interval=config.val_every * config.accumulate if validate else None,
        check_val_every_n_epoch=None if validate else 1,
        limit_val_batches=config.val_batches if validate else 0,
        num_sanity_val_steps=0,
        log_every_n_steps=config.log_every,
        gradient_clip_val=experiment.optim.grad_clip,
        logger=logger,
        callbacks=callbacks,
        plugins=_plugins(config),
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=True,
    )
    try:
        trainer = pl.Trainer(**settings, **arguments | overrides)
    except (TypeError, ValueError, MisconfigurationException) as error:
        given = ", ".join(f"trainer.{name}={value}" for name, value in settings.items())
        cause = str(error).strip().split("\n")[0]
        raise InputError(f"{cause} ({given}): change one of these") from error
    on_cpu = not torch.accelerator.is_available()
    if config.precision.startswith("bf16") and on_cpu and trainer.is_global_zero:
        warn_of_slow_bfloat16(f"trainer.precision={config.precision}", "32-true")
    return trainer


def _plugins(config: TrainerConfig) -> list[Any]:
    """Whole checkpoints, unless DeepSpeed writes its own; SLURM's signals are `StopOnSignal`'s.

    Processes that torchrun has started are told so by it, also within a SLURM job.
    """
    plugins: list[Any] = []
    if not config.strategy.startswith(DEEPSPEED):
        plugins.append(AtomicCheckpointIO())
    if TorchElasticEnvironment.detect():
        plugins.append(TorchElasticEnvironment())
    elif SLURMEnvironment.detect():
        plugins.append(SLURMEnvironment(auto_requeue=False))
    return plugins


def _devices(devices: str) -> str | int:
    if not devices.isdigit():
        return devices
    gpus = torch.cuda.device_count()
    most, kind = (gpus, "GPUs") if gpus else (max(2, os.cpu_count() or 1), "processes on its CPU")
    if int(devices) > most:
        raise InputError(f"trainer.devices={devices}: this machine has {most} {kind} at most")
    return int(devices)
