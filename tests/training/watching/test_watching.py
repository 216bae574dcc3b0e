"""What a training logs, samples, writes down at its start and forecasts."""

import imageio
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from hi3d.errors import InputError
from hi3d.images.lpips_package import packaged_file
from hi3d.training.watching.dry_run import Forecast, planned_memory_gb, projected_days
from hi3d.training.watching.metrics import build_logger, losses_by_sigma
from hi3d.training.watching.samples import picture, video_frames, view_scores
from tests.training.test_random_state import FEW_VIEWS
from tests.training.test_training import (
    CONFIGS,
    build_module,
    debug_experiment,
    load_experiment,
    train,
)


def test_scalars_samples_and_config_of_a_training(orbits, tiny_models, tmp_path):
    run = tmp_path / "run"
    more = [*FEW_VIEWS, "trainer.log_every=2", "trainer.max_steps=4", "data.val=" + str(orbits)]
    more += ["trainer.val_every=4", "trainer.val_batches=1", "samples.every=2", "samples.steps=2"]
    train(debug_experiment("stage1.yaml", orbits, tiny_models, run, *more))
    log = EventAccumulator(str(run / "logs"))
    log.Reload()
    names = set(log.Tags()["scalars"])
    assert {"train/loss_denoising", "train/gradient_norm", "lr-AdamW"} <= names
    assert {"speed/orbits_per_second", "speed/hours_left", "speed/memory_gb"} <= names
    assert any(name.startswith("train/loss_sigma_") for name in names)
    assert [event.step for event in log.Scalars("samples/psnr")] == [2, 4]
    assert log.Tags()["images"] == ["samples"]
    assert log.Scalars("speed/hours_left")[-1].value == 0
    pictures = sorted(path.name for path in (run / "samples").iterdir())
    names = [f"step=0000000{step}.{kind}" for step in (2, 4) for kind in ("mp4", "png")]
    assert pictures == names
    assert Image.open(run / "samples" / pictures[1]).size == (4 * 16, 2 * 2 * 16)
    with imageio.get_reader(run / "samples" / pictures[0]) as reader:
        assert (reader.count_frames(), reader.get_data(0).shape) == (4, (2 * 16, 2 * 16, 3))
    installed = packaged_file("vgg") is not None
    assert ("samples/lpips" in log.Tags()["scalars"]) == installed
    written = (run / "config.yaml").read_text()
    assert written.startswith("# Revision of the code: ")
    again = load_experiment(run / "config.yaml")
    assert (again.trainer.max_steps, again.data.num_views, again.samples.every) == (4, 4, 2)


def test_samples_do_not_change_the_training(orbits, tiny_models, tmp_path):
    common = [*FEW_VIEWS, "optim.ema_decay=0.9", "trainer.val_every=9"]
    for name, every in (("with", 1), ("without", "null")):
        more = [*common, f"samples.every={every}", "samples.steps=1"]
        train(debug_experiment("stage2.yaml", orbits, tiny_models, tmp_path / name, *more))
    first, second = (
        torch.load(tmp_path / name / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for name in ("with", "without")
    )
    assert all(torch.equal(first[name], second[name]) for name in second)


def test_losses_by_noise_level():
    sigma, losses = torch.tensor([0.1, 0.5, 1.9, 40.0]), torch.tensor([1.0, 2.0, 4.0, 8.0])
    assert losses_by_sigma(sigma, losses) == {
        "train/loss_sigma_0_to_0.5": 1.0,
        "train/loss_sigma_0.5_to_2": 3.0,
        "train/loss_sigma_above_32": 8.0,
    }


def test_scores_and_picture():
    true = torch.zeros(2, 16, 3, 8, 8)
    sampled = torch.full_like(true, 0.1)
    assert view_scores(sampled, true)["samples/psnr"] == pytest.approx(20.0, abs=1e-4)
    assert view_scores(true, true)["samples/ssim"] == pytest.approx(1.0)
    image = picture(true, sampled)
    assert image.shape == (3, 4 * 8, 8 * 8)
    frames = list(video_frames(true, sampled))
    assert [frame.shape for frame in frames] == [(2 * 8, 2 * 8, 3)] * 16
    assert frames[3][::8, 0, 0].tolist() == [0, 26]
    assert image[:, ::8, 0].tolist() == [[pytest.approx(v) for v in (0, 0.1, 0, 0.1)]] * 3


def test_dry_run_forecasts_and_writes_nothing(orbits, tiny_models, tmp_path, capsys):
    more = [*FEW_VIEWS, "dry_run=true", "trainer.hardware=H100", "trainer.max_steps=1000"]
    train(debug_experiment("stage1.yaml", orbits, tiny_models, tmp_path / "run", *more))
    told = capsys.readouterr().err
    assert "optimizer" in told
    assert "days for 1000 steps" in told
    assert "on H100 at 40% of its peak" in told
    assert not (tmp_path / "run").exists()
    with pytest.raises(InputError, match="choose V100, A100"):
        train(
            debug_experiment(
                "stage1.yaml",
                orbits,
                tiny_models,
                tmp_path / "run",
                *more[:2],
                "trainer.hardware=TPU",
            )
        )


def test_forecast_in_closed_form(orbits, tiny_models, tmp_path):
    module = build_module(debug_experiment("nano/vae.yaml", orbits, tiny_models, tmp_path))
    module.network = nn.Linear(1000, 999)  # 10^6 parameters: 4 MB
    planned = planned_memory_gb(module, "adamw")
    expected = {"weights": 0.004, "gradients": 0.004, "optimizer": 0.008}
    for name, size in expected.items():
        assert planned[name] == pytest.approx(size, rel=2e-3)
    # 124.8 TFLOP at 40 % of 312 TFLOP/s take a second.
    assert projected_days(Forecast({}, 0, 0, 124.8), 86400, "A100") == pytest.approx(1.0)


def test_logger_that_is_missing(tmp_path, monkeypatch):
    experiment = load_experiment(CONFIGS / "nano/vae.yaml")
    experiment.trainer.logger = "wandb"
    monkeypatch.setattr("hi3d.training.watching.metrics.find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"pip install 'hi3d\[wandb\]'"):
        build_logger(experiment, tmp_path)
    experiment.trainer.logger = "paper"
    with pytest.raises(InputError, match="choose tensorboard or wandb"):
        build_logger(experiment, tmp_path)
