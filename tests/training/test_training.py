"""Every training config takes two steps at debug size, resumes, and exports what pipelines read."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from hi3d.data.dataset import OrbitDataset
from hi3d.data.epoch_order import fold_of
from hi3d.errors import InputError
from hi3d.nano.tasks import ALL_TASKS
from hi3d.nano.train_networks import disparity_target
from hi3d.training import tasks, trainer
from hi3d.training.losses import (
    loss_contrastive,
    loss_gradient,
    loss_l1,
    relative_weights,
)
from hi3d.training.module import TrainingModule, learning_rate_factor

CONFIGS = Path(__file__).parents[2] / "configs"
TRAINING_CONFIGS = sorted(
    path.relative_to(CONFIGS).as_posix()
    for path in CONFIGS.rglob("*.yaml")
    if "\ntask:" in path.read_text()
)
DEBUG = [
    "data.resolution=16",
    "data.batch_size=2",
    "data.num_workers=0",
    "data.streaming=false",
    "trainer.max_steps=2",
    "trainer.val_every=2",
    "trainer.checkpoint_every=1",
    "trainer.precision=32-true",
    "trainer.strategy=auto",
    "trainer.devices=1",
    "trainer.num_threads=1",
]
SMALL_UNET = [
    "unet.block_out_channels=[32,32]",
    "unet.num_attention_heads=[1,1]",
    "unet.cross_attention_dim=16",
    "unet.addition_time_embed_dim=32",
]


def load_experiment(path: Path, overrides: Sequence[str] = ()) -> Any:
    return tasks.load_experiment(path, overrides, ALL_TASKS)


def build_module(experiment) -> TrainingModule:
    return ALL_TASKS[experiment.task].module(experiment)


def train(experiment) -> Path:
    return trainer.train(experiment, ALL_TASKS)


def debug_overrides(config: str, orbits: Path, models: Path, output: Path, *more: str):
    path = CONFIGS / config
    overrides = [
        f"data.train={orbits}",
        f"data.val={orbits}",
        f"trainer.output={output}",
        *DEBUG,
    ]
    task = load_experiment(path).task
    if task.removeprefix("nano_") in ("stage1", "stage2"):
        from_svd = load_experiment(path).init_from is not None
        if from_svd:
            overrides.append(f"init_from={models / 'svd'}")
        else:
            overrides += [f"{part}={models / 'stage1'}" for part in ("vae", "image_encoder")]
            parts = ("elevation_estimator", "grid_predictor")
            overrides += [f"{part}={models / 'stage1'}" for part in parts if task == "nano_stage1"]
            overrides += SMALL_UNET
    if task.removeprefix("nano_") == "stage2":
        overrides.append(f"depth_estimator={models / 'stage2'}")
        if task == "stage2":
            overrides += ["stage1_orbits=null", "stage1_steps=2"]
        if load_experiment(path).stage1 is not None:
            overrides += [f"stage1={models / 'stage1'}", "stage1_resolution=16"]
        if task == "nano_stage2":
            overrides.append(f"stage1_cross_fitted=[{models / 'stage1'},{models / 'stage1'}]")
    if task == "grid_predictor":
        overrides += ["grid_predictor.image_size=16", "grid_predictor.num_depths=8"]
        overrides += ["grid_predictor.channels=[8,8,32]", "grid_predictor.num_token_blocks=1"]
        overrides += ["grid_predictor.num_points=64", "grid_predictor.num_samples=8"]
        overrides += ["grid_predictor.render_from=0.0"]
    if task == "vae":
        overrides += ["vae.crop=8", "vae.patch_size=4"]
    if task == "elevation":
        overrides += ["elevation.image_size=16", "elevation.channels=[8,8]"]
    if task == "image_encoder":
        overrides += ["image_encoder.image_size=16", "image_encoder.hidden_size=16"]
    if task == "depth":
        overrides += ["depth.image_size=16", "depth.patch_size=4", "depth.hidden_size=16"]
    return [*overrides, *more]


def debug_experiment(config: str, orbits: Path, models: Path, output: Path, *more: str):
    overrides = debug_overrides(config, orbits, models, output, *more)
    return load_experiment(CONFIGS / config, overrides)


def test_all_trainings_are_covered():
    assert {"stage1.yaml", "stage2.yaml", "nano/stage1.yaml", "nano/vae.yaml"} <= set(
        TRAINING_CONFIGS
    )


@pytest.mark.parametrize("config", TRAINING_CONFIGS)
def test_two_steps(config, orbits, tiny_models, tmp_path, golden, monkeypatch):
    losses = []
    log_losses = TrainingModule.log_losses

    def record(module, stage, values, batch_size):
        if stage == "train":
            losses.append(sum(float(value.detach()) for value in values.values()))
        log_losses(module, stage, values, batch_size)

    monkeypatch.setattr(TrainingModule, "log_losses", record)
    experiment = debug_experiment(config, orbits, tiny_models, tmp_path / "run")
    network = build_module(experiment).network
    before = {name: value for name, value in network.named_parameters() if value.requires_grad}
    torch.manual_seed(experiment.seed)
    model = train(experiment)
    assert (model / "model_index.json").is_file()
    assert "Steps: 2 of 2" in (model / "README.md").read_text()
    assert any(model.rglob("*.safetensors"))
    assert len(losses) == 2
    checkpoint = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 2
    state = checkpoint["state_dict"]
    assert not [key for key in state if key.startswith("frozen.")]
    moved = [
        name for name, value in before.items() if not torch.equal(state[f"network.{name}"], value)
    ]
    assert len(moved) > 0.5 * len(before)
    assert all(value.isfinite().all() for value in state.values() if value.is_floating_point())
    weights = torch.cat([v.flatten() for _, v in sorted(state.items()) if v.is_floating_point()])
    golden(f"training {config}", losses=torch.tensor(losses), weights=weights)


def test_resume_goes_on_and_a_second_start_is_refused(orbits, tiny_models, tmp_path):
    run = tmp_path / "run"
    train(debug_experiment("nano/stage1.yaml", orbits, tiny_models, run))
    with pytest.raises(InputError, match="resume=last"):
        train(debug_experiment("nano/stage1.yaml", orbits, tiny_models, run))
    more = ["trainer.max_steps=3", "resume=last"]
    train(debug_experiment("nano/stage1.yaml", orbits, tiny_models, run, *more))
    checkpoint = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 3
    missing = f"resume={tmp_path / 'missing.ckpt'}"
    with pytest.raises(InputError, match="no checkpoint"):
        train(debug_experiment("nano/vae.yaml", orbits, tiny_models, tmp_path / "x", missing))


def test_dropped_conditions_are_zero_for_whole_videos(orbits, tiny_models, tmp_path):
    experiment = debug_experiment("nano/stage1.yaml", orbits, tiny_models, tmp_path)
    experiment.diffusion.drop_image_latents = 0.5
    experiment.diffusion.drop_image_embeds = 1.0
    module = build_module(experiment)
    from hi3d.diffusion.sampling import OrbitCondition

    full = OrbitCondition(torch.ones(400, 2, 4, 1, 1), torch.ones(400, 1, 16), torch.ones(400, 2))
    dropped = module.drop_conditions(full)
    kept = dropped.concat.flatten(1).mean(1)
    assert set(kept.tolist()) == {0.0, 1.0}
    assert 150 < kept.sum() < 250
    assert (dropped.image_embeds == 0).all()
    assert (dropped.added_time_ids == 1).all()
    experiment.diffusion.drop_latents_per_frame = True
    kept = module.drop_conditions(full).concat.flatten(2).mean(2)
    assert set(kept.mean(1).tolist()) == {0.0, 0.5, 1.0}


def test_losses_in_closed_form():
    first = torch.zeros(1, 1, 2, 2)
    second = torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]]])
    assert loss_l1(first, second).item() == pytest.approx(1.5)
    # Horizontal differences are 1, vertical ones 2.
    assert loss_gradient(first, second).item() == pytest.approx(3.0)
    # Orthogonal pairs at temperature 1: -log(e / (e + 1)).
    expected = torch.log1p(torch.exp(torch.tensor(-1.0))).item()
    assert loss_contrastive(torch.eye(2), torch.eye(2), 1.0).item() == pytest.approx(expected)


def test_stage2_is_trained_on_predictors_that_have_not_seen_the_orbit(
    orbits, tiny_models, tmp_path
):
    experiment = debug_experiment("nano/stage2.yaml", orbits, tiny_models, tmp_path)
    module = build_module(experiment)
    batch = next(iter(torch.utils.data.DataLoader(OrbitDataset(orbits, 16), batch_size=4)))
    folds = [fold_of(uid, 2) for uid in batch["uid"]]
    assert set(folds) == {0, 1}

    def run():
        return module.stage1_orbit(batch, module.generators("coarse_orbit", 4))

    before = run()
    with torch.no_grad():
        module.predictors[0].head.bias.fill_(-6.0)  # nothing is there
    changed = (run() - before).abs().amax((1, 2, 3, 4)) > 1e-4
    assert changed.tolist() == [fold == 0 for fold in folds]


def test_cross_fitted_predictors_need_one_in_stage1(orbits, tiny_models, tmp_path):
    more = f"stage1={tiny_models / 'stage2'}"
    experiment = debug_experiment("nano/stage2.yaml", orbits, tiny_models, tmp_path, more)
    with pytest.raises(InputError, match="stage1_cross_fitted needs a grid predictor"):
        build_module(experiment)


def test_relative_weights():
    residual = torch.zeros(1, 4, 2, 3, 3)
    residual[0, 1:] = torch.tensor([1.0, 2.0, 3.0])[:, None, None, None]
    # Mean square 14 / 4 = 3.5: w = 1 / (r^2 / 3.5 + 0.1).
    expected = torch.tensor([10.0, 1 / (1 / 3.5 + 0.1), 1 / (4 / 3.5 + 0.1), 1 / (9 / 3.5 + 0.1)])
    torch.testing.assert_close(relative_weights(residual, 0.1)[0, :, 0, 0, 0], expected)


def test_disparity_target():
    target = disparity_target(torch.tensor([0.0, 0.6, 0.7, 1.5, 2.4]))
    # (1 / 1.5 - 1 / 2.4) / (1 / 0.6 - 1 / 2.4) = 0.2
    expected = torch.tensor([0.0, 0.0, (1 / 0.7 - 1 / 2.4) / 1.25, 0.2, 0.0])
    torch.testing.assert_close(target, expected)


def test_learning_rate_schedule():
    optim = load_experiment(CONFIGS / "nano/stage1.yaml").optim
    optim.warmup_steps = 9
    assert learning_rate_factor(0, optim, 1000) == pytest.approx(0.1, abs=1e-3)
    assert learning_rate_factor(500, optim, 1000) == pytest.approx(0.5)
    assert learning_rate_factor(1000, optim, 1000) == pytest.approx(0.0)
    optim.schedule = "constant"
    assert learning_rate_factor(500, optim, 1000) == 1
    optim.schedule = "linear"
    with pytest.raises(InputError, match="constant or cosine"):
        learning_rate_factor(0, optim, 10)


def test_unknown_task_and_key(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("task: stage3\n")
    with pytest.raises(InputError, match="choose one of"):
        load_experiment(path)
    with pytest.raises(InputError, match=r"did you mean 'trainer.max_steps'"):
        load_experiment(CONFIGS / "nano/vae.yaml", ["trainer.max_step=1"])


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("data.batch_size=0", "data.batch_size=0"),
        ("data.num_workers=-1", "data.num_workers=-1"),
        ("trainer.accumulate=0", "trainer.accumulate=0"),
        ("trainer.devices=none", "trainer.devices=none"),
        ("trainer.devices=999", "trainer.devices=999: this machine has"),
        ("trainer.precision=fp17", "trainer.precision=fp17"),
        ("trainer.strategy=fast", "trainer.strategy=fast"),
        ("optim.lr=quick", "optim.lr: Value 'quick'"),
    ],
)
def test_settings_that_cannot_be(override, words, orbits, tiny_models, tmp_path):
    with pytest.raises(InputError, match=words) as caught:
        train(debug_experiment("nano/vae.yaml", orbits, tiny_models, tmp_path / "run", override))
    assert "\n" not in str(caught.value)
